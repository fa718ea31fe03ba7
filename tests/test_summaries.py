"""What values of ours look like at a prompt and in a notebook: short, and safe to show."""

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import wirework as ww
from wirework import circuits
from wirework.circuits.circuit import tokenize_task
from wirework.circuits.scoring.scores import Scores
from wirework.circuits.validation.validation_report import ValidationReport
from wirework.measures import Explanations, Headline, Language, MeasureReport
from wirework.summaries import NotMeasured, Report, absent, html_table
from wirework.tasks import Pair, Task
from wirework.training import Run

GOLDEN = Path(__file__).parent / "golden"


@cache
def validation() -> ValidationReport:
    return ww.validate(GOLDEN / "circuit", GOLDEN / "model", short=True, progress=False)


def measured() -> MeasureReport:
    stored = json.loads((GOLDEN / "measures" / "measures.json").read_text())["runs/run"]
    return MeasureReport(
        Headline(**stored["headline"]),
        language=Language(**stored["language"]),
        sae=NotMeasured("sae-lens is not installed"),
    )


def path_scores() -> Any:
    return circuits.edge_attribution(GOLDEN / "model", GOLDEN / "quotes.jsonl", pairs=4)


VALUES: dict[str, Callable[[], Any]] = {
    "Model": lambda: ww.load(GOLDEN / "model"),
    "NodeCircuit": lambda: ww.Circuit.load(GOLDEN / "circuit"),
    "PathCircuit": lambda: ww.Circuit.load(GOLDEN / "paths"),
    "Task": lambda: ww.task("single_double_quote"),
    "Task of long prompts": lambda: Task("t", (Pair(("a" * 9999, "b" * 9999), ("c", "d")),)),
    "Task of no pairs": lambda: Task("t", ()),
    "TokenizedPairs": lambda: tokenize_task(
        ww.task(GOLDEN / "quotes.jsonl"), ww.load(GOLDEN / "model")
    ),
    "Scores": lambda: Scores("random", "t", {"0.resid_in": torch.rand(9999)}),
    "PathScores": path_scores,
    "ValidationReport": validation,
    "MeasureReport": measured,
    "Explanations": lambda: Explanations((), ({"neuron": "n", "reason": "r"},) * 9999),
    "Run": lambda: Run(GOLDEN / "runs" / "training", ww.load(GOLDEN / "model"), {"step": 1}),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_shown_in_one_to_five_lines(name: str):
    lines = repr(VALUES[name]()).splitlines()
    assert lines[0].startswith(name.split()[0])
    assert len(lines) <= 5
    assert max(map(len, lines)) <= 260


def test_a_circuit_says_its_task_size_and_losses():
    assert repr(ww.Circuit.load(GOLDEN / "circuit")).startswith(
        "NodeCircuit('single_double_quote': 5 nodes, edges not recorded, 3 kept edges, "
        "10 io edges,\n"
        "            task loss 0.0001659 nats (target 0.15, reached)"
    )


def test_a_model_says_its_shape_and_how_many_weights_are_nonzero():
    text = repr(ww.load(GOLDEN / "model"))
    assert "2 layers, d_model 8, 2 heads of 4, d_mlp 6" in text
    assert f"8988 weights, {1672 / 8988:.2%} nonzero, on cpu" in text  # as circuit.json counts


class TestHtml:
    @pytest.mark.parametrize(
        "name", ["Model", "NodeCircuit", "PathCircuit", "ValidationReport", "MeasureReport"]
    )
    def test_is_a_table(self, name: str):
        page = VALUES[name]()._repr_html_()
        assert page.startswith("<table>")
        assert len(page) < 5000

    def test_escapes_what_a_stranger_wrote(self):
        page = html_table("<b>", {"<i>": "<script>alert('&')</script>"})
        assert "<b>" not in page
        assert "<i>" not in page
        assert "<script>" not in page


@dataclass(frozen=True)
class Size:
    """A dataclass that is no report, as checks return it."""

    n_nodes: int


@dataclass(frozen=True, repr=False)
class Losses(Report):
    circuit: float
    calibrated: float | None = absent()
    other: float | None = None


@dataclass(frozen=True, repr=False)
class Whole(Report):
    task: str
    held_out: Losses
    resampled: Losses | NotMeasured
    sizes: tuple[Size, ...]
    by_name: dict[str, list[Losses]]
    control: Losses | None = absent("a control")


WHOLE = Whole(
    task="quotes",
    held_out=Losses(0.25, calibrated=0.125),
    resampled=NotMeasured("no text"),
    sizes=(Size(3),),
    by_name={"mean": [Losses(0.5)]},
)
PLAIN = {
    "task": "quotes",
    "held_out": {"circuit": 0.25, "calibrated": 0.125, "other": None},
    "resampled": {"reason": "no text"},
    "sizes": ({"n_nodes": 3},),
    "by_name": {"mean": [{"circuit": 0.5, "other": None}]},
}


class TestReport:
    def test_to_dict_has_entries_in_the_order_of_the_fields(self):
        assert WHOLE.to_dict() == PLAIN
        assert json.dumps(WHOLE.to_dict()) == json.dumps(PLAIN)

    def test_an_absent_entry_has_its_own_key_in_json(self):
        report = replace(WHOLE, control=Losses(0.75))
        assert report.to_dict()["a control"] == {"circuit": 0.75, "other": None}

    def test_to_dict_is_a_copy(self):
        WHOLE.to_dict()["by_name"]["mean"].clear()
        assert WHOLE.by_name["mean"] == [Losses(0.5)]

    def test_is_read_by_key_as_the_dict_that_it_was(self):
        assert WHOLE["held_out"]["circuit"] == 0.25
        assert "control" not in WHOLE
        assert list(WHOLE.keys()) == list(PLAIN)
        assert WHOLE.get("control") is None
        assert dict(WHOLE) == PLAIN
        with pytest.raises(KeyError):
            WHOLE["control"]

    def test_is_frozen(self):
        with pytest.raises(FrozenInstanceError):
            WHOLE.task = "other"  # type: ignore[misc]
        with pytest.raises(TypeError):
            WHOLE["task"] = "other"  # type: ignore[index]

    def test_is_shown_by_its_summary(self):
        assert WHOLE.summary() == {"task": "quotes"}
        assert repr(WHOLE) == (
            "Whole(task quotes,\n      keys: task, held_out, resampled, sizes, by_name)"
        )
        assert "<th" in WHOLE._repr_html_()

    def test_of_no_number_is_shown_by_its_keys(self):
        @dataclass(frozen=True, repr=False)
        class Lists(Report):
            losses: tuple[float, ...]

        assert repr(Lists((0.5,) * 1000)) == "Lists(keys: losses)"


class TestValidationReport:
    def test_has_the_keys_of_then_in_their_order(self):
        then = json.loads((GOLDEN / "printed" / "validation.json").read_text())
        then["resampled"] = {"reason": "no text"}
        now = validation().to_dict()
        assert list(now["verdict"])[:2] == list(then["verdict"]) == ["faithful", "reasons"]
        del then["verdict"]["reasons"]  # one for each criterion, of which there are more now
        assert keys(now, then) == keys(then, then)

    def test_is_read_by_field_and_by_key(self):
        report = validation()
        assert report.held_out.circuit == report["held_out"]["circuit"] > 0
        assert report["verdict"]["faithful"] is report.faithful is None
        assert "binarised" not in report
        assert json.dumps(dict(report)) == json.dumps(report.to_dict())

    def test_its_entries_are_shown_too(self):
        report = validation()
        assert repr(report.interchange).startswith("Interchange(circuit 0.000")
        assert repr(report.resampled).startswith("NotMeasured(reason no training text")

    def test_summary_begins_with_the_verdict(self):
        report = validation()
        about = report.summary()
        assert about["verdict"] == "open"
        assert about["because"] == report.reasons[0]
        assert about["circuit"] == report.held_out.circuit


def keys(values: object, known: object) -> object:
    """Return the keys of nested dicts that `known` has too, in order."""
    if isinstance(values, dict) and isinstance(known, dict):
        return [(key, keys(value, known[key])) for key, value in values.items() if key in known]
    if isinstance(values, list | tuple) and isinstance(known, list | tuple) and known:
        return [keys(value, known[0]) for value in values]
    return None


class TestMeasureReport:
    def test_to_dict_is_a_copy(self):
        report = measured()
        report.to_dict()["headline"].clear()
        assert report["headline"]["perplexity"] > 0

    def test_summary_says_why_an_instrument_has_no_number(self):
        report = measured()
        about = report.summary()
        assert about["perplexity"] == report.headline.perplexity
        without = {name for name, part in report.to_dict().items() if "reason" in part}
        assert {name for name in about if name.startswith("no ")} == {f"no {n}" for n in without}
