"""Hugging Face folders as people have them: incomplete, wrapped, split, damaged, far too large."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import wirework as ww
from wirework.commands.convert import huggingface as convert
from wirework.errors import InputError
from wirework.interop import load_huggingface

transformers = pytest.importorskip("transformers")

GPT2: dict[str, Any] = {
    "vocab_size": 300, "n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 4,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
NEO: dict[str, Any] = {
    "vocab_size": 300, "max_position_embeddings": 24, "hidden_size": 32, "num_layers": 2,
    "attention_types": [[["global", "local"], 1]], "num_heads": 4, "window_size": 5,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip
TOKENS = torch.arange(24)[None]
UP = "transformer.h.1.mlp.c_fc.weight"
EMBED, HEAD = "transformer.wte.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Write a random model once per kind; `folder` copies it."""
    made: dict[str, Path] = {}

    def folder(kind: str) -> Path:
        if kind not in made:
            torch.manual_seed(0)
            untied = {"tie_word_embeddings": False} if kind == "untied" else {}
            model = (
                transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(**NEO))
                if kind == "neo"
                else transformers.GPT2LMHeadModel(transformers.GPT2Config(**GPT2, **untied))
            )
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, 0.0, 0.3)
            made[kind] = tmp_path_factory.mktemp(kind)
            model.save_pretrained(made[kind])
        return made[kind]

    return folder


@pytest.fixture
def folder(folders: Callable[[str], Path], tmp_path: Path) -> Callable[..., Path]:
    """Copy a folder with its tensors changed, or its config."""

    def copy(
        kind: str = "gpt2",
        tensors: Callable[[dict[str, Tensor]], Any] | None = None,
        config: dict[str, Any] | None = None,
    ) -> Path:
        out = tmp_path / "theirs"
        out.mkdir(exist_ok=True)
        for path in folders(kind).iterdir():
            (out / path.name).write_bytes(path.read_bytes())
        if tensors is not None:
            state = load_file(out / "model.safetensors")
            changed = tensors(state)
            save_file(state if changed is None else changed, out / "model.safetensors")
        if config is not None:
            values = json.loads((out / "config.json").read_text())
            (out / "config.json").write_text(json.dumps(values | config))
        return out

    return copy


def refused(source: Path, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_huggingface(source)
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)


def same(source: Path, wanted: Path) -> None:
    assert load_huggingface(source).fingerprint == load_huggingface(wanted).fingerprint


def without(*names: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {name: t for name, t in state.items() if name not in names}


def renamed(change: Callable[[str], str]) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {change(name): tensor for name, tensor in state.items()}


class TestTensorNames:
    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            ("gpt2", UP),
            ("gpt2", "transformer.h.0.ln_1.bias"),
            ("gpt2", "transformer.wpe.weight"),
            ("gpt2", EMBED),
            ("untied", HEAD),
            ("neo", "transformer.h.0.attn.attention.k_proj.weight"),
        ],
    )
    def test_a_missing_tensor_is_an_error_that_names_it(
        self, kind: str, name: str, folder: Any
    ) -> None:
        refused(folder(kind, without(name)), rf"model\.safetensors lacks the tensor {name}")

    def test_missing_tensors_are_counted(self, folder: Any) -> None:
        refused(
            folder(config={"n_layer": 3}),
            r"lacks the tensor transformer\.h\.2\.ln_1\.weight and 11 others \(transformer\.h\.2\.",
        )
        refused(
            folder(tensors=lambda state: {}), "has 0 tensors, too few for the config's 2 layers"
        )
        strangers = renamed(lambda name: f"encoder.{name}")
        refused(
            folder(tensors=strangers),
            r"and 27 others \(.* and 24 more\); it has encoder\.transformer\.h\.0.* and 25 more, "
            "which this config does not need",
        )

    def test_a_layer_beyond_the_config_is_an_error(self, folder: Any) -> None:
        refused(
            folder(config={"n_layer": 1}),
            r"has the tensor transformer\.h\.1\.\S+, which the config",
        )

    def test_a_tensor_without_use_is_named_in_a_warning(
        self, folder: Any, folders: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        more = {"transformer.h.0.extra": torch.zeros(3), "score.weight": torch.ones(2)}
        source = folder(tensors=lambda state: state | more)
        capsys.readouterr()
        same(source, folders("gpt2"))
        said = capsys.readouterr().err.splitlines()
        assert said == [
            f"warning: {source / 'model.safetensors'} has tensors that the model does not use, "
            "ignored: score.weight, transformer.h.0.extra"
        ]

    def test_masks_that_older_files_hold_are_ignored(
        self, folder: Any, folders: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        mask = {"transformer.h.0.attn.bias": torch.ones(1, 1, 24, 24, dtype=torch.bool)}
        source = folder(tensors=lambda state: state | mask)
        capsys.readouterr()
        same(source, folders("gpt2"))
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model."])
    def test_a_prefix_of_all_names_is_taken_off_and_said(
        self, prefix: str, folder: Any, folders: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = folder(tensors=renamed(lambda name: prefix + name))
        capsys.readouterr()
        same(source, folders("gpt2"))
        assert f"the prefix '{prefix}' was removed from the names" in capsys.readouterr().err

    def test_the_names_of_the_base_model_are_understood(self, folder: Any, folders: Any) -> None:
        same(
            folder(tensors=renamed(lambda name: name.removeprefix("transformer."))), folders("gpt2")
        )


class TestTensorValues:
    @pytest.mark.parametrize(
        ("change", "says"),
        [
            (lambda t: t.fill_(torch.nan), f"{UP} has an entry that is NaN or infinite"),
            (lambda t: t.index_fill_(0, torch.tensor([3]), -torch.inf), "NaN or infinite"),
            (lambda t: t.to(torch.int8), f"{UP} is int8; weights must be float32"),
            (lambda t: t.to(torch.complex64), f"{UP} is complex64"),
            (lambda t: t.to(torch.float8_e5m2), f"{UP} is float8_e5m2"),
            (lambda t: t[:, :-1].contiguous(), r"is \(127, 32\), the config says \(128, 32\)"),
            (lambda t: t.flatten(), r"is \(4096,\), the config says \(128, 32\)"),
        ],
    )
    def test_values_that_cannot_be_right_are_refused(
        self, change: Any, says: str, folder: Any
    ) -> None:
        refused(folder(tensors=lambda state: state | {UP: change(state[UP])}), says)

    def test_half_precision_is_converted_exactly_and_said(
        self, folder: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = folder(tensors=lambda state: {name: t.bfloat16() for name, t in state.items()})
        capsys.readouterr()
        loaded = load_huggingface(source)
        stored = load_file(source / "model.safetensors")[EMBED]
        assert torch.equal(loaded.transformer.embed.weight, stored.float())
        assert "28 tensors of bfloat16 converted to float32" in capsys.readouterr().err


class TestWeightFiles:
    @pytest.mark.parametrize("form", ["parts", "pickle", "pickled parts"])
    def test_weights_may_be_in_parts_or_pickled(self, form: str, folder: Any, folders: Any) -> None:
        source = folder()
        state = load_file(source / "model.safetensors")
        (source / "model.safetensors").unlink()
        names = sorted(state)
        if form == "pickle":
            torch.save(state, source / "pytorch_model.bin")
        else:
            end = ".safetensors" if form == "parts" else ".bin"
            whole = "model.safetensors" if form == "parts" else "pytorch_model.bin"
            places = {name: f"part-{i % 2}{end}" for i, name in enumerate(names)}
            for part in set(places.values()):
                held = {name: state[name] for name in names if places[name] == part}
                (save_file if form == "parts" else torch.save)(held, source / part)
            (source / f"{whole}.index.json").write_text(json.dumps({"weight_map": places}))
        same(source, folders("gpt2"))

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("{", "is not valid JSON"),
            ("[]", r"index\.json is damaged: it does not map tensors to files"),
            ('{"weight_map": {"a": 1}}', "does not map tensors to files"),
            (
                '{"weight_map": {"a": "../up.safetensors"}}',
                "'../up.safetensors' is not the name of",
            ),
            (
                '{"weight_map": {"a": "gone.safetensors"}}',
                r"cannot read .*gone\.safetensors: No such",
            ),
        ],
    )
    def test_an_index_that_is_wrong_is_refused(self, content: str, says: str, folder: Any) -> None:
        source = folder()
        (source / "model.safetensors").unlink()
        (source / "model.safetensors.index.json").write_text(content)
        refused(source, says)

    def test_no_weights_at_all_are_an_error(self, folder: Any) -> None:
        source = folder()
        (source / "model.safetensors").unlink()
        refused(source, r"no weights in .*: expected model\.safetensors or pytorch_model\.bin")

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "is damaged: it is empty"),
            (b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
            (b"<!doctype html><html></html>", "it is an HTML page"),
            (None, r"is damaged: it is cut off \([\d,]+ of [\d,]+ bytes"),
        ],
    )
    def test_damaged_weights_are_one_line(
        self, content: bytes | None, says: str, folder: Any
    ) -> None:
        source = folder()
        path = source / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-5000] if content is None else content)
        refused(source, rf"model\.safetensors {says}|{says}")


LARGE = [
    ("gpt2", {"n_embd": 10**12}),
    ("gpt2", {"n_layer": 10**12}),
    ("gpt2", {"vocab_size": 2**63 - 1}),
    ("gpt2", {"n_positions": 10**15}),
    ("gpt2", {"n_inner": 10**15}),
    ("neo", {"hidden_size": 10**12}),
    ("neo", {"num_layers": 10**12}),
    ("neo", {"num_layers": 10**12, "attention_types": [[["global", "local"], 10**12 // 2]]}),
]


class TestConfigFile:
    @pytest.mark.parametrize(("kind", "change"), LARGE)
    def test_a_config_far_too_large_is_refused_at_once(
        self, kind: str, change: dict[str, Any], folder: Any
    ) -> None:
        source = folder(kind, config=change)
        began = time.process_time()
        refused(
            source, r"config\.json: a model of \S+ parameters needs \S+ GB of memory, \S+ GB are"
        )
        assert time.process_time() - began < 5

    @pytest.mark.parametrize(
        ("kind", "change", "says"),
        [
            ("gpt2", {"vocab_size": 2**63}, "vocab_size: an integer below"),
            ("gpt2", {"n_embd": 10**30}, "n_embd: an integer below 2"),
            ("gpt2", {"n_head": 0}, "n_head: "),
            ("gpt2", {"n_head": 5}, "a width of 32 cannot be divided into 5 heads"),
            ("gpt2", {"n_layer": "two"}, "n_layer: .*'two'"),
            ("gpt2", {"n_layer": 20_000}, "tensors, too few for the config's 20000 layers"),
            ("gpt2", {"n_embd": 64}, r"is \(300, 32\), the config says \(300, 64\)"),
            ("gpt2", {"layer_norm_epsilon": "nan"}, "layer_norm_epsilon: "),
            (
                "neo",
                {"attention_types": [[["global"], 10**12]]},
                "describe 1000000000000 layers,",
            ),
            (
                "neo",
                {"attention_types": [[["global"], 1]]},
                "attention_types describe 1 layer, not 2",
            ),
            ("neo", {"attention_types": "x"}, "attention_types: "),
            ("gpt2", {"model_type": ["x" * 999]}, "only gpt2 and gpt_neo can be loaded"),
        ],
    )
    def test_a_config_that_is_impossible_is_refused(
        self, kind: str, change: dict[str, Any], says: str, folder: Any
    ) -> None:
        refused(folder(kind, config=change), says)

    def test_a_config_with_a_byte_order_mark_is_read(self, folder: Any, folders: Any) -> None:
        source = folder()
        path = source / "config.json"
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
        same(source, folders("gpt2"))

    def test_fields_have_the_names_that_transformers_also_takes(
        self, folder: Any, folders: Any
    ) -> None:
        source = folder()
        values = json.loads((source / "config.json").read_text())
        for old, new in (("n_embd", "hidden_size"), ("n_layer", "num_hidden_layers")):
            values[new] = values.pop(old)
        (source / "config.json").write_text(json.dumps(values))
        same(source, folders("gpt2"))


def test_code_in_the_folder_is_not_run(folder: Any, folders: Any, tmp_path: Path) -> None:
    source = folder(config={"auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}})
    (source / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    same(source, folders("gpt2"))
    assert not (tmp_path / "ran").exists()


def put_tokenizer(folder: Path, *specials: str, eos: str | None = None) -> None:
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    inner = tokenizers.Tokenizer(
        tokenizers.models.BPE({name: i for i, name in enumerate(sorted(alphabet))}, [])
    )
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.add_special_tokens([tokenizers.AddedToken(name, special=True) for name in specials])
    inner.save(str(folder / "tokenizer.json"))
    if eos is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))


def converted(source: Path, capsys: pytest.CaptureFixture[str]) -> tuple[ww.Model, list[str]]:
    out = source.parent / "ours"
    capsys.readouterr()
    convert(str(source), out)
    return ww.load(out), capsys.readouterr().err.splitlines()


class TestTokenizerFiles:
    @pytest.mark.parametrize("end", ["<|endoftext|>", "[EOS]", "</s>"])
    def test_a_tokeniser_keeps_its_own_end_token(
        self, end: str, folder: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = folder()
        put_tokenizer(source, "[PAD]", end, eos=end)
        model, said = converted(source, capsys)
        assert model.tokenizer is not None
        assert model.tokenizer.token(model.tokenizer.eot) == end
        assert model.tokenizer.decode(model.tokenizer.encode("a = 1")) == "a = 1"
        assert said == []

    def test_without_tokeniser_files_a_model_takes_no_text(
        self, folder: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = folder()
        model, said = converted(source, capsys)
        assert model.tokenizer is None
        assert said == [f"warning: {source} has no tokeniser: the model takes no text"]
        with pytest.raises(InputError, match="a task needs a model with a tokeniser, this one has"):
            ww.task("for_while", model)

    def test_without_an_end_token_a_model_takes_no_text(
        self, folder: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = folder(config={"eos_token_id": 50256})
        put_tokenizer(source, "[PAD]")
        (source / "generation_config.json").unlink()
        model, said = converted(source, capsys)
        assert model.tokenizer is None
        assert said == [
            f"warning: the tokeniser of {source} has no token that ends a text: "
            "the model takes no text"
        ]

    def test_a_tokeniser_of_a_kind_that_is_not_read_is_named(
        self, folder: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        source = folder()
        (source / "spiece.model").write_bytes(b"x")
        model, said = converted(source, capsys)
        assert model.tokenizer is None
        assert said == [
            f"warning: {source / 'spiece.model'} is a tokeniser that is not read: "
            "the model takes no text"
        ]

    @pytest.mark.parametrize(
        ("name", "content", "says"),
        [
            ("tokenizer.json", "{", r"tokenizer\.json is not valid JSON"),
            (
                "tokenizer.json",
                '{"version": "1.0", "model": {"type": "Nope"}}',
                "is not a tokeniser",
            ),
            ("tokenizer_config.json", "{", r"tokenizer_config\.json is not valid JSON"),
        ],
    )
    def test_a_broken_tokeniser_is_called_broken(
        self, name: str, content: str, says: str, folder: Any
    ) -> None:
        source = folder()
        put_tokenizer(source, "<|endoftext|>")
        (source / name).write_text(content)
        refused(source, says)

    def test_a_tokeniser_larger_than_the_model_is_refused(self, folder: Any) -> None:
        source = folder()
        put_tokenizer(source, "<|endoftext|>", *(f"<{i}>" for i in range(50)))
        refused(
            source, "the tokeniser has 307 tokens, the model only 300: it belongs to another model"
        )


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "model.safetensors"])
def test_a_folder_in_the_place_of_a_file_does_not_count_as_absent(name: str, folder: Any) -> None:
    out = folder()
    (out / name).unlink(missing_ok=True)
    (out / name).mkdir()
    with pytest.raises(InputError, match=f"cannot read .*{name}: Is a directory"):
        load_huggingface(out)


class TestHubFiles:
    def test_a_model_of_the_hub_is_read_from_its_files(
        self, folder: Any, folders: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source, asked = folder(), []

        def snapshot(name: str, **patterns: Any) -> str:
            asked.append((name, patterns["allow_patterns"][-1]))
            return str(source)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        assert (
            load_huggingface("some/model").fingerprint
            == load_huggingface(folders("gpt2")).fingerprint
        )
        assert asked == [("some/model", "model*.safetensors")]

    @pytest.mark.parametrize(
        "error",
        [OSError("404"), RuntimeError("x"), KeyError("x"), NotImplementedError(), EOFError()],
    )
    def test_what_the_hub_fails_with_is_one_line(
        self, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(*_: object, **__: object) -> str:
            raise error

        monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
        with pytest.raises(InputError, match="no Hugging Face model at some/model: no such folder"):
            load_huggingface("some/model")
        with pytest.raises(
            InputError, match="no Hugging Face model at /no/such: there is no such fol"
        ):
            load_huggingface("/no/such")
