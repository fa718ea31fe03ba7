"""Figures and their comparison, by numbers worked by hand."""

from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import machine, stored
from benchmarks.command import main
from benchmarks.comparison import Saved, changes, differences, read, save, verdict
from benchmarks.figure import Figure, not_available
from benchmarks.machine import bf16_instructions, this_machine
from benchmarks.step import D_HEAD, VOCAB
from benchmarks.sweep import n_weights, sparse_matrix
from benchmarks.timing import alternate, over
from wirework.config import ModelConfig
from wirework.errors import InputError
from wirework.nn import Transformer


class TestFigure:
    def test_has_median_lowest_and_highest(self):
        figure = Figure.of("step", [3.0, 1.0, 2.5])
        assert (figure.median, figure.low, figure.high) == (2.5, 1.0, 3.0)

    @pytest.mark.parametrize(
        ("better", "target", "met"),
        [
            ("lower", 2.5, True),
            ("lower", 2.4, False),
            ("higher", 2.5, True),
            ("higher", 2.6, False),
        ],
    )
    def test_meets_its_target_by_its_median(self, better, target, met):
        figure = Figure.of("step", [3.0, 1.0, 2.5], better=better, target=target)
        assert figure.is_met is met
        assert figure.line().endswith("met" if met else "MISSED")

    def test_without_a_number_says_why_and_names_its_target(self):
        figure = not_available("step", "no kernel", target=0.4)
        assert figure.is_met is None
        assert figure.line().endswith("not available: no kernel target at most 0.4")


class TestVerdict:
    before = Figure.of("step", [1.0, 1.1])

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([1.05, 1.3], "same"),  # the spreads meet
            (
                [1.15, 1.3],
                "same",
            ),  # each widened by 3% of its median, they meet
            ([1.2, 1.3], "slower"),
            ([0.8, 0.9], "faster"),
        ],
    )
    def test_lower_is_better(self, values, expected):
        assert verdict(Figure.of("step", values), self.before) == expected

    def test_higher_is_better(self):
        slow, fast = (Figure.of("step", [value], better="higher") for value in (1.0, 2.0))
        assert verdict(slow, fast) == "slower"
        assert verdict(fast, slow) == "faster"


class TestChanges:
    saved = Saved({}, "float32", {"a": Figure.of("a", [1.0]), "b": Figure.of("b", [1.0], unit="s")})
    now = (
        Figure.of("a", [2.0]), Figure.of("b", [2.0], unit="s"), Figure.of("new", [1.0]),
        not_available("a", "no kernel"),
    )  # fmt: skip

    def test_are_of_the_figures_of_both_runs(self):
        found = changes(self.now, self.saved, ratios_only=False)
        assert [(change.figure.name, change.verdict) for change in found] == [
            ("a", "slower"),
            ("b", "slower"),
        ]
        assert found[0].line().split() == ["slower", "a", "1.00", "->", "2.00", "ratio"]

    def test_are_ratios_alone_on_another_machine(self):
        assert [one.figure.name for one in changes(self.now, self.saved, ratios_only=True)] == ["a"]


class TestFile:
    def test_returns_what_was_saved(self, tmp_path: Path):
        figures = [Figure.of("a", [1.0, 2.0], target=3.0), not_available("b", "no kernel")]
        save(tmp_path / "now.json", this_machine(), "float32", figures)
        saved = read(tmp_path / "now.json")
        assert saved.figures == {"a": figures[0]}
        assert differences(this_machine(), saved) == []

    def test_names_the_facts_of_another_machine(self, tmp_path: Path):
        save(tmp_path / "now.json", this_machine(), "float32", [])
        saved = read(tmp_path / "now.json")
        saved.machine["threads"] = 64
        assert differences(this_machine(), saved) == [f"threads: 64 -> {this_machine().threads}"]

    @pytest.mark.parametrize(
        "text",
        [
            "{", "[]", "{}", '{"machine": {}, "precision": "float32", "figures": [{"nme": 1}]}',
            '{"machine": {}, "precision": "float32", "figures": [{"name": "a", "median": "1"}]}',
        ],
    )  # fmt: skip
    def test_that_is_another_is_refused(self, tmp_path: Path, text: str):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InputError, match="is not a file of figures: make one with"):
            read(tmp_path / "bad.json")

    def test_that_cannot_be_written_is_an_input_error(self, tmp_path: Path):
        with pytest.raises(InputError, match="cannot write"):
            save(tmp_path / "missing" / "now.json", this_machine(), "float32", [])


def test_bf16_instructions_are_whole_words(tmp_path: Path):
    facts = tmp_path / "cpuinfo"
    facts.write_text("flags : avx2 avx512_bf16x amx_bf16\n")
    assert bf16_instructions(facts) == ["amx_bf16"]
    assert bf16_instructions(tmp_path / "missing") == []


def test_over_divides_round_by_round():
    assert over([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


class TestSweep:
    def test_a_matrix_has_an_exact_share_of_nonzero_entries(self):
        weight = sparse_matrix(8, 25, 1 / 16, torch.Generator().manual_seed(0))
        assert weight.shape == (8, 25)
        assert int(weight.count_nonzero()) == 12  # 200 / 16, rounded to even

    def test_the_weights_of_a_step_are_those_of_its_model(self):
        config = ModelConfig(vocab_size=VOCAB, d_model=32, n_layer=1, n_ctx=8, d_head=D_HEAD)
        matrices = [p.parameter for p in Transformer(config).prunable() if p.parameter.dim() == 2]
        assert n_weights(32) == sum(matrix.numel() for matrix in matrices)


class TestStored:
    @pytest.fixture
    def before(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, Figure]:
        figures = {"a": Figure.of("a", [2.0], unit="s", note="model 1")}
        saved = Saved(this_machine().as_dict(), "float32", figures)
        monkeypatch.setattr(stored, "figures", lambda: saved)
        return figures

    @pytest.mark.usefixtures("before")
    def test_seconds_are_given_as_a_ratio_and_as_a_speed(self):
        now = Figure.of("a", [0.5, 1.0, 1.6], unit="s", note="model 1")
        (ratio,) = stored.now_over_stored([now], 1.05)
        assert (ratio.low, ratio.median, ratio.high, ratio.better) == (0.25, 0.5, 0.8, "lower")
        (speed,) = stored.times_as_fast([now], 4.0)
        assert (speed.low, speed.median, speed.high, speed.better) == (1.25, 2.0, 4.0, "higher")
        assert speed.is_met is False
        assert speed.note == ""

    @pytest.mark.usefixtures("before")
    def test_a_rate_is_a_speed_already(self):
        now = Figure.of("a", [8.0], unit="1/min", better="higher", note="model 2")
        (speed,) = stored.times_as_fast([now], 4.0)
        assert (speed.median, speed.is_met) == (4.0, True)
        assert speed.note == "stored for another model, model 1"

    def test_on_another_processor_there_is_no_ratio(self, monkeypatch: pytest.MonkeyPatch):
        machine = {**this_machine().as_dict(), "processor": "abacus"}
        saved = Saved(machine, "float32", {"a": Figure.of("a", [2.0], unit="s")})
        monkeypatch.setattr(stored, "figures", lambda: saved)
        (figure,) = stored.times_as_fast([Figure.of("a", [1.0], unit="s")], 4.0)
        assert figure.median is None
        assert "measured elsewhere (processor: abacus -> " in figure.note

    def test_the_file_is_one_of_figures(self):
        assert stored.figures().precision == "float32"


def test_alternate_calls_in_turn_and_does_not_count_the_warm_up():
    order: list[str] = []
    steps = {name: partial(order.append, name) for name in "ab"}
    seconds = alternate(
        steps, rounds=2, warm_up=1, before_round=lambda: order.append("|"), calls={"b": 2}
    )
    assert "".join(order) == "|abb|abb|abb"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_emulated_bfloat16_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(machine, "bf16_instructions", list)
    assert main(["--precision", "bfloat16"], "") == 2
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == (
        "error: this processor has no instructions for bfloat16: use --precision float32\n"
    )
