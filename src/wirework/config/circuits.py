"""How a circuit is found: learned pruning, scores and ACDC."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from wirework.config.base import Config, Count

Score = Literal["attribution", "signed_attribution", "integrated_gradients", "atp_star", "random"]
"""Ways to score nodes without a search (`circuits/scoring/scores.py`)."""


class PruneConfig(Config):
    """Learned pruning of one task (sec. 2.2, App. A.5); the centres of the paper's search."""

    renamed: ClassVar = {
        "also": "extra_rankings",
        "draws": "n_resamples",
        "anyway": "allow_unreached",
    }
    basic: ClassVar = (
        "finder",
        "target_loss",
        "ablation",
        "trials",
        "steps",
        "allow_unreached",
        "seed",
    )

    finder: Literal["learned", Score] = "learned"
    """What ranks the nodes: learned masks, or a score as a baseline (Fig. 31)."""
    warm_start: Score | None = None
    """Score by which learned masks begin: nodes that score low begin near being removed. Ours."""

    target_loss: Annotated[float, Field(gt=0)] = 0.15
    """Task loss in nats that the circuit must reach (sec. 2.2)."""
    ablation: Literal["mean", "resample"] = "mean"
    """Value of a removed node: its mean (sec. 2.2), or its values at random training tokens (App.
    E). Then the target must be met under both. Ours."""
    n_resamples: Count = 3
    """With `ablation="resample"`: how many resamples the target must be met under. With one
    resample, greedy removal overfits to that sample."""
    trials: Count = 8
    """Pruning runs with different hyperparameters; the smallest circuit wins. The paper: 256."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How settings are drawn: with regard to the sizes found before, or each for itself."""
    parallel: Count = 4
    """Trials carried by one forward pass."""
    steps: Count = 300
    """Optimizer steps per trial. Ours."""
    stop_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.25, 0.5)
    """Shares of the steps at which a trial stops whose circuit is larger than that of half of the
    trials that came there; none: every trial runs to its end. Ours."""
    finalists: Count = 4
    """How many of the best trials are cleaned up; the smallest is then merged with the others."""
    extra_rankings: tuple[Score, ...] = ("atp_star",)
    """Scores whose order is cleaned up beside the finalists': the clean-up ends in another local
    minimum from each. Ours."""
    batch_pairs: Count = 32
    """Task pairs per step, two sequences each; the paper uses 64."""
    eval_pairs: Count = 128
    """Pairs on which circuits are discretised and judged, apart from those trained on."""
    k_coef: Annotated[float, Field(gt=0)] = 1e-4
    """Loss per gate left on; centre of the search."""
    init_noise_scale: Annotated[float, Field(ge=0)] = 1e-2
    """Spread of the initial mask parameters; centre of the search."""
    init_noise_bias: float = 1e-1
    """Mean of the initial mask parameters; centre of the search."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    """AdamW's, on the mask parameters; centre of the search."""
    lr: Annotated[float, Field(gt=0)] = 3e-3
    """AdamW's, on the mask parameters; centre of the search."""
    inv_beta2: Annotated[float, Field(gt=0, lt=1)] = 5e-2
    """1 - beta2; centre of the search."""
    lr_warmup: Annotated[float, Field(ge=0, lt=1)] = 5e-2
    """Share of steps over which the rate rises; it falls linearly to 0 after."""
    heaviside_temp: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the sigmoid whose derivative stands in for the step's."""
    tie_qk: bool = False
    """One mask for query channel c and key channel c of a head; App. A.5 has them untied and names
    that as a regret. The last clean-up, with the edges, takes each node for itself."""
    clean_up: bool = True
    """Leave out nodes that the target does not need after all; the paper did it by hand."""
    prune_edges: bool = True
    """Then also leave out edges between kept nodes that the target does not need (ours)."""
    allow_unreached: bool = False
    """Search even if the model's own task loss misses the target, or the target is above chance."""
    mean_tokens: Count = 200_000
    """Tokens of training text over which the means are taken, at least; at most half of the text.
    As many others, that the search has not seen, decide whether its circuit is accepted."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the search and of the split of the pairs."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values: Any) -> Any:
        if isinstance(values, dict) and "mean_batches" in values:
            raise ValueError(
                "mean_batches is now mean_tokens, in tokens (a batch was 16 times n_ctx tokens)"
            )
        return values


PathMetric = Literal["kl", "logit_difference", "task_loss"]
"""What the removal of a path edge may cost; each is counted so that less is better."""

PathAblation = Literal["corrupted", "zero", "mean"]
"""What a removed path edge brings of its source."""


class AcdcConfig(Config):
    """Automatic circuit discovery on the head-level graph (Conmy et al. 2023, arXiv 2304.14997)."""

    renamed: ClassVar = {"both": "symmetric"}
    basic: ClassVar = ("tau", "metric", "ablation", "pairs")

    tau: tuple[Annotated[float, Field(gt=0)], ...] = (0.01,)
    """A path edge is removed when the metric grows by less than this; several make a sweep. The
    self-ablation paper has 0.01."""
    metric: PathMetric = "kl"
    """`kl`: nats between the clean model's next-token distribution and the patched one's at each
    prompt's last token, mean over prompts; `logit_difference`: minus the mean of right minus wrong
    logit; `task_loss`: nats, mean cross-entropy between the two answers."""
    ablation: PathAblation = "corrupted"
    """What a removed path edge brings: its source's value on the pair's other prompt, nothing, or
    its source's mean over all tokens of all prompts."""
    symmetric: bool = False
    """Take each prompt of a pair as the clean one, the other as the corrupted one; by itself only
    the first is clean."""
    pairs: Count = 16
    """Pairs of the task to run on."""
    keep_unreachable: bool = False
    """Keep edges that change nothing: whose source no kept edge reaches, or whose target leads
    nowhere. By default they are left out and counted (`n_unreachable`)."""
    order: Path | None = None
    """A file with all path edges in the order in which to test them, `SOURCE -> TARGET` a line;
    None: from the last to the first (docs/acdc.md)."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of which pairs are taken."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.tau or len(set(self.tau)) < len(self.tau):
            raise ValueError(f"give at least one tau and each tau once, got {self.tau}")
        return self
