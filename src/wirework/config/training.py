"""One training run: the optimizer, and the priors that make a model readable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from wirework.config.base import Config, Count, Fraction
from wirework.config.bridges import BridgeConfig
from wirework.config.data import DataConfig
from wirework.config.model import ModelConfig
from wirework.errors import InputError


class WeightSparsityConfig(Config):
    """How many weights stay nonzero, and when (sec. 2.1, App. A.2)."""

    basic: ClassVar = ("l0_fraction",)

    l0_fraction: Fraction = 1 / 64
    """Nonzero share of each weight matrix and bias; `--weight-sparsity none` trains dense weights.
    Default is ours; the paper goes to 1/1000."""
    floor: Annotated[int, Field(ge=0)] = 4
    """Least nonzero weights of each neuron and attention channel; 0 turns it off (App. A.2,
    `j`)."""
    start_fraction: Fraction = 1.0
    """Nonzero share of each matrix and bias before the first step, from which it falls to
    `l0_fraction`. The paper begins with all weights; a run that does not needs less memory."""
    anneal_start: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of the steps before the fraction begins to fall (1% in the authors' code)."""
    anneal_end: Fraction = 0.5
    """Share of the steps at which the fraction reaches its target (App. A.2)."""
    sharkfin: bool = True
    """Multiply the learning rate by 1/sqrt(nonzero fraction); annealing needs it (App. A.2)."""
    gradient: Literal["exact", "live"] = "exact"
    """`exact`: gradients and moments of all weights, as in the paper; `live`: only of nonzero
    weights and candidates, so that a step costs as much as there are nonzero weights. CPU only."""
    live_below: Fraction = 1 / 8
    """With `gradient: live`, nonzero fraction from which only live weights are trained."""
    dense_every: Count = 64
    """With `gradient: live`, steps from one dense gradient of a matrix to the next; it chooses the
    candidates, the zero weights that may come alive."""
    candidates: Annotated[float, Field(gt=0)] = 4.0
    """With `gradient: live`, candidates for each nonzero weight of a matrix."""
    candidate_rule: Literal["first_moment", "gradient"] = "first_moment"
    """With `gradient: live`, which zero weights become candidates: those with the largest first
    Adam moment, or those with the largest gradient at that step, as in RigL (Evci et al. 2020)."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.start_fraction < self.l0_fraction:
            raise ValueError(
                f"start_fraction {self.start_fraction:g} must not be below l0_fraction "
                f"{self.l0_fraction:g}"
            )
        if self.anneal_end <= self.anneal_start:
            raise ValueError(
                f"anneal_end {self.anneal_end} must come after anneal_start {self.anneal_start}"
            )
        return self


class GatingConfig(Config):
    """Gates that choose the active units per token while a model trains (Ferrao et al. 2025)."""

    basic: ClassVar = ("level", "k_attention", "k_neurons")

    level: Literal["local", "global", "both"] = "local"
    """Input of the gates: each block's clean input, the final state of a clean pass, or
    `both`: their sum; no such model has been published."""
    k_attention: Count = 8
    """Channels of the concatenated head outputs that stay on, per token and layer."""
    k_neurons: Count = 8
    """Neurons that stay on, per token and layer."""
    temperature_attention: Annotated[float, Field(gt=0)] = 0.1
    """Temperature of the soft mask that gives the hard mask its gradient; lower is steeper."""
    temperature_neurons: Annotated[float, Field(gt=0)] = 0.1
    """The same for the mask of neurons."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-12
    """Added to the width of the soft mask's slope, so that it is never 0."""
    mask: Literal["hard", "soft"] = "hard"
    """`soft` leaks the next token through the mask: only to reproduce early models."""
    base_coef: Annotated[float, Field(ge=0)] = 1.0
    """Coefficient of the clean stream's next-token loss."""
    ablated_coef: Annotated[float, Field(ge=0)] = 1.0
    """Coefficient of the ablated stream's loss; the paper's text sums the two, its code has 0.1."""
    reconstruction_coef: Annotated[float, Field(ge=0)] = 0.1
    """Coefficient of the mean squared difference between the streams, each token normalised; 0: it
    is not computed."""

    @model_validator(mode="after")
    def _teaches(self) -> Self:
        if self.base_coef == self.ablated_coef == 0:
            raise ValueError(
                "base_coef and ablated_coef are 0: nothing would be learned of the text"
            )
        return self

    def check_fits(self, model: ModelConfig) -> None:
        """Make sure that there are more units than winners.

        Raises:
            InputError: there are not.
        """
        units = {"k_attention": model.n_head * model.d_head, "k_neurons": model.d_mlp}
        for name, width in units.items():
            k = getattr(self, name)
            if k >= width:
                raise InputError(f"{name} must be below the model's {width} units, got {k}")


class HardConcreteConfig(Config):
    """Smooth L0: a random gate on each weight, and a penalty on the gates that are not 0 (Louizos
    et al. 2018, arXiv 1712.01312; compared in Gao et al. 2025, App. D)."""

    basic: ClassVar = ("coef",)

    coef: Annotated[float, Field(ge=0)] = 1e-6
    """Loss in nats per expected nonzero weight. Ours; the papers give other scales."""
    initial_open: Annotated[float, Field(gt=0, lt=1)] = 0.9
    """Probability that a gate is not 0 before the first step. Ours."""
    temperature: Annotated[float, Field(gt=0)] = 2 / 3
    """Temperature of the concrete distribution (beta in the paper); lower is closer to 0 and 1."""
    low: Annotated[float, Field(lt=0)] = -0.1
    """Lower end of the interval to which a gate is stretched before it is cut at 0 (gamma)."""
    high: Annotated[float, Field(gt=1)] = 1.1
    """Upper end of that interval, cut at 1 (zeta)."""
    lr_scale: Annotated[float, Field(gt=0)] = 10.0
    """Factor of log_alpha over the parameter that is trained for it. Gradients of gates are small
    beside those of weights; with eps 0.1 they would hardly move at 1. Ours."""


class RevivalConfig(Config):
    """New weights for dead neurons: MLP neurons that stayed 0 at every token of many steps."""

    basic: ClassVar = ("silent_steps",)

    silent_steps: Count = 200
    """Steps from one check to the next; a neuron that was 0 at every token since the last check
    gets new weights."""
    until: Fraction = 0.8
    """Share of the steps after which no neuron is revived: it would have no time to learn."""
    scale: Annotated[float, Field(gt=0)] = 1.0
    """Size of the new weights / size at initialisation. With weight sparsity only the largest
    weights are kept, beside those of the floor."""


class OptimizerConfig(Config):
    """AdamW as in App. A.2."""

    basic: ClassVar = ("lr",)

    lr: Annotated[float, Field(gt=0)] = 3e-3
    """Peak learning rate before the sharkfin factor. Ours; the paper sweeps it."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay of the first moment."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay of the second moment."""
    eps: Annotated[float, Field(gt=0)] = 0.1
    """Epsilon of AdamW; large on purpose, for the gradient scale that `grad_scale` sets."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Weight decay of matrices; biases, norms and sinks have none."""
    grad_scale: Literal["normalise", "clip", "clip_norm", "none"] = "normalise"
    """`normalise`: scale the gradient to a root mean square of 1 at every step (the authors' code);
    `clip`: only if it is above 1 (the paper's text); `clip_norm`: scale its norm to at most 1
    (Ferrao et al. 2025; use an eps near 1e-8); `none`: no scaling."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of the steps over which the learning rate rises from 0."""
    decay: Literal["linear", "cosine"] = "linear"
    """How the learning rate then falls to 0: linearly or as half a cosine (Ferrao et al. 2025)."""


class TrainConfig(Config):
    """All settings of one training run."""

    basic: ClassVar[tuple[str, ...]] = (
        "name",
        "seed",
        "steps",
        "batch_size",
        "model",
        "data",
        "optimizer",
        "weight_sparsity",
        "device",
    )

    name: str = "run"
    """Name of the run, a folder in `runs`."""
    runs: Path = Path("runs")
    """Folder of all runs."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the weights and of the order of the data."""
    steps: Count = 2000
    """Optimizer steps."""
    batch_size: Count = 32
    """Sequences per step, of model.n_ctx tokens each."""
    model: ModelConfig = ModelConfig().derived(vocab_size=0)
    """The transformer."""
    data: DataConfig = DataConfig()
    """Corpus and tokeniser."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW and its learning rate."""
    weight_sparsity: WeightSparsityConfig | None = WeightSparsityConfig()
    """Weight sparsity; None (`null`) trains dense weights."""
    gating: GatingConfig | None = None
    """Self-ablation: gates that choose the active units per token, removed after training (Ferrao
    et al. 2025); None: no gates."""
    hard_concrete: HardConcreteConfig | None = None
    """Smooth L0: random gates on weights, with a penalty on their number (Louizos et al. 2018);
    None: no gates. Usually with `weight_sparsity: null`."""
    revival: RevivalConfig | None = None
    """Re-initialise neurons that stayed silent for many steps; None: never."""
    bridges: BridgeConfig | None = None
    """Bridges to a frozen dense model, trained with this one (Gao et al. 2025, sec. 2.3); None: no
    bridges. `wirework bridge` sets them."""
    start_from: Path | None = None
    """Run or model folder whose weights the training starts from; None: random weights. Model and
    tokeniser must be those of it. Steps, schedules and moments start anew. A self-ablating model
    is refused, since its gates would be lost."""
    bigram_start: Literal["counts", "zeros"] = "counts"
    """Initial bigram table: smoothed log-probabilities of the training tokens, or zeros. Ours.
    Ignored with `start_from`."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of matrix products; `auto` times both on this device at the start."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    eval_every: Count = 200
    """Steps between evaluations on the fixed held-out batches."""
    eval_batches: Count = 16
    """Batches per evaluation."""
    log_every: Count = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """Number of newest checkpoints to keep; the best one is kept too."""
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also log to these services (extra `track`)."""

    @model_validator(mode="before")
    @classmethod
    def _one_vocabulary(cls, values: Any) -> Any:
        """Let the size of the vocabulary that is not set follow the one that is."""
        if not isinstance(values, dict):
            return values
        try:
            model = ModelConfig.model_validate(values.get("model", {}))
            data = DataConfig.model_validate(values.get("data", {}))
        except ValidationError:
            return values  # the fields report it, under their own names
        size = model.vocab_size if "vocab_size" in model.model_fields_set else 0
        asked = "auto" if data.tokenizer is not None else data.vocab_size
        if asked == "auto":
            if size and data.tokenizer is None:
                data = data.derived(vocab_size=size)
        elif size in (0, asked):
            size = asked
        else:
            raise ValueError(
                f"data.vocab_size {asked} and model.vocab_size {size} differ: give one of them"
            )
        return {**values, "model": model.derived(vocab_size=size), "data": data}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.gating is not None:
            self.gating.check_fits(self.model)
        if self.bridges is not None:
            if self.gating is not None:
                raise ValueError("bridges do not work with gating: give one of them")
            self.bridges.check_fits(self.model)
        if self.weight_sparsity is not None and self.weight_sparsity.gradient == "live":
            self._check_live()
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ValueError(f"name must be a plain folder name, got {self.name!r}")
        return self

    def _check_live(self) -> None:
        """Refuse settings with which not every gradient of a weight is one of its live entries."""
        refused = {
            "gating": self.gating is not None,
            "hard_concrete": self.hard_concrete is not None,
            "revival": self.revival is not None,
            "model.tied_embedding": self.model.tied_embedding,
            f"precision: {self.precision}": self.precision == "bfloat16",
            f"device: {self.device}": self.device not in ("auto", "cpu"),
        }
        for name in (name for name, is_set in refused.items() if is_set):
            raise ValueError(f"weight_sparsity.gradient: live does not work with {name}; use exact")


class BridgeTrainConfig(TrainConfig):
    """Settings of `wirework bridge`: those of a training run, with bridges and other basic ones."""

    basic: ClassVar[tuple[str, ...]] = (
        "name",
        "steps",
        "model.n_layer",
        "model.d_model",
        "data.corpus",
        "optimizer.lr",
        "weight_sparsity",
        "bridges.act_fraction",
        "bridges.locations",
        "device",
    )
