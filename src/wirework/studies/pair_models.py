"""The matched pair of the frontier study: further seeds, and dense models of equal budget.

Two budgets: the tokens that the sparse model was trained on, and the multiply-adds of its training
(`multiply_adds.py`). The dense model has the sparse one's width and its own schedule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from wirework.config import FrontierConfig, ModelConfig
from wirework.errors import number_of
from wirework.studies.cell import Cell
from wirework.studies.compare import JsonRow, compare_all
from wirework.studies.multiply_adds import training_multiply_adds
from wirework.studies.points import FrontierPoint, settings_of


def budget_point(
    given: Literal["tokens", "compute"],
    sparse: FrontierPoint,
    study: FrontierConfig,
    out: Path,
    model: ModelConfig,
) -> FrontierPoint:
    """Return the dense model with the budget of a sparse one.

    Args:
        given: what both have.
        sparse: the sparse model.
        study: the settings of all models.
        out: the study's folder.
        model: the sparse transformer, for the size of its vocabulary.
    """
    dense = FrontierPoint(sparse.width, sparse.steps, sparse.seed)
    if given == "tokens":
        return dense
    budget = training_multiply_adds(settings_of(sparse, study, out), model)
    one_step = settings_of(replace(dense, steps=1), study, out)
    shape = one_step.model.model_copy(update={"vocab_size": model.vocab_size})
    return replace(dense, steps=max(1, round(budget / training_multiply_adds(one_step, shape))))


def budget_row(given: str, sparse: Cell, dense: Cell) -> dict[str, Any]:
    """Return the row of a budget in `results.json`."""
    row = {"given": given, **_both({"sparse": sparse, "dense": dense})}
    for kind, cell in (("sparse", sparse), ("dense", dense)):
        for name in ("tokens", "multiply_adds", "seconds"):
            row[f"{kind}_{name}"] = cell.get(name)
    return row


def seed_row(cells: Mapping[str, Cell]) -> dict[str, Any]:
    """Return the row of a seed in `results.json`.

    Args:
        cells: the `sparse` and the `dense` model.
    """
    return {"seed": cells["sparse"]["seed"], **_both(cells)}


def _both(cells: Mapping[str, Cell]) -> dict[str, Any]:
    names = {kind: cell["name"] for kind, cell in cells.items()}
    losses = {f"{kind}_loss": cell["val_loss"] for kind, cell in cells.items()}
    losses["bigram_loss"] = cells["sparse"].get("bigram_loss")
    return {**names, **losses, **compare_all(cells["sparse"]["tasks"], cells["dense"]["tasks"])}


def seeds_verdict(rows: Sequence[JsonRow]) -> str:
    """Return the end of the verdict: the range over seeds of the ratios; empty without seeds.

    Each ratio is that of the tasks which both models of its seed have a circuit for.
    """
    if len(rows) < 2:
        return ""
    losses = [row["sparse_loss"] - row["dense_loss"] for row in rows]
    words = (
        f"; over {number_of(len(rows), 'seed')} the held-out loss is {min(losses):+.3f} to "
        f"{max(losses):+.3f} nats from the dense one"
    )
    for name, sizes in (("", rows), (" at plain bisection", [row["paper"] for row in rows])):
        ratios = [(row["ratio"], len(row["tasks"])) for row in sizes if row["ratio"] is not None]
        if ratios:
            (low, n_low), (high, n_high) = min(ratios), max(ratios)
            words += (
                f", the ratio{name} {low:.1f} ({number_of(n_low, 'task')}) to {high:.1f} "
                f"({number_of(n_high, 'task')}) in {number_of(len(ratios), 'seed')}"
            )
    return words
