"""Hugging Face models in and out, against transformers' own forward pass."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from present import present

import wirework as ww
from wirework.config import ModelConfig, TrainConfig, read_yaml
from wirework.errors import InputError
from wirework.interop import load_huggingface, save_huggingface
from wirework.interop.gpt_neo import refuse_other_kinds
from wirework.model import Model
from wirework.nn import Transformer

transformers = pytest.importorskip("transformers")

RECIPES = Path(__file__).parents[2] / "recipes"
NEO: dict[str, Any] = {
    "vocab_size": 60, "max_position_embeddings": 24, "hidden_size": 32, "num_layers": 2,
    "attention_types": [[["global", "local"], 1]], "num_heads": 4, "window_size": 5,
}  # fmt: skip
GPT2: dict[str, Any] = {
    "vocab_size": 60, "n_positions": 24, "n_embd": 32, "n_layer": 2, "n_head": 4,
}  # fmt: skip
VARIANTS = {
    "gpt-neo": ("GPTNeo", NEO),
    "gpt-neo, narrow, relu": (
        "GPTNeo", {**NEO, "intermediate_size": 20, "activation_function": "relu"}
    ),
    "gpt-neo, own unembedding": (
        "GPTNeo", {**NEO, "tie_word_embeddings": False, "layer_norm_epsilon": 1e-3}
    ),
    "gpt2": ("GPT2", GPT2),
    "gpt2, no scale, wide, gelu": (
        "GPT2", {**GPT2, "scale_attn_weights": False, "n_inner": 40, "activation_function": "gelu"}
    ),
}  # fmt: skip
OURS = ModelConfig(
    vocab_size=60, n_ctx=24, n_layer=3, d_model=32, d_head=8, activation="gelu_tanh", norm="layer",
    norm_eps=1e-5, positions="added", attention_scale="none", qkv_bias=False, tied_embedding=True,
    sinks=False, bigram=False, act_fraction=None,
)  # fmt: skip


def theirs(kind: str, settings: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**settings)
    model = getattr(transformers, "GPTNeoForCausalLM" if kind == "GPTNeo" else "GPT2LMHeadModel")
    made = model(config).eval()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    return made


class TestLoadHuggingface:
    @pytest.mark.parametrize("name", VARIANTS)
    def test_logits_are_theirs(self, name: str, tmp_path: Path) -> None:
        reference = theirs(*VARIANTS[name])
        tokens = torch.randint(60, (3, 24))
        with torch.no_grad():
            wanted = reference(tokens).logits
        torch.testing.assert_close(
            load_huggingface(reference)(tokens), wanted, rtol=1e-4, atol=1e-4
        )
        reference.save_pretrained(tmp_path / "m")
        model = load_huggingface(tmp_path / "m")
        torch.testing.assert_close(model(tokens), wanted, rtol=1e-4, atol=1e-4)
        again = ww.load(model.save(tmp_path / "ours"))
        assert torch.equal(again(tokens), model(tokens))

    def test_other_kinds_and_places_are_refused_in_a_line(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no Hugging Face model at"):
            load_huggingface(tmp_path)
        other = transformers.GPTJForCausalLM(
            transformers.GPTJConfig(vocab_size=20, n_embd=16, n_layer=1, n_head=2, rotary_dim=4)
        )
        with pytest.raises(InputError, match="is a gptj: only gpt2 and gpt_neo"):
            load_huggingface(other)
        for settings, says in (
            ({"scale_attn_by_inverse_layer_idx": True}, "scales attention by layer"),
            ({"activation_function": "silu"}, "activation 'silu'"),
        ):
            with pytest.raises(InputError, match=says):
                load_huggingface(theirs("GPT2", {**GPT2, **settings}))

    def test_path_edges_of_their_models_are_found(self, tokenizer: Any) -> None:
        settings = {**GPT2, "vocab_size": tokenizer.vocab_size, "n_positions": 80}
        model = Model(load_huggingface(theirs("GPT2", settings)).transformer, tokenizer)
        task = ww.task("single_double_quote")
        circuit = ww.acdc(model, task, tau=1e-9, pairs=2, progress=False)
        assert 0 < circuit.n_path_edges < circuit.patching.n_all


class TestSaveHuggingface:
    @pytest.mark.parametrize("windows", [None, (None, 7, None), (7, 7, 7)])
    @pytest.mark.parametrize("eps", [None, 1e-3])
    def test_a_model_of_ours_opens_as_a_gpt_neo_with_the_same_logits(
        self, windows: Any, eps: float | None, tokenizer: Any, tmp_path: Path
    ) -> None:
        values = {
            "vocab_size": tokenizer.vocab_size, "attention_windows": windows, "norm_eps": eps,
        }  # fmt: skip
        model = Model(Transformer(OURS.model_copy(update=values), seed=1), tokenizer)
        folder = save_huggingface(model, tmp_path / "neo")
        reference = transformers.AutoModelForCausalLM.from_pretrained(folder)
        assert reference.config.model_type == "gpt_neo"
        tokens = torch.randint(tokenizer.vocab_size, (2, 24))
        with torch.no_grad():
            found = reference(tokens).logits
        torch.testing.assert_close(found, model(tokens), rtol=1e-5, atol=1e-5)
        assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # none is private
        words = transformers.AutoTokenizer.from_pretrained(folder)
        assert words("def f(x):")["input_ids"] == tokenizer.encode("def f(x):")
        back = load_huggingface(folder)
        assert torch.equal(back(tokens), model(tokens))
        assert present(back.tokenizer).encode("a = 1") == tokenizer.encode("a = 1")

    def test_an_unusual_end_token_goes_there_and_back(self, tmp_path: Path) -> None:
        inner = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "a": 1, "[EOS]": 2},
                                                                 unk_token="[UNK]"))  # fmt: skip
        tokenizer = ww.Tokenizer(inner, eot=2)
        model = Model(Transformer(OURS), tokenizer)
        folder = save_huggingface(model, tmp_path / "neo")
        assert transformers.AutoTokenizer.from_pretrained(folder).eos_token_id == 2
        back = load_huggingface(folder).tokenizer
        assert back is not None
        assert back.eot == 2

    @pytest.mark.parametrize("on_tasks", [True, False, None])
    def test_what_a_model_was_trained_on_goes_there_and_back(
        self, on_tasks: bool | None, tmp_path: Path
    ) -> None:
        model = Model(Transformer(OURS), trained_on_tasks=on_tasks)
        folder = save_huggingface(model, tmp_path / "neo")
        assert load_huggingface(folder).trained_on_tasks is on_tasks
        reference = transformers.AutoModelForCausalLM.from_pretrained(folder)
        assert load_huggingface(reference).trained_on_tasks is on_tasks
        values = json.loads((folder / "config.json").read_text())
        values["wirework_trained_on_tasks"] = "no"
        (folder / "config.json").write_text(json.dumps(values))
        with pytest.raises(InputError, match="must be true or false, got 'no'"):
            load_huggingface(folder)

    @pytest.mark.parametrize(
        ("error", "says"),
        [
            (
                ModuleNotFoundError("no", name="transformers"),
                r"need transformers: pip install '\.\[hub\]'",
            ),
            (
                ImportError("libfoo.so"),
                "transformers is installed but cannot be imported: libfoo.so",
            ),
            (RuntimeError("Failed to import"), "cannot be imported: Failed to import"),
        ],
    )
    def test_a_package_that_cannot_be_imported_is_one_line(
        self, error: Exception, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(_: str) -> Any:
            raise error

        monkeypatch.setattr(importlib, "import_module", fails)
        with pytest.raises(InputError, match=says):
            save_huggingface(Model(Transformer(OURS)), tmp_path / "neo")

    def test_what_is_no_gpt_neo_is_refused_in_a_line(self, tmp_path: Path) -> None:
        for change, says in (
            ({"norm": "rms"}, "norm is 'rms', that of a GPT-Neo is 'layer'"),
            ({"attention_scale": "rsqrt"}, "attention_scale"),
            ({"act_fraction": 0.5}, "act_fraction"),
            ({"d_head": 4, "n_head": 4}, "d_head is 4, that of a GPT-Neo is 8"),
            ({"attention_windows": (2, 3, None)}, r"windows of \[2, 3\] tokens"),
        ):
            model = Model(Transformer(ModelConfig(**{**OURS.model_dump(), **change})))
            with pytest.raises(InputError, match=says):
                save_huggingface(model, tmp_path / "neo")
        assert not (tmp_path / "neo").exists()
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "mine.txt").write_text("mine")
        for place in (tmp_path / "full", tmp_path / "full" / "mine.txt"):
            with pytest.raises(InputError, match="not empty"):
                save_huggingface(Model(Transformer(OURS)), place)

    def test_a_folder_of_theirs_is_not_taken_for_ours(self, tmp_path: Path) -> None:
        theirs(*VARIANTS["gpt2"]).save_pretrained(tmp_path / "gpt2")
        for folder in (
            tmp_path / "gpt2",
            save_huggingface(Model(Transformer(OURS)), tmp_path / "neo"),
        ):
            with pytest.raises(
                InputError,
                match="is a model of transformers: convert it with `wirework convert huggingface`",
            ):
                ww.load(folder)


def test_moments_of_work_draw_no_bars(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    load_huggingface(save_huggingface(Model(Transformer(OURS)), tmp_path / "neo"))
    assert capfd.readouterr() == ("", "")
    assert transformers.utils.logging.is_progress_bar_enabled()


def test_the_recipes_of_self_ablation_train_gpt_neos() -> None:
    for name in ("stories", "self_ablation"):
        values = read_yaml(RECIPES / f"{name}.yaml")
        refuse_other_kinds(TrainConfig.of(values.get("train", values), name).model)
