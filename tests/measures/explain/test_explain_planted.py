"""Neurons that are known: what the embedded explainer says of them, end to end."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from planted_neurons import (
    CONSTANT,
    DEAD,
    FIRST,
    NEVER_HERE,
    NOISE,
    PAIR_NEURON,
    SECOND,
    SITE,
    TOKEN,
    TOKEN_NEURON,
)

from wirework.config import ExplainConfig
from wirework.data import Prepared, Tokenizer
from wirework.errors import DamagedError, InputError, UnreadableError
from wirework.files import read_json, read_record, write_record
from wirework.measures import Explanations, explain_neurons
from wirework.measures.explain import explainers
from wirework.measures.explain.learn import learn_patterns
from wirework.model import Model
from wirework.view import write_neuron_page
from wirework.view.visible_text import quoted_label


def with_noise(model: Model, text: Prepared, config: ExplainConfig, **more) -> Explanations:
    """Explain while neuron NOISE does what no text can tell."""
    generator = torch.Generator().manual_seed(0)

    def noise(x):
        x[..., NOISE] = torch.rand(x.shape[:-1], generator=generator)
        return x

    with model.transformer.edited({SITE: noise}):
        return explain_neurons(model, config, text=text, progress=False, **more)


@pytest.fixture
def found(model: Model, text: Prepared, config: ExplainConfig) -> dict[int, dict]:
    result = with_noise(model, text, config)
    return {one["index"]: one for one in result.neurons} | {-1: result.summary()}


def test_a_token_and_a_pair_are_found_and_predicted(found, tokenizer: Tokenizer) -> None:
    token, pair = found[TOKEN_NEURON], found[PAIR_NEURON]
    first, second = (tokenizer.token(i) for i in (FIRST, SECOND))
    assert [one["ids"] for one in token["patterns"]] == [[TOKEN]]
    assert token["explanation"] == quoted_label(tokenizer.token(TOKEN))
    assert [one["ids"] for one in pair["patterns"]] == [[FIRST, SECOND]]
    assert pair["explanation"] == f"{quoted_label(second)} after {quoted_label(first)}"
    # Not quite 1: at the first place of an excerpt the token neuron does a little less.
    assert token["scores"]["correlation"]["top_and_random"] > 0.98
    assert pair["scores"]["correlation"]["top_and_random"] > 0.9999
    assert pair["scores"]["detection"] == {
        "balanced_accuracy": 1, "precision": 1, "recall": 1, "f1": 1, "auroc": 1,
    }  # fmt: skip


def test_noise_is_not_predicted(found) -> None:
    assert abs(found[NOISE]["scores"]["correlation"]["top_and_random"]) < 0.2


def test_dead_and_constant_neurons_are_counted_apart(found) -> None:
    assert found[DEAD] == {
        "format": "wirework-neuron", "version": 2, "site": SITE, "index": DEAD, "peak": 0.0,
        "mean": 0.0, "live_fraction": 0.0, "dead": True,
    }  # fmt: skip
    assert found[NEVER_HERE]["dead"]
    constant = found[CONSTANT]
    assert constant["explanation"] == "any token"
    assert constant["live_fraction"] == 1
    assert constant["scores"]["correlation"]["top_and_random"] is None
    summary = found[-1]
    counts = {name: summary[name] for name in ("neurons", "explained", "dead", "failed")}
    assert counts == {"neurons": 6, "explained": 4, "dead": 2, "failed": 0}
    assert summary["undefined"] == 1
    assert summary["scores"]["top_and_random"]["n"] == 3


def test_excerpts_of_a_file_are_what_the_neuron_saw(
    found, model: Model, text: Prepared, tokenizer: Tokenizer
) -> None:
    neuron = found[PAIR_NEURON]
    for part, split in (("top", text.train), ("held_out_top", text.val)):
        assert neuron[part]
        for excerpt in neuron[part]:
            ids = split.slice(excerpt["start"], 16).tolist()
            assert excerpt["tokens"] == [tokenizer.token(i) for i in ids]
            _, values = model.run_with_cache(torch.tensor([ids]), [SITE])
            expected = values[SITE][0, :, PAIR_NEURON].tolist()
            assert excerpt["activations"] == pytest.approx(expected, rel=1e-4)
    peaks = [max(one["activations"]) for one in neuron["top"]]
    assert peaks == sorted(peaks, reverse=True)
    starts = [one["start"] for one in neuron["held_out_top"] + neuron["held_out_random"]]
    assert len(starts) == len(set(starts)) == 10
    simulated = neuron["held_out_top"][0]["simulated"]
    assert max(simulated) == pytest.approx(10, rel=1e-4)


def test_files_are_the_result_and_a_second_call_reads_them(
    model: Model, text: Prepared, config: ExplainConfig, tmp_path: Path, monkeypatch
) -> None:
    out = tmp_path / "out"
    result = explain_neurons(model, config, text=text, out=out, progress=False)
    names = sorted(path.name for path in (out / "neurons").iterdir())
    assert names == [f"{SITE}.{i}.json" for i in range(6)]
    assert [read_record(out / "neurons" / name) for name in names] == list(result.neurons)
    summary = read_record(out / "explain.json")
    assert summary["scores"] == result.summary()["scores"]
    assert (summary["stopped"], summary["failures"]) == (None, [])
    (out / "neurons" / names[0]).unlink()
    learned: list[int] = []

    def counting(*args):
        learned.append(args[0].neuron.index)
        return learn_patterns(*args)

    monkeypatch.setattr(explainers, "learn_patterns", counting)
    again = explain_neurons(model, config, text=text, out=out, progress=False)
    assert learned == [0]
    assert json.dumps(again.neurons) == json.dumps(result.neurons)


def test_a_folder_of_something_else_is_refused(
    model: Model, text: Prepared, config: ExplainConfig, tmp_path: Path
) -> None:
    explain_neurons(model, config, text=text, out=tmp_path / "a", progress=False)
    other = config.model_copy(update={"explain_top": 11})
    with pytest.raises(InputError, match="made with other settings, explain_top: 10 -> 11: give"):
        explain_neurons(model, other, text=text, out=tmp_path / "a", progress=False)
    with torch.no_grad():
        model.transformer.embed.weight[0, 0] += 1
    with pytest.raises(InputError, match="made with another model"):
        explain_neurons(model, config, text=text, out=tmp_path / "a", progress=False)
    (tmp_path / "editor").mkdir()
    (tmp_path / "editor" / "settings.json").write_text("{}")
    with pytest.raises(InputError, match="damaged or not ours: give another folder"):
        explain_neurons(model, config, text=text, out=tmp_path / "editor", progress=False)
    assert [path.name for path in (tmp_path / "editor").iterdir()] == ["settings.json"]
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").touch()
    with pytest.raises(InputError, match=r"b holds files but no settings.json"):
        explain_neurons(model, config, text=text, out=tmp_path / "b", progress=False)
    path = tmp_path / "a" / "neurons" / f"{SITE}.0.json"
    with torch.no_grad():
        model.transformer.embed.weight[0, 0] -= 1
    whole = read_record(path)
    for content, says in (
        ([], "is damaged: it does not map names to values"),
        ({}, "is no neuron file"),
        ({**whole, "version": 10**4000}, "has version 1000.*this wirework reads 1 to 2"),
        ({**whole, "scores": None}, "is damaged: it lacks scores; delete it"),
        ({**whole, "scores": {**whole["scores"], "correlation": 7}}, "it lacks scores"),
        ({**whole, "dead": "no"}, "it lacks scores"),
    ):
        if isinstance(content, dict):
            write_record(path, content)
        else:
            path.write_text(json.dumps(content))
        with pytest.raises(InputError, match=says) as caught:
            explain_neurons(model, config, text=text, out=tmp_path / "a", progress=False)
        assert len(str(caught.value)) < 400


def test_a_neuron_that_was_altered_is_named_and_one_of_an_older_version_is_read(
    model: Model, text: Prepared, config: ExplainConfig, tmp_path: Path
) -> None:
    result = explain_neurons(model, config, text=text, out=tmp_path, progress=False)
    path = tmp_path / "neurons" / f"{SITE}.0.json"
    held = read_json(path)
    peak = held["peak"]
    content: object
    for content in ({**held, "peak": peak + 1}, []):
        path.write_text(json.dumps(content))
        with pytest.raises(DamagedError, match=rf"{SITE}\.0\.json is damaged: .*; delete it$"):
            explain_neurons(model, config, text=text, out=tmp_path, progress=False)
        with pytest.raises(DamagedError, match=rf"{SITE}\.0\.json is damaged: .*; delete it$"):
            write_neuron_page(tmp_path, tmp_path / "n.html")
    del held["sha256"]
    for left in (held, {name: value for name, value in held.items() if name != "checksum"}):
        path.write_text(json.dumps(left))
        with pytest.raises(DamagedError, match=rf"{SITE}\.0\.json is damaged: it has no checksum"):
            explain_neurons(model, config, text=text, out=tmp_path, progress=False)
        with pytest.raises(DamagedError, match=rf"{SITE}\.0\.json is damaged: it has no checksum"):
            write_neuron_page(tmp_path, tmp_path / "n.html")
    del held["checksum"]
    path.write_text(json.dumps(held | {"version": 1}))
    again = explain_neurons(model, config, text=text, out=tmp_path, progress=False)
    assert again.neurons == ({**result.neurons[0], "version": 1}, *result.neurons[1:])
    summary = tmp_path / "explain.json"
    summary.write_text(summary.read_text().replace('"explained": ', '"explained": 1'))
    with pytest.raises(DamagedError, match=r"explain\.json is damaged: .*; delete it$"):
        write_neuron_page(tmp_path, tmp_path / "n.html")


def test_a_folder_that_cannot_be_read_is_not_called_damaged(
    model: Model, text: Prepared, config: ExplainConfig, tmp_path: Path, unreadable
) -> None:
    explain_neurons(model, config, text=text, out=tmp_path, progress=False)
    for name in ("settings.json", f"neurons/{SITE}.0.json"):
        said = rf"^cannot read .*{name}: Input/output error$"
        with unreadable(tmp_path / name), pytest.raises(UnreadableError, match=said):
            explain_neurons(model, config, text=text, out=tmp_path, progress=False)


def test_what_a_killed_run_left_half_written_is_removed(
    model: Model, text: Prepared, config: ExplainConfig, tmp_path: Path
) -> None:
    explain_neurons(model, config, text=text, out=tmp_path, progress=False)
    left = [
        tmp_path / ".explain.json.12.partial",
        tmp_path / "neurons" / f".{SITE}.0.json.3.partial",
        tmp_path / "cache" / "0a" / ".0a12.json.4.partial",
    ]
    left[-1].parent.mkdir(parents=True)
    for path in left:
        path.touch()
    explain_neurons(model, config, text=text, out=tmp_path, progress=False)
    assert not any(path.exists() for path in left)


def test_excerpts_are_no_longer_than_the_context(
    model: Model, text: Prepared, config: ExplainConfig, tmp_path: Path
) -> None:
    config = config.model_copy(update={"excerpt_tokens": None})
    explain_neurons(model, config, text=text, out=tmp_path / "out", progress=False)
    held = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert held["settings"]["excerpt_tokens"] == model.config.n_ctx == 32


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"only": ("0.mlp.post_act.6",)}, "has neurons 0 .. 5, got 6"),
        ({"only": ("0.mlp.post_atc.0",)}, "no site '0.mlp.post_atc'.*did you mean"),
        ({"only": ("five",)}, "a neuron is named SITE.INDEX"),
        ({"only": (), "sites": ("7.mlp.post_act",)}, "no site '7.mlp.post_act'"),
        ({"excerpt_tokens": 33, "only": ()}, "33 is more than the model's context of 32"),
    ],
)
def test_what_the_model_does_not_have_is_one_line(
    model: Model, text: Prepared, config: ExplainConfig, change, says
) -> None:
    with pytest.raises(InputError, match=says):
        explain_neurons(model, config.model_copy(update=change), text=text, progress=False)


def test_held_out_text_that_was_seen_is_nothing_to_score_on(
    model: Model, text: Prepared, config: ExplainConfig
) -> None:
    same = dataclasses.replace(text, val=text.train)
    with pytest.raises(InputError, match=r"no excerpt of 16 tokens that .* lacks: nothing"):
        explain_neurons(model, config, text=same, progress=False)


def test_a_model_in_no_run_needs_text(model: Model, config: ExplainConfig) -> None:
    with pytest.raises(InputError, match="need it: give text"):
        explain_neurons(model, config, progress=False)
