"""One training run: the optimizer, and the priors that make a model readable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from wirework.config.base import Config, Count, Fraction
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
    """Least nonzeros of a neuron or attention channel; 0 turns it off (App. A.2, `j`)."""
    anneal_start: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of training before the fraction begins to fall (1% in the authors' code)."""
    anneal_end: Fraction = 0.5
    """Share of training at which the fraction reaches its target (App. A.2)."""
    sharkfin: bool = True
    """Multiply the learning rate by 1/sqrt(nonzero fraction); annealing needs it (App. A.2)."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.anneal_end <= self.anneal_start:
            raise ValueError(
                f"anneal_end {self.anneal_end} must come after anneal_start {self.anneal_start}"
            )
        return self


class GatingConfig(Config):
    """Gates that pick each token's winners while a model trains (Ferrao et al. 2025)."""

    basic: ClassVar = ("level", "k_attention", "k_neurons")

    level: Literal["local", "global", "both"] = "local"
    """What scores the units: each block's clean input, the final state of a first clean pass, or
    the sum of both, which nobody has trained."""
    k_attention: Count = 8
    """Channels of the concatenated head outputs that stay on, per token and layer."""
    k_neurons: Count = 8
    """Neurons that stay on, per token and layer."""
    temperature_attention: Annotated[float, Field(gt=0)] = 0.1
    """Of the soft mask whose gradient the hard one has; lower is steeper."""
    temperature_neurons: Annotated[float, Field(gt=0)] = 0.1
    """The same for neurons."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-12
    """Added to the width of the soft mask's slope."""
    mask: Literal["hard", "soft"] = "hard"
    """`soft` leaks the next token through the mask: only to reproduce early models."""
    base_coef: Annotated[float, Field(ge=0)] = 1.0
    """Of the clean stream's next-token loss."""
    ablated_coef: Annotated[float, Field(ge=0)] = 1.0
    """Of the ablated stream's; the paper's text sums the two, its code has 0.1."""
    reconstruction_coef: Annotated[float, Field(ge=0)] = 0.1
    """Of the mean squared difference between the streams, each token of unit length; with 0 it is
    not computed and 0."""

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
    """Large on purpose; makes sense only at the gradient scale that `grad_scale` sets."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """On matrices only: not on biases, norms or sinks."""
    grad_scale: Literal["normalise", "clip", "clip_norm", "none"] = "normalise"
    """`normalise`: root mean square of the whole gradient becomes 1 at every step (the authors'
    code); `clip`: only if it is above 1 (the paper's text); `clip_norm`: the norm of the whole
    gradient is at most 1 (Ferrao et al. 2025), which wants an eps near 1e-8; `none`: leave it."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of training over which the learning rate rises from 0."""
    decay: Literal["linear", "cosine"] = "linear"
    """How it falls to 0 after: in a line, or as half a cosine (Ferrao et al. 2025)."""


class TrainConfig(Config):
    """All settings of one training run."""

    basic: ClassVar = (
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
    """Folder of the run under `runs`."""
    runs: Path = Path("runs")
    """Where run folders live."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the weights and of the order of the data."""
    steps: Count = 2000
    """Optimizer steps."""
    batch_size: Count = 32
    """Sequences per step, of model.n_ctx tokens each."""
    model: ModelConfig = ModelConfig().derived(vocab_size=0)
    """The transformer."""
    data: DataConfig = DataConfig()
    """The corpus and its tokens."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW and the learning rate."""
    weight_sparsity: WeightSparsityConfig | None = WeightSparsityConfig()
    """Weight sparsity; None (`null`) trains dense weights."""
    gating: GatingConfig | None = None
    """Self-ablation: gates that pick each token's winners, beside the model and dropped after
    training (Ferrao et al. 2025); None trains without."""
    bigram_start: Literal["counts", "zeros"] = "counts"
    """Where the bigram table begins: smoothed log-probabilities of the training tokens, so that the
    rest of the model learns what pairs cannot say, or zeros. Ours."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Matrix products in bf16 or fp32; `auto` times both on this device at the start."""
    device: str = "auto"
    """`auto`, `cpu` or `cuda`."""
    eval_every: Count = 200
    """Steps between evaluations on the fixed held-out batches."""
    eval_batches: Count = 16
    """How many batches an evaluation reads."""
    log_every: Count = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """How many of the newest checkpoints stay; the best one stays too."""
    track: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also log to these (extra `track`)."""

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
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ValueError(f"name must be a plain folder name, got {self.name!r}")
        return self
