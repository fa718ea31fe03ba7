"""The picture of a run's losses."""

from pathlib import Path

import pytest

import wirework as ww
from wirework.errors import InputError
from wirework.training import Run

GOLDEN = Path(__file__).parents[1] / "golden"


def test_a_run_s_losses_are_drawn_against_its_steps():
    run = Run(GOLDEN / "runs" / "training", ww.load(GOLDEN / "model"), {})
    figure = run.plot()
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    train = [line for line in run.history() if line["kind"] == "train"]
    assert list(lines["training"].get_xdata()) == [line["step"] for line in train]
    assert list(lines["training"].get_ydata()) == [line["loss"] for line in train]
    assert list(lines["held-out text"].get_ydata())[-1] == run.history()[-1]["val_loss"]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_a_run_without_its_log_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"metrics\.jsonl"):
        Run(tmp_path, ww.load(GOLDEN / "model"), {}).plot()
