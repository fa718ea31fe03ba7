"""The instruments that set models side by side, and the sparse autoencoder among them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from wirework.config.base import Count
from wirework.config.circuits import AcdcConfig
from wirework.config.explain import ExplainConfig
from wirework.config.preset import Preset, PresetConfig


class SaeConfig(PresetConfig):
    """A sparse autoencoder of one site (Ferrao et al. 2025), trained by sae-lens.

    Defaults are what a CPU can do in minutes; the paper's are named where they differ, and
    `preset: authors` sets them.
    """

    presets: ClassVar = {
        "authors": {
            "site": "6.mlp.resid_delta",
            "architecture": "standard",
            "expansion": 16,
            "tokens": 100_000_000,
            "batch_size": 4096,
            "lr": 1e-5,
            "decay": 0.2,
            "l1_coef": 5.0,
            "warmup": 0.05,
            "buffer": 262_144,  # 64 batches of 16 prompts of 256 tokens
        }
    }
    basic: ClassVar = (
        "preset",
        "site",
        "architecture",
        "expansion",
        "tokens",
        "lr",
        "l1_coef",
        "k",
        "seed",
    )

    preset: Preset | None = None
    """`authors`: settings of Ferrao et al. 2025 for models of their shape; other settings given
    beside it win. None: the defaults."""
    site: str | None = None
    """Site that the autoencoder reads; None: the MLP output at three quarters of the depth,
    `6.mlp.resid_delta` of 8 layers (the paper's)."""
    architecture: Literal["standard", "topk", "jumprelu"] = "standard"
    """`standard`: ReLU and an L1 penalty (the paper's). `topk`: the k largest. `jumprelu`: a
    learned threshold per feature and an L0 penalty."""
    expansion: Count = 16
    """Number of features / width of the site; 16 in the paper."""
    tokens: Count = 600_000
    """Training tokens, each used once. The paper: 100 million."""
    batch_size: Count = 256
    """Tokens per step. The paper: 4096."""
    lr: Annotated[float, Field(gt=0)] = 5e-3
    """Adam's learning rate until the decay. The paper: 1e-5; its code: 3e-4."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Last share of the steps, over which the learning rate falls to 0 (the authors' code)."""
    l1_coef: Annotated[float, Field(ge=0)] = 5.0
    """Coefficient of the L1 penalty of `standard`; activations have a mean norm of sqrt(width)."""
    l0_coef: Annotated[float, Field(ge=0)] = 1.0
    """Coefficient of the L0 penalty of `jumprelu`; activations are scaled the same way."""
    k: Count = 8
    """Features on per token, for `topk`."""
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.05
    """First share of the steps, over which the penalty rises to its coefficient (the paper's)."""
    buffer: Count = 65_536
    """Tokens whose activations are shuffled in memory, 4 bytes x width of the site each; half of
    them are replaced at a time."""
    skip_first: Annotated[int, Field(ge=0)] = 0
    """First tokens of each window that are neither trained on nor replaced when measuring. Windows
    begin anywhere in the text and have no start token."""
    max_norm_multiple: Annotated[float, Field(gt=1)] | None = None
    """Exclude tokens whose activation norm is above this multiple of the median from training and
    normalisation; measuring leaves them unchanged. None: no token; 10 is usual."""
    eval_tokens: Count = 32_768
    """Held-out tokens to measure on."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the weights and of the order of the text."""

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.tokens // self.batch_size

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.steps < 20:
            raise ValueError(
                f"tokens {self.tokens} are {self.steps} steps of batch_size {self.batch_size}, too "
                f"few to train an autoencoder: at least {20 * self.batch_size}"
            )
        if self.buffer < 2 * self.batch_size:
            raise ValueError(
                f"buffer {self.buffer} must hold two batches of batch_size {self.batch_size}"
            )
        return self


Instrument = Literal["language", "sparsity", "acdc", "sae", "explain"]
"""Names of the instruments of `measure`."""


class MeasureConfig(PresetConfig):
    """The instruments that compare models (Ferrao et al. 2025)."""

    presets: ClassVar = {
        "authors": {
            "task": "ioi",
            "acdc": {
                "tau": (0.01,),
                "metric": "kl",
                "ablation": "corrupted",
                "order": "auto_circuit",
            },
            "sae": {"preset": "authors"},
            "explain": {"preset": "authors"},
        }
    }
    basic: ClassVar = (
        "instruments",
        "task",
        "n_tokens",
        "acdc.tau",
        "sae.site",
        "sae.tokens",
        "explain.explainer",
        "explain.neurons",
    )

    instruments: tuple[Instrument, ...] = ("language", "sparsity", "acdc", "sae", "explain")
    """Instruments; `sparsity` also counts gates if the model has them."""
    task: str = "ioi"
    """Behaviour whose path edges `acdc` counts: a name, a JSONL file or a function."""
    n_tokens: Count = 65_536
    """Held-out tokens that `language` and `sparsity` read."""
    acdc: AcdcConfig = AcdcConfig()
    """Settings of ACDC, with one tau."""
    sae: SaeConfig = SaeConfig()
    """The sparse autoencoder."""
    explain: ExplainConfig = ExplainConfig()
    """Neuron explanations."""
    preset: Preset | None = None
    """`authors`: settings of Ferrao et al. 2025 for all instruments; other settings given beside it
    win. None: the defaults."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.instruments or len(set(self.instruments)) < len(self.instruments):
            raise ValueError(
                f"instruments must name at least one and each once: {self.instruments}"
            )
        if len(self.acdc.tau) > 1:
            raise ValueError(f"measure counts edges at one acdc.tau, got {self.acdc.tau}")
        return self
