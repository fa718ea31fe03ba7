"""How a circuit is found: learned pruning, scores and ACDC."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from wirework.config.base import Config, Count

Score = Literal["attribution", "signed_attribution", "integrated_gradients", "atp_star", "random"]
"""Ways to score nodes without a search (`circuits/scoring/scores.py`)."""


LossReduction = Literal["mean", "sum"]
"""Task loss of a pair from the losses of its two prompts (`tasks/task_loss.py`)."""


class PruneConfig(Config):
    """Learned pruning of one task (sec. 2.2, App. A.5); the centres of the paper's search."""

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
    """Ranking of nodes: by learned masks, or by a baseline score (Fig. 31)."""
    warm_start: Score | None = None
    """Score from which the learned masks start: nodes with a low score start near removal. Ours."""

    target_loss: Annotated[float, Field(gt=0)] = 0.15
    """Task loss in nats that the circuit must reach (sec. 2.2)."""
    loss_reduction: LossReduction = "mean"
    """Task loss of a pair: mean or sum over its two prompts. The authors' released code sums, so
    that chance is 1.386 and a target of 0.15 is stricter."""
    ablation: Literal["mean", "resample", "adversarial"] = "mean"
    """Value of a removed node: its mean (sec. 2.2), values at random tokens (App. E), or the worst
    in its range. The last two are ours."""
    n_resamples: Count = 3
    """With `ablation="resample"`: how many resamples the target must be met under. With one
    resample, greedy removal overfits to that sample."""
    attack_rounds: Count = 8
    """With `ablation="adversarial"`: most searches, each with one more set of the adversary's
    values. If the last circuit is still broken, it is grown until it is not."""
    attack_steps: Count = 100
    """With `ablation="adversarial"`: steps of the ascent that a circuit must withstand."""
    trials: Count = 8
    """Pruning runs with different hyperparameters; the smallest circuit wins. The paper: 256."""
    sampler: Literal["tpe", "random"] = "tpe"
    """How hyperparameters are drawn: `tpe` learns from the sizes of earlier trials, `random` does
    not."""
    parallel: Count = 4
    """Trials in one forward pass."""
    steps: Count = 300
    """Optimizer steps per trial. Ours."""
    stop_at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.25, 0.5)
    """Shares of the steps at which the half of the trials with the larger circuits stops; none:
    every trial runs to its end. Ours."""
    finalists: Count = 4
    """Number of best trials that greedy removal is applied to; the smallest is then merged with the
    others."""
    extra_rankings: tuple[Score, ...] = ("atp_star",)
    """Scores whose ranking gets greedy removal beside the finalists: it ends in another local
    minimum from each. Ours."""
    batch_pairs: Count = 32
    """Task pairs per step, two sequences each; the paper uses 64."""
    eval_pairs: Count = 128
    """Pairs on which circuits are discretised and judged; disjoint from the training pairs."""
    k_coef: Annotated[float, Field(gt=0)] = 1e-4
    """Loss per gate that is on; centre of the search range."""
    init_noise_scale: Annotated[float, Field(ge=0)] = 1e-2
    """Standard deviation of the initial mask parameters; centre of the search range."""
    init_noise_bias: float = 1e-1
    """Mean of the initial mask parameters; centre of the search range."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    """Weight decay of AdamW on the mask parameters; centre of the search range."""
    lr: Annotated[float, Field(gt=0)] = 3e-3
    """Learning rate of AdamW on the mask parameters; centre of the search range."""
    inv_beta2: Annotated[float, Field(gt=0, lt=1)] = 5e-2
    """1 - beta2 of AdamW; centre of the search range."""
    lr_warmup: Annotated[float, Field(ge=0, lt=1)] = 5e-2
    """Share of the steps over which the learning rate rises from 0; then it falls linearly to 0."""
    heaviside_temp: Annotated[float, Field(gt=0)] = 1.0
    """Temperature of the sigmoid whose derivative replaces that of the step function."""
    tie_qk: bool = False
    """One mask for query channel c and key channel c of a head. App. A.5 uses two and names
    this as a limitation. Greedy removal of edges treats the two separately."""
    clean_up: bool = True
    """Remove nodes greedily that the target does not need; the paper did it by hand."""
    prune_edges: bool = True
    """Then also remove edges between kept nodes that the target does not need. Ours."""
    embedding_edges: bool = False
    """Then also remove embedding entries that the target does not need, by token group and channel:
    the tokens that decide, the last tokens, and kinds such as names and numbers. Ours."""
    allow_unreached: bool = False
    """Search even if the model's own task loss misses the target, or the target is above chance."""
    mean_tokens: Count = 200_000
    """Least number of training tokens for the means; at most half of the text. As many held-out
    tokens decide whether the circuit is accepted."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the search and of the split of the pairs."""

    def recorded(self, exclude: Collection[str] = ()) -> dict[str, Any]:
        """Return the settings as JSON values for a record on disk, under their old names.

        `loss_reduction` is left out where it is `mean`, `embedding_edges` where it is off, and the
        settings of the attack without adversarial ablation, so that records of earlier versions
        match.

        Args:
            exclude: old names of settings to leave out.
        """
        default = {"loss_reduction"} if self.loss_reduction == "mean" else set()
        off = set() if self.embedding_edges else {"embedding_edges"}
        if self.ablation != "adversarial":
            off |= {"attack_rounds", "attack_steps"}
        return super().recorded({*exclude, *default, *off})

    @model_validator(mode="after")
    def _one_extension(self) -> Self:
        if self.ablation == "adversarial" and self.embedding_edges:
            raise ValueError("embedding_edges needs mean or resample ablation, not adversarial")
        return self

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, values: Any) -> Any:
        if isinstance(values, dict) and "mean_batches" in values:
            raise ValueError(
                "mean_batches is now mean_tokens, in tokens (a batch was 16 times n_ctx tokens)"
            )
        return values


PathMetric = Literal["kl", "logit_difference", "task_loss"]
"""Metric of a patched run; lower is better for each."""

PathAblation = Literal["corrupted", "zero", "mean"]
"""Value that replaces the source of a removed path edge."""

PathCorruption = Literal["other_prompt", "new_names"]
"""Corrupted prompt that belongs to a clean prompt."""


PathOrder = Literal["conmy", "auto_circuit"]
"""Named order in which ACDC tests path edges."""


class AcdcConfig(Config):
    """Automatic circuit discovery on the head-level graph (Conmy et al. 2023, arXiv 2304.14997)."""

    basic: ClassVar = ("tau", "metric", "ablation", "pairs")

    tau: tuple[Annotated[float, Field(gt=0)], ...] = (0.01,)
    """A path edge is removed if the metric rises by less than this; several values make a sweep.
    The self-ablation paper uses 0.01."""
    metric: PathMetric = "kl"
    """`kl`: nats between the clean model's next-token distribution and the patched one's at each
    prompt's last token, mean over prompts; `logit_difference`: minus the mean of right minus wrong
    logit; `task_loss`: nats, mean cross-entropy between the two answers."""
    ablation: PathAblation = "corrupted"
    """Value that replaces the source of a removed edge: its value on the corrupted prompt, zero, or
    its mean over all tokens of all prompts."""
    corruption: PathCorruption | None = None
    """Corrupted prompt of a clean one. `other_prompt`: the other prompt of the pair. `new_names`:
    the clean prompt with three other names, for the task `ioi` only (ABC of Wang et al. 2022, used
    by Conmy et al. 2023 and Ferrao et al. 2025). None: `new_names` for `ioi` unless `symmetric` is
    set, otherwise `other_prompt`."""
    symmetric: bool = False
    """Use each prompt of a pair as the clean one in turn; by default only the first is."""
    pairs: Count = 16
    """Number of pairs of the task."""
    keep_unreachable: bool = False
    """Keep edges without effect: their source has no input or their target no output. By default
    they are removed and counted (`n_unreachable`)."""
    order: PathOrder | Path | None = None
    """Order of testing: `conmy`, or None, from the last edge to the first; `auto_circuit`, from the
    last layer to the first, at random within a layer (docs/acdc.md); else a file with all path
    edges, one `SOURCE -> TARGET` per line."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the choice of pairs, and of what the order `auto_circuit` leaves open."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.tau or len(set(self.tau)) < len(self.tau):
            raise ValueError(f"give at least one tau and each tau once, got {self.tau}")
        if self.symmetric and self.corruption == "new_names":
            raise ValueError(
                "symmetric needs a right answer after both prompts, and a prompt with new_names "
                "has none: leave one of them out"
            )
        return self
