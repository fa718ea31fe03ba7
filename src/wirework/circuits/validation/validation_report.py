"""`ValidationReport`: the result of `validate`, with typed entries.

Losses are task losses in nats unless said otherwise.
"""

from dataclasses import dataclass
from typing import Any

from wirework.circuits.validation.checks.adversarial_ablation import AdversarialAblation
from wirework.circuits.validation.checks.agreement import Agreement
from wirework.circuits.validation.checks.binarise import Binarised
from wirework.circuits.validation.checks.coverage import Coverage
from wirework.circuits.validation.checks.hypothesis_tests import (
    Equivalence,
    Independence,
    MinimalityTest,
)
from wirework.circuits.validation.checks.interchange import Interchange
from wirework.circuits.validation.checks.minimality import Minimality
from wirework.circuits.validation.checks.necessity import Necessity
from wirework.circuits.validation.stability import Stability
from wirework.config import LossReduction
from wirework.summaries import NotMeasured, Report, absent

WORDS = {True: "faithful", False: "not faithful", None: "open"}
"""The values of `faithful` in words."""

MISSED = "misses the target"
"""Shown instead of a verdict if the search did not reach its target."""


@dataclass(frozen=True, repr=False)
class PairLosses(Report):
    """Losses on some pairs: of the circuit, and those to compare it with."""

    n_pairs: int
    """Number of pairs."""
    model: float
    """Loss of the whole model, in nats."""
    circuit: float
    """Loss with everything but the circuit ablated, in nats: low if the circuit is sufficient."""
    without_circuit: float
    """Loss with only the circuit ablated, in nats: high if the circuit is necessary."""
    chance: float
    """Loss of a guess, in nats."""
    circuit_error: float
    """Standard error of `circuit` over pairs, in nats; 0 for a single pair."""
    circuit_calibrated: float | None = absent()
    """`circuit` after the circuit's calibration, in nats; absent on the pairs that fitted it."""


@dataclass(frozen=True, repr=False)
class Resampled(Report):
    """Losses of the circuit if ablated nodes take activations of training text."""

    resample: float
    """Another random token at each position; mean over draws, in nats."""
    stochastic: float
    """One random token for all positions and prompts; mean over draws, in nats."""
    adversarial: float
    """The same; the highest loss over draws, in nats. `AdversarialAblation` looks for worse values.
    """


@dataclass(frozen=True, repr=False)
class HypothesisTests(Report):
    """The three tests of Shi et al. 2024; a small p-value is evidence against the circuit."""

    equivalence: Equivalence
    """Circuit and model have the higher logit difference equally often."""
    independence: Independence
    """The logit differences of the complement are independent of the model's."""
    minimality: MinimalityTest
    """Each node matters more than a random one."""


@dataclass(frozen=True, repr=False)
class CircuitMeans(Report):
    """The means with which the circuit's ablated nodes are set, and how precise they are.

    Standard errors are shares of the standard deviation of a node's activation.
    """

    n_tokens: int
    """Tokens that they were measured on."""
    whole_text: bool
    """Whether the text was too short for the wanted number of tokens."""
    median_error: float
    """Median standard error over channels."""
    largest_error: float
    """Largest standard error over channels."""


@dataclass(frozen=True, repr=False)
class SizeRange(Report):
    """A size of the circuit and of the random circuits that it is compared with."""

    circuit: int
    """Size of the circuit."""
    least: int
    """Smallest size of a random circuit."""
    most: int
    """Largest size of a random circuit."""


@dataclass(frozen=True, repr=False)
class RandomControl(Report):
    """Losses of random connected circuits of the same composition, on a few held-out pairs."""

    n: int
    """Number of random circuits."""
    nodes: SizeRange
    """Their numbers of nodes."""
    edges: SizeRange
    """Their numbers of kept edges."""
    lowest: float
    """Lowest of their losses, in nats."""
    median: float
    """Median of their losses, in nats."""
    n_sufficient: int
    """How many of them reach the target."""
    n_with_needed: int = 0
    """How many of these hold every node without which alone the circuit would miss it."""


@dataclass(frozen=True, repr=False)
class Criterion(Report):
    """One criterion of a verdict."""

    name: str
    """What is judged: an entry of the report, or a control."""
    met: bool | None
    """None if it was not tested."""
    words: str
    """The reason, for the report."""
    value: float | None = absent()
    """The number that is judged, a loss in nats or a count; absent if it was not tested."""
    bar: float | None = absent()
    """What it is compared with; absent where more than one number decides."""


@dataclass(frozen=True, repr=False)
class Level(Report):
    """One of the four levels of a verdict, with its evidence."""

    met: bool | None
    """None if no criterion failed but some were not tested."""
    criteria: tuple[Criterion, ...]
    """The evidence."""


@dataclass(frozen=True, repr=False)
class Levels(Report):
    """The four levels of a verdict."""

    sufficient: Level
    """The circuit alone does the task, on held-out pairs and templates."""
    specific: Level
    """The model has the behaviour and loses it without the circuit; where there is no mechanism,
    the same search and random circuits do not reach the target."""
    robust: Level
    """The circuit holds with other values of the ablated nodes and with swapped values of its own.
    """
    minimal: Level
    """No node or edge can be removed."""


@dataclass(frozen=True, repr=False)
class Calibration(Report):
    """How often circuits without a mechanism pass the bars of the verdict."""

    n_null: int
    """Circuits without a mechanism that were judged; none of them chose a bar."""
    n_passed: int
    """How many of them are sufficient and specific by a short report."""
    highest_rate: float
    """Upper end of the rate's one-sided 95% confidence interval (Clopper-Pearson)."""


@dataclass(frozen=True, repr=False)
class Verdict(Report):
    """Whether a circuit is faithful, and why."""

    faithful: bool | None
    """Sufficient, specific and robust; None if no criterion failed but some were not tested."""
    reasons: tuple[str, ...]
    """One line per criterion: failed ones first, then those not tested, then those met. A last line
    for an adversary that the circuit does not survive, which is no criterion."""
    levels: Levels | None = absent()
    """The four levels; absent from reports of earlier versions."""
    calibration: Calibration | None = absent()
    """False-positive rate of the bars; absent from reports of earlier versions."""


@dataclass(frozen=True, repr=False, kw_only=True)
class CircuitChecks(Report):
    """The checks of one circuit, without controls."""

    judged: PairLosses | None = absent()
    """Losses on the pairs that judged the circuit in its search; absent if other pairs are given.
    """
    held_out: PairLosses
    """Losses on pairs that neither trained nor judged it."""
    held_out_templates: PairLosses | NotMeasured
    """Losses on pairs of templates that the search has not seen."""
    rephrased: PairLosses | NotMeasured
    """Losses on the held-out pairs with other words and names."""
    resampled: Resampled | NotMeasured
    """Losses if ablated nodes take activations of training text instead of their mean."""
    interchange: Interchange
    """Losses if the circuit's nodes take activations of other prompts."""
    agreement: Agreement
    """Distance of the circuit's next-token distributions and attention from the model's."""
    coverage: Coverage
    """Edges of the circuit relative to all edges of its nodes."""
    adversarial_ablation: AdversarialAblation | NotMeasured | None = absent()
    """Losses if gradient ascent sets the ablated nodes; absent from a short report."""
    binarised: Binarised | NotMeasured | None = absent()
    """Losses if each node takes two values only; absent from a short report."""
    minimality: Minimality | NotMeasured | None = absent()
    """Losses with one node or edge removed; absent from a short report."""
    necessity: Necessity | NotMeasured | None = absent()
    """Losses of the model with more and more of the circuit's nodes ablated; absent from a short
    report."""
    hypothesis_tests: HypothesisTests | NotMeasured | None = absent()
    """Tests of Shi et al. 2024; absent from a short report."""


@dataclass(frozen=True, repr=False, kw_only=True)
class _ControlSize(Report):
    """First entries in the report of a searched control."""

    task: str
    """Name of the control's task."""
    n_nodes: int
    """Nodes of the circuit that the search returned."""
    n_edges: int
    """Nonzero weights between its nodes."""
    n_kept_edges: int | None = absent()
    """Those of them that it keeps."""
    reached: bool
    """Whether its held-out loss is compatible with the target."""


# The fields of the last base come first, as in the JSON.
@dataclass(frozen=True, repr=False, kw_only=True)
class SearchedControl(CircuitChecks, _ControlSize):
    """A circuit that the same search returned where there is no mechanism, and its checks."""

    verdict: Verdict
    """The verdict on that circuit, without controls."""


@dataclass(frozen=True, repr=False, kw_only=True)
class Controls(Report):
    """Results of the same method where there is no mechanism to find."""

    random_circuits: RandomControl | NotMeasured | None = absent("random circuits")
    """Random connected circuits of the same composition."""
    random_labels: SearchedControl | NotMeasured | None = absent("nonsense task")
    """The same search on random labels; absent from a short report."""
    shuffled_weights: SearchedControl | NotMeasured | None = absent("shuffled weights")
    """The same search on the model with shuffled weights; absent from a short report."""


@dataclass(frozen=True, repr=False, kw_only=True)
class _CircuitSize(Report):
    """First entries of a validation report."""

    task: str
    """Name of the task."""
    target_loss: float
    """Loss that the search aimed for, in nats."""
    loss_reduction: LossReduction = "mean"
    """Whether all losses are means or sums over the two prompts of a pair."""
    n_nodes: int
    """Nodes of the circuit."""
    n_edges: int
    """Nonzero weights between its nodes."""
    n_kept_edges: int
    """Those of them that it keeps."""
    n_embedding_edges: int | None = absent()
    """Embedding edges that it keeps; absent if none were pruned."""
    n_token_groups: int | None = absent()
    """Token groups that these read; absent if none were pruned."""


@dataclass(frozen=True, repr=False, kw_only=True)
class ValidationReport(CircuitChecks, _CircuitSize):
    """All checks and controls of a circuit, and the verdict on them."""

    means: CircuitMeans | None = absent()
    """Precision of the means; absent for circuits of earlier versions and given means."""
    stability: Stability | NotMeasured | None = absent()
    """Which nodes and edges repeated searches find again; absent without `runs`."""
    controls: Controls
    """Results of the same method where there is no mechanism to find."""
    verdict: Verdict
    """Whether the circuit is faithful, and why."""

    @property
    def faithful(self) -> bool | None:
        """Whether the circuit is faithful; None if some criteria were not tested."""
        return self.verdict.faithful

    @property
    def reasons(self) -> tuple[str, ...]:
        """One line per criterion: failed ones first, then those not tested, then those met."""
        return self.verdict.reasons

    def summary(self) -> dict[str, Any]:
        """Return the verdict, its first reason, the size and the held-out losses in nats."""
        embedding = {
            "n_embedding_edges": self.n_embedding_edges,
            "n_token_groups": self.n_token_groups,
        }
        return {
            "task": self.task,
            "verdict": WORDS[self.faithful],
            "because": next(iter(self.reasons), None),
            "n_nodes": self.n_nodes,
            "n_edges": self.n_edges,
            "n_kept_edges": self.n_kept_edges,
            **({} if self.n_embedding_edges is None else embedding),
            "target_loss": self.target_loss,
            "loss_reduction": self.loss_reduction,
            "circuit": self.held_out.circuit,
            "model": self.held_out.model,
            "without_circuit": self.held_out.without_circuit,
            "n_held_out_pairs": self.held_out.n_pairs,
        }
