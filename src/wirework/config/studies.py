"""Whole experiments: the models that are trained, and what is done with each."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from wirework.config.base import Config, Count, Fraction
from wirework.config.circuits import PruneConfig
from wirework.config.measures import MeasureConfig
from wirework.config.training import GatingConfig, TrainConfig

_OF_A_MODEL = ("level", "k_attention", "k_neurons")
"""Gate settings in which the models of a self-ablation study differ."""


class FrontierConfig(Config):
    """Circuit size against capability: the models that are trained and pruned (Figs. 2, 3, 10, 33).

    Sparse models: every width with every L0 and every activation fraction. Dense ones: every
    dense width with every length of training, so that one comes close to each sparse one's loss.
    """

    basic: ClassVar = (
        "train.steps",
        "train.data.corpus",
        "prune.target_loss",
        "prune.trials",
        "tasks",
        "widths",
        "l0_counts",
        "dense_widths",
        "dense_steps",
    )

    train: TrainConfig = TrainConfig()
    """Settings of all models. The study sets name and folder of each run, its width, L0 and
    activation fraction, and the seed, steps and learning rate of dense models."""
    prune: PruneConfig = PruneConfig()
    """Search for each circuit; its target loss is that of Fig. 3."""
    tasks: tuple[str, ...] = ()
    """Behaviours, by name or JSONL file; none: all built-in ones."""
    widths: tuple[Count, ...] = ()
    """d_model of the sparse models."""
    l0_counts: tuple[Count, ...] = ()
    """Nonzero entries of all matrices and biases together, the same at every width."""
    act_fractions: tuple[Fraction, ...] = (0.25,)
    """Shares of channels that AbsTopK keeps; 1 keeps all."""
    dense_widths: tuple[Count, ...] = ()
    """d_model of the dense models."""
    dense_steps: tuple[Count, ...] = ()
    """Training steps of the dense models, each with its own schedule; none: those of the sparse
    ones."""
    dense_lr: Annotated[float, Field(gt=0)] = 0.25
    """Learning rate of dense models / that of sparse ones, which is too high for dense weights."""
    lrs: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Learning rates that short runs of each model try; the one of the lowest held-out loss trains
    it. For dense models they are multiplied by `dense_lr`. None: `train.optimizer.lr` for all."""
    lr_share: Fraction = 0.1
    """Steps of these short runs, as a share of the model's steps."""
    pair_seeds: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Further seeds of both models of the matched pair, for the spread over seeds."""
    budgets: tuple[Literal["tokens", "compute"], ...] = ()
    """Dense models to train at the width of the matched sparse one: on as many `tokens`, or with as
    many multiply-adds (`compute`)."""
    twin_seed: Annotated[int, Field(ge=0)] = 1
    """Seed of the second run of the matched dense model (Fig. 33)."""
    target_losses: tuple[Annotated[float, Field(gt=0)], ...] = (0.5, 0.3, 0.15, 0.05, 0.02, 0.005)
    """Target losses in nats at which the matched pair is pruned (Fig. 2); the paper: 0.5 to
    0.002."""
    match_within: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Largest difference of two held-out losses that count as equal, as a share of the dense
    one."""

    def recorded(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """Return the settings as JSON values for a record on disk, under their old names.

        Settings that earlier versions do not know are left out where they are not used.

        Args:
            exclude: old names of settings to leave out.
        """
        unused = {name for name in ("lrs", "pair_seeds", "budgets") if not getattr(self, name)}
        if "lrs" in unused:
            unused.add("lr_share")
        return super().recorded({*exclude, *unused})

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in ("lrs", "pair_seeds", "budgets"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} must name each value once: {values}")
        if self.train.seed in self.pair_seeds:
            raise ValueError(
                f"pair_seeds has {self.train.seed}, the seed of the grid: leave it out"
            )
        return self


class SelfAblationConfig(Config):
    """The table of Ferrao et al. 2025: a plain model and gated ones, measured with all instruments.

    Every level with every k, the same k for attention units and neurons, and the plain model, each
    trained with every seed.
    """

    basic: ClassVar = (
        "train.steps",
        "train.data.corpus",
        "train.model.d_model",
        "measure.instruments",
        "measure.task",
        "levels",
        "ks",
        "seeds",
    )

    train: TrainConfig = TrainConfig()
    """Settings of all models; the study sets name, folder, seed, level and k. Coefficients and
    temperatures come from its `gating`, if it has one."""
    measure: MeasureConfig = MeasureConfig()
    """The instruments; they use the seed of each model."""
    levels: tuple[Literal["local", "global", "both"], ...] = ("local", "global")
    """Levels of the gates: what their scores are computed from."""
    ks: tuple[Count, ...] = (1, 2, 4, 8)
    """Units that stay on, per token and layer."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1, 2)
    """Seeds; every model is trained once with each."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for name in ("levels", "ks", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must name at least one value and each once: {values}")
        for name in _OF_A_MODEL:
            default = GatingConfig.model_fields[name].default
            if self.train.gating is not None and getattr(self.train.gating, name) != default:
                raise ValueError(f"train.gating.{name} is each model's own: give levels and ks")
        return self


class AblationsConfig(Config):
    """One training choice changed at a time (Gao et al. 2025, App. A, Figs. 13 to 30).

    The base model and one model for each choice, all trained with every seed on the same tokens:
    held-out loss, and circuit size at one target loss.
    """

    basic: ClassVar = (
        "train.steps",
        "train.data.corpus",
        "prune.target_loss",
        "prune.trials",
        "tasks",
        "only",
        "seeds",
    )

    train: TrainConfig = TrainConfig()
    """Settings of the base model; the study sets name, folder and seed of each run."""
    prune: PruneConfig = PruneConfig()
    """Search for each circuit."""
    tasks: tuple[str, ...] = ()
    """Behaviours, by name or JSONL file; none: all built-in ones."""
    only: tuple[str, ...] = ()
    """Names of the choices to try; none: all. The base model is always trained."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0, 1)
    """Seeds; every model is trained once with each."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(self.seeds) < 2 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be two or more, each once, got {self.seeds}")
        if self.train.weight_sparsity is None:
            raise ValueError("train.weight_sparsity is none: the base model is weight-sparse")
        return self
