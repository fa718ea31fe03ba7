"""The grid of the frontier study: its models, their names and training settings."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from wirework.config import FrontierConfig, ModelConfig, TrainConfig, WeightSparsityConfig
from wirework.config.data import VOCAB_SIZE
from wirework.errors import InputError
from wirework.nn import Transformer
from wirework.nn.shapes import check_memory
from wirework.renamed_names import old_attributes

CELLS = "cells"
"""Folder of the models, below the study's folder."""

_ELSEWHERE: dict[str, Any] = {"name": True, "runs": True, "track": True}
_ELSEWHERE["data"] = {"cache": True, "workers": True}


@old_attributes(twin="with_seed")
@dataclass(frozen=True)
class FrontierPoint:
    """A model of the grid; a dense one has neither `l0_count` nor `act_fraction`."""

    width: int
    steps: int
    seed: int
    l0_count: int | None = None
    act_fraction: float | None = None
    is_reseeded: bool = False
    """Whether a sparse model is a copy of one of the grid with another seed; its name says so."""

    @property
    def kind(self) -> str:
        """`sparse` or `dense`."""
        return "dense" if self.l0_count is None else "sparse"

    @property
    def name(self) -> str:
        """Name of its folder, unique within a study."""
        if self.l0_count is None:
            return f"dense-w{self.width}-s{self.steps}-seed{self.seed}"
        seed = f"-seed{self.seed}" if self.is_reseeded else ""
        return f"sparse-w{self.width}-l{self.l0_count}-a{self.act_fraction:g}{seed}"

    def with_seed(self, seed: int) -> "FrontierPoint":
        """Return the same model with another seed."""
        is_other = self.is_reseeded or seed != self.seed
        return replace(self, seed=seed, is_reseeded=self.l0_count is not None and is_other)


def grid(study: FrontierConfig) -> list[FrontierPoint]:
    """Return all points, sparse ones first, without duplicates.

    Raises:
        InputError: the grid is empty.
    """
    base = study.train
    sparse = [
        FrontierPoint(width, base.steps, base.seed, l0, act)
        for width, l0, act in product(study.widths, study.l0_counts, study.act_fractions)
    ]
    lengths = study.dense_steps or (base.steps,)
    dense = [FrontierPoint(*pair, base.seed) for pair in product(study.dense_widths, lengths)]
    if not sparse and not dense:
        raise InputError(
            "the grid is empty: give widths, l0_counts and act_fractions, or dense_widths"
        )
    return list(dict.fromkeys([*sparse, *dense]))


def settings_of(
    point: FrontierPoint, study: FrontierConfig, out: str | Path, lr: float | None = None
) -> TrainConfig:
    """Return the training settings of a point, whose run lies in `cells/NAME/run` below `out`.

    Args:
        point: the model.
        study: the settings of all models.
        out: the study's folder.
        lr: learning rate of a sparse model, before the factor of dense ones (`dense_lr`); None for
            that of the study.

    Raises:
        InputError: no model can have these settings (more nonzeros than weights, a width that the
            heads do not divide).
    """
    out = Path(out)
    # Without settings that are derived from the width or left at their default.
    values = study.train.model_dump(mode="json", exclude_unset=True)
    values |= {"name": "run", "runs": str(out / CELLS / point.name)}
    values |= {"steps": point.steps, "seed": point.seed}
    values["data"] = {**values.get("data", {}), "cache": str(out / "data")}
    shape = {"d_model": point.width, "act_fraction": point.act_fraction}
    values["model"] = {**values.get("model", {}), **shape}
    if point.l0_count is None:
        values["weight_sparsity"] = None
        lr = study.dense_lr * (study.train.optimizer.lr if lr is None else lr)
    else:
        sparsity = study.train.weight_sparsity or WeightSparsityConfig()
        model = {**values["model"], "vocab_size": expected_vocabulary(study)}
        share = l0_share(point.l0_count, ModelConfig.of(model, f"{point.name}: model"))
        values["weight_sparsity"] = {**sparsity.model_dump(), "l0_fraction": share}
    if lr is not None:
        values["optimizer"] = {**values.get("optimizer", {}), "lr": lr}
    return TrainConfig.of(values, point.name)


def expected_vocabulary(study: FrontierConfig) -> int:
    """Return the vocabulary for which L0 becomes a share of the weights: the one that is set.

    Without one, as with `auto` or a given tokeniser, it is the size that `auto` aims at.
    """
    return study.train.model.vocab_size or VOCAB_SIZE


def check_vocabulary(points: Iterable[FrontierPoint], study: FrontierConfig, size: int) -> None:
    """Check that the tokeniser of the text has the vocabulary for which L0 was computed.

    Raises:
        InputError: it has another size, with which a sparse model would have another L0.
    """
    expected = expected_vocabulary(study)
    if size != expected and any(point.l0_count is not None for point in points):
        raise InputError(
            f"the tokeniser has {size:,} tokens, l0_counts were computed for {expected:,}: set "
            f"train.model.vocab_size to {size}"
        )


def l0_share(count: int, config: ModelConfig) -> float:
    """Return `count` as a share of a model's matrix and bias entries.

    Raises:
        InputError: the model has fewer entries.
    """
    check_memory(config, None, f"width {config.d_model}")
    with torch.device("meta"):
        size = sum(entry.parameter.numel() for entry in Transformer(config).prunable())
    if count > size:
        raise InputError(
            f"{count} nonzero weights were asked for, a model of width {config.d_model} has {size}"
        )
    return count / size


def portable(config: TrainConfig) -> dict[str, Any]:
    """Return the training settings without paths and tracking.

    A vocabulary size of `auto` is given as the number it aims at: older files hold that number.
    Priors and seeds that older files do not know are left out where they are not used.
    """
    values = config.model_dump(mode="json", exclude=_ELSEWHERE)
    for name in ("hard_concrete", "revival"):
        if values[name] is None:
            del values[name]
    if "programs" not in (config.data.corpus, config.data.mix):
        del values["data"]["programs_seed"]
    if values["data"]["vocab_size"] == "auto" and values["data"]["tokenizer"] is None:
        values["data"]["vocab_size"] = values["model"]["vocab_size"] = VOCAB_SIZE
    return values
