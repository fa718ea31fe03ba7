"""Models of ours: what was saved comes back, and what cannot be right is refused in a line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from present import present
from safetensors.torch import load_file, save_file
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel as ByteLevelCutter
from torch import Tensor

import wirework as ww
from wirework import files
from wirework.config import GatingConfig, ModelConfig
from wirework.data import Tokenizer
from wirework.errors import InputError
from wirework.model import Model
from wirework.nn import Transformer
from wirework.nn.gates import Gates
from wirework.nn.sites import Site, mean_ablation

SMALL: dict[str, Any] = {"vocab_size": 23, "n_ctx": 12, "n_layer": 2, "d_model": 16, "d_head": 4}
TOKENS = torch.arange(12)[None]


def saved(folder: Path, *, gates: bool = False, **change: Any) -> Path:
    config = ModelConfig(**(SMALL | change))
    transformer = Transformer(config, seed=3)
    with torch.no_grad():
        transformer.blocks[0].mlp.up.weight[2:] = 0  # stored sparsely
    gating = GatingConfig(k_attention=2, k_neurons=3)
    return Model(transformer, gates=Gates(config, gating) if gates else None).save(folder)


def rewrite(
    folder: Path,
    tensors: Callable[[dict[str, Tensor]], Any] | None = None,
    config: dict[str, Any] | None = None,
    name: str = "model.safetensors",
) -> None:
    """Change a folder, checksums and all, as one who means to would."""
    if tensors is not None:
        state = load_file(folder / name)
        changed = tensors(state)
        save_file(state if changed is None else changed, folder / name)
    if config is not None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | config))
    sums = {path.name: files.sha256(path) for path in folder.iterdir()}
    sums.pop("checksums.json")
    (folder / "checksums.json").write_text(json.dumps(sums))


def refused(folder: Path, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        ww.load(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


SET = dict.__setitem__
UP = "blocks.0.mlp.up.weight"
DENSE = "blocks.1.attn.qkv.weight"


class TestLoadModel:
    @pytest.mark.parametrize("change", [{}, {"tied_embedding": True, "norm": "layer"}])
    def test_what_was_saved_comes_back(self, change: dict[str, Any], tmp_path: Path) -> None:
        folder = saved(tmp_path / "m", **change)
        model = ww.load(folder)
        assert model.fingerprint == ww.load(folder).fingerprint
        again = ww.load(model.save(tmp_path / "again"))
        assert again.fingerprint == model.fingerprint
        assert torch.equal(again(TOKENS), model(TOKENS))

    @pytest.mark.parametrize("trained_on_tasks", [True, False, None])
    def test_keeps_whether_it_was_trained_on_tasks(
        self, trained_on_tasks: bool | None, tmp_path: Path
    ) -> None:
        transformer = Transformer(ModelConfig(**SMALL))
        folder = Model(transformer, trained_on_tasks=trained_on_tasks).save(tmp_path / "m")
        assert (folder / "training.json").exists() == (trained_on_tasks is not None)
        again = ww.load(folder).save(tmp_path / "again")
        assert ww.load(again).trained_on_tasks is trained_on_tasks

    def test_of_an_earlier_version_does_not_say_what_it_was_trained_on(self) -> None:
        folder = Path(__file__).parent / "golden" / "model"
        assert not (folder / "training.json").exists()
        assert ww.load(folder).trained_on_tasks is None

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda s: s.pop(DENSE), f"lacks the tensor {DENSE}"),
            (
                lambda s: [s.pop(name) for name in list(s) if name.startswith("blocks.1")],
                r"lacks the tensor blocks\.1\.norm1\.weight and \d+ others \(blocks",
            ),
            (lambda s: s.clear(), "has 0 tensors, too few for the config's 2 layers"),
            (lambda s: SET(s, "extra", torch.ones(1)), "has an unknown tensor extra"),
            (lambda s: SET(s, DENSE, torch.ones(3, 3)), r"is \(3, 3\), the config says \(48, 16\)"),
            (
                lambda s: SET(s, DENSE, torch.full((48, 16), torch.nan)),
                f"{DENSE} has an entry that is",
            ),
            (
                lambda s: SET(s, DENSE, torch.full((48, 16), torch.inf)),
                f"{DENSE} has an entry that is",
            ),
            (
                lambda s: SET(s, DENSE, torch.ones(48, 16, dtype=torch.int8)),
                f"{DENSE} is int8; weigh",
            ),
            (lambda s: SET(s, DENSE, torch.ones(48, 16, dtype=torch.complex64)), "is complex64"),
            (
                lambda s: SET(s, DENSE, torch.ones(48, 16).to(torch.float8_e4m3fn)),
                "is float8_e4m3fn; weights must be float32",
            ),
            (lambda s: SET(s, f"{UP}.indices", s[f"{UP}.indices"].float()), "indices is float32"),
            (lambda s: SET(s, f"{UP}.values", s[f"{UP}.values"] * torch.nan), f"{UP} has an entry"),
            (lambda s: SET(s, f"{UP}.values", s[f"{UP}.values"].char()), "values is int8"),
            (lambda s: SET(s, f"{UP}.shape", torch.tensor([10**12, 16])), "the config says"),
            (lambda s: SET(s, "z.shape", torch.tensor([1])), "tensor z.shape has no indices"),
        ],
    )  # fmt: skip
    def test_tensors_that_cannot_be_right_are_named(
        self, change: Any, says: str, tmp_path: Path
    ) -> None:
        folder = saved(tmp_path / "m")

        def apply(state: dict[str, Tensor]) -> None:
            change(state)

        rewrite(folder, apply)
        refused(folder, says)

    def test_gates_are_checked_alike(self, tmp_path: Path) -> None:
        folder = saved(tmp_path / "m", gates=True)
        name = "local.1.neurons.weight"
        rewrite(folder, lambda s: {**s, name: s[name] * torch.nan}, name="gates.safetensors")
        refused(folder, f"gates.safetensors: {name} has an entry that is NaN")
        rewrite(
            folder, lambda s: {k: v for k, v in s.items() if k != name}, name="gates.safetensors"
        )
        refused(folder, f"gates.safetensors lacks the tensor {name}")

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_another_precision_is_converted_and_said(
        self, dtype: torch.dtype, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = saved(tmp_path / "m")
        rewrite(folder, lambda s: {**s, DENSE: s[DENSE].to(dtype)})
        model = ww.load(folder)
        assert model.transformer.get_parameter(DENSE).dtype == torch.float32
        kind = str(dtype).removeprefix("torch.")
        assert (
            f"model.safetensors: 1 tensor of {kind} converted to float32" in capsys.readouterr().err
        )

    @pytest.mark.parametrize(
        "change",
        [
            {"d_model": 10**12},
            {"n_layer": 10**9, "d_mlp": 10**6},
            {"d_head": 10**9},
            {"vocab_size": 2**63 - 1},
            {"n_ctx": 10**15, "positions": "added"},
            {"n_head": 2**62},
        ],
    )
    def test_a_config_far_too_large_is_refused_with_both_numbers(
        self, change: dict[str, Any], tmp_path: Path
    ) -> None:
        folder = saved(tmp_path / "m")
        rewrite(folder, config=change)
        refused(folder, r"a model of \S+ parameters needs \S+ GB of memory, \S+ GB are available")

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"d_head": 10**30}, "d_head: an integer below 2"),
            ({"vocab_size": 2**63}, "vocab_size: an integer below 2"),
            ({"d_model": 1e30}, "d_model: "),
            ({"n_layer": 20_000}, "tensors, too few for the config's 20000 layers"),
            ({"d_mlp": 65}, r"up.bias is \(64,\), the config says \(65,\)"),
        ],
    )
    def test_a_config_that_is_impossible_or_of_another_model_is_refused(
        self, change: dict[str, Any], says: str, tmp_path: Path
    ) -> None:
        folder = saved(tmp_path / "m")
        rewrite(folder, config=change)
        refused(folder, says)

    def test_a_tokeniser_larger_than_the_model_is_refused(
        self, tokenizer: Any, tmp_path: Path
    ) -> None:
        folder = saved(tmp_path / "m")
        tokenizer.save(folder / "tokenizer.json")
        refused(
            folder, "the tokeniser has 512 tokens, the model only 23: it belongs to another model"
        )

    def test_a_released_model_is_pointed_to_its_converter(self, tmp_path: Path) -> None:
        (tmp_path / "beeg_config.json").write_text("{}")
        refused(tmp_path, "is a released model: convert it with `wirework convert openai`")


def small(**change: Any) -> Model:
    return Model(Transformer(ModelConfig(**(SMALL | change)), seed=3), a_tokenizer())


def a_tokenizer() -> Tokenizer:
    """Of four characters: `a` is 0, `b` 1, the blank 2, `c` 3, end of text 4."""
    vocabulary = {"a": 0, "b": 1, "Ġ": 2, "c": 3, "<|endoftext|>": 4}
    inner = tokenizers.Tokenizer(BPE(vocabulary, []))
    inner.pre_tokenizer = ByteLevelCutter(add_prefix_space=False)
    inner.decoder = ByteLevelDecoder()
    return Tokenizer(inner)


class TestText:
    def test_becomes_tokens_and_comes_back(self):
        model = small()
        tokens = model.encode("ab ca")
        assert tokens.tolist() == [[0, 1, 2, 3, 0]]
        assert tokens.dtype == torch.int64
        for given in (tokens, tokens[0], tokens[0].tolist()):
            assert model.decode(given) == "ab ca"

    def test_runs_as_its_tokens_do(self):
        model = small()
        assert torch.equal(model("ab c"), model(torch.tensor([[0, 1, 2, 3]])))

    def test_several_sequences_are_no_text(self):
        with pytest.raises(InputError, match=r"one sequence of tokens, got shape \(2, 3\)"):
            small().decode(torch.zeros(2, 3, dtype=torch.int64))

    def test_that_is_empty_is_refused(self):
        with pytest.raises(InputError, match="the text is empty"):
            small()("")

    @pytest.mark.parametrize("use", ["encode", "__call__", "generate", "run_with_cache"])
    def test_needs_a_tokeniser(self, use: str):
        model = Model(Transformer(ModelConfig(**SMALL)))
        with pytest.raises(InputError, match="the model has no tokeniser: give it tokens"):
            getattr(model, use)("ab")


class TestGenerate:
    def test_takes_the_likeliest_token_at_temperature_0(self):
        model = small()
        longer = model.generate(TOKENS[:, :4], 3, temperature=0)
        by_hand = TOKENS[:, :4]
        for _ in range(3):
            by_hand = torch.cat([by_hand, model(by_hand)[:, -1:].argmax(-1)], 1)
        assert torch.equal(longer, by_hand)

    def test_is_a_pure_function_of_the_seed(self):
        model = small()
        first, again, other = (model.generate(TOKENS, 20, seed=seed) for seed in (1, 1, 2))
        assert first.shape == (1, 32)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_gives_a_text_for_a_text(self):
        model = small(vocab_size=5)
        longer = model.generate("ab", 6, seed=4)
        assert longer == model.decode(model.generate(model.encode("ab"), 6, seed=4))
        assert longer.startswith("ab")

    def test_refuses_a_negative_number(self):
        with pytest.raises(InputError, match="length -1"):
            small().generate(TOKENS, -1)


class TestRunWithCache:
    def test_holds_what_record_gives(self):
        model, names = small(), ["0.attn.act_in", "1.mlp.post_act"]
        logits, cache = model.run_with_cache(TOKENS, names)
        expected, values = model.transformer.record(TOKENS, names)
        assert torch.equal(logits, expected)
        assert list(cache) == names
        assert all(torch.equal(cache[name], values[name]) for name in names)

    def test_holds_every_site_unless_told_which(self):
        model = small()
        logits, cache = model.run_with_cache("ab c")
        assert list(cache) == list(model.transformer.sites)
        assert torch.equal(logits, model("ab c"))

    def test_refuses_a_name_that_is_no_site(self):
        with pytest.raises(InputError, match=r"no site '0\.mlp\.post'.*mean '0\.mlp\.post_act'"):
            small().run_with_cache(TOKENS, ["0.mlp.post"])

    def test_refuses_one_name_that_is_no_list(self):
        with pytest.raises(
            InputError, match=r"a list of names, got a string: give \['0.mlp.post_act'\]"
        ):
            small().run_with_cache(TOKENS, "0.mlp.post_act")


class TestHooks:
    def test_see_the_value_and_leave_it_with_none(self):
        model = small()
        seen: list[torch.Tensor] = []
        logits = model.run_with_hooks(TOKENS, {"0.mlp.post_act": seen.append})
        assert torch.equal(logits, model(TOKENS))
        _, cache = model.run_with_cache(TOKENS, ["0.mlp.post_act"])
        assert torch.equal(seen[0], cache["0.mlp.post_act"])

    def test_put_a_value_in_its_place(self):
        """The bias of the last sublayer aside, zeros at `resid_delta` take a block's MLP away."""
        model = small()
        logits = model.run_with_hooks(TOKENS, {"1.mlp.resid_delta": torch.zeros_like})
        _, cache = model.run_with_cache(TOKENS, ["1.resid_mid"])
        state = model.transformer.norm(cache["1.resid_mid"])
        torch.testing.assert_close(logits, model.transformer.logits_of(state, TOKENS))

    def test_on_one_site_run_in_order(self):
        model = small()
        twice = [("0.resid_in", lambda x: x + 1), ("0.resid_in", lambda x: x * 2)]
        once = {"0.resid_in": lambda x: (x + 1) * 2}
        assert torch.equal(model.run_with_hooks(TOKENS, twice), model.run_with_hooks(TOKENS, once))

    def test_are_gone_afterwards_and_nest(self):
        model = small()
        before = model(TOKENS)
        with model.edited({"0.resid_in": lambda x: x + 1}):
            inside = model.run_with_hooks(TOKENS, {"0.resid_in": lambda x: x * 2})
        assert torch.equal(
            inside, model.run_with_hooks(TOKENS, {"0.resid_in": lambda x: (x + 1) * 2})
        )
        assert torch.equal(model(TOKENS), before)

    def test_that_name_no_site_are_refused(self):
        with pytest.raises(InputError, match=r"no site .*hook_resid_pre"):
            small().run_with_hooks(TOKENS, [("blocks.0.hook_resid_pre", torch.zeros_like)])

    def test_that_never_run_are_an_error(self):
        model = small()
        with (
            pytest.raises(InputError, match=r"the hook on 0\.resid_in never ran"),
            model.edited({"0.resid_in": torch.zeros_like}),
        ):
            pass
        model.transformer.add_module("unused", Site(4))
        with pytest.raises(InputError, match="the hook on unused never ran"):
            model.run_with_hooks(TOKENS, {"0.resid_in": lambda x: x, "unused": lambda x: x})

    def test_an_error_inside_is_not_hidden_by_one_about_a_hook(self):
        model = small()
        with pytest.raises(ZeroDivisionError), model.edited({"0.resid_in": torch.zeros_like}):
            _ = 1 / 0

    @pytest.mark.parametrize(
        ("hook", "says"),
        [(lambda _: 3, "returned int"), (lambda x: x[:, :1], r"returned shape \(1, 1, 16\)")],
    )
    def test_that_return_something_else_are_refused(self, hook: Any, says: str):
        with pytest.raises(InputError, match=f"the hook on 0.resid_in.*{says}"):
            small().run_with_hooks(TOKENS, {"0.resid_in": hook})

    def test_may_be_an_ablation_of_ours(self):
        model = small()
        widths = {name: site.width for name, site in model.transformer.sites.items()}
        width = widths["1.mlp.resid_delta"]
        closed = mean_ablation(torch.zeros(width), torch.zeros(width))
        logits = model.run_with_hooks(TOKENS, {"1.mlp.resid_delta": closed})
        zeros = model.run_with_hooks(TOKENS, {"1.mlp.resid_delta": torch.zeros_like})
        torch.testing.assert_close(logits, zeros)


class TestTo:
    def test_moves_the_gates_too_and_returns_the_model(self, tmp_path: Path):
        model = ww.load(saved(tmp_path / "m", gates=True))
        assert model.to("meta") is model
        assert model.device.type == "meta"
        assert {part.device.type for part in present(model.gates).parameters()} == {"meta"}

    def test_refuses_a_device_that_is_not_there(self):
        with pytest.raises(InputError, match="cannot move the model to 'cuda:77'"):
            small().to("cuda:77")
        with pytest.raises(InputError, match="cannot move the model to 'nowhere'"):
            small().to("nowhere")
