"""Replacement values for ablated nodes: means or resampled activations of the training text."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wirework.circuit_format import MeanSource
from wirework.circuits.masking.ablation import Ablation, moved
from wirework.circuits.masking.activation_cache import ActivationCache, activation_cache_of_search
from wirework.circuits.masking.means import Means, with_embedding_means
from wirework.circuits.masking.nodes import NodeSpace
from wirework.circuits.masking.saved_means import means_for
from wirework.circuits.masking.value_range import ValueRange, value_range_of_search
from wirework.config import PruneConfig
from wirework.files import tensors_checksum

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model


@dataclass(frozen=True)
class AblationBaseline:
    """Replacement values for one model, measured once and shared by the searches of all tasks.

    There are two samples of text that do not overlap: a search fits masks with the values of the
    first, and its circuit is judged with those of the second.
    """

    means: Means
    """Node means of both samples."""
    activation_cache: ActivationCache | None = None
    """Activations of the first sample, to resample from during the search; None under mean
    ablation."""
    second_cache: ActivationCache | None = None
    """Activations of the second sample, with which the circuit is judged; None under mean
    ablation."""
    value_range: ValueRange | None = None
    """Range of each node's values on the first sample and of its means; None without adversarial
    ablation."""
    origin: str = ""
    """SHA-256 that identifies the baseline: of the text if one was given, else of the means. The
    text is preferred because the last digits of means depend on the number of threads."""
    source: MeanSource = "given means"
    """Where the means come from, for the record in circuit.json."""

    @classmethod
    def of(cls, model: "Model", data: "Tokens | None", config: PruneConfig) -> "AblationBaseline":
        """Measure the replacement values on training text.

        Args:
            model: the model.
            data: training text; None to use the means saved beside the model, or else the text of
                the run that trained the model.
            config: settings of the search.

        Raises:
            InputError: there are neither means nor a text to measure them on.
        """
        means = means_for(model, data, config.mean_tokens)
        source: MeanSource
        if data is not None:
            origin, source = data.fingerprint, "given text"
        else:
            on_cpu = {name: mean.float().cpu() for name, mean in means.first.items()}
            origin = tensors_checksum(on_cpu, {})
            source = "given means" if means.n_tokens is None else "text of the model's run"
        if config.embedding_edges:
            means = with_embedding_means(means, model, data, config.mean_tokens)
        bounds = value_range_of_search(model, data, config)
        return cls(
            means,
            activation_cache_of_search(model, data, config),
            activation_cache_of_search(model, data, config, second_sample=True),
            None if bounds is None else _with_means(bounds, model, means),
            origin,
            source,
        )

    def ablation(self, model: "Model", config: PruneConfig) -> Ablation:
        """Return node masks that ablate with the first sample, for a search.

        Args:
            model: the model.
            config: settings of the search: `tie_qk`, `n_resamples` and `loss_reduction`.
        """
        return replace(
            Ablation.of(model.transformer, self.means.first, tie_qk=config.tie_qk),
            activation_cache=self.activation_cache,
            value_range=self.value_range,
            n_resamples=config.n_resamples,
            loss_reduction=config.loss_reduction,
        )

    def second_sample(self, model: "Model", config: PruneConfig) -> Ablation | None:
        """Return node masks that ablate with the second sample, to judge a circuit.

        Args:
            model: the model.
            config: settings of the search: `n_resamples` and `loss_reduction`.

        Returns:
            Masks with one gate per node (q and k not tied); None if there is no second sample.
        """
        if (second := self.means.second) is None:
            return None
        return replace(
            Ablation.of(model.transformer, second),
            activation_cache=self.second_cache,
            n_resamples=config.n_resamples,
            loss_reduction=config.loss_reduction,
        )


def _with_means(bounds: ValueRange, model: "Model", means: Means) -> ValueRange:
    """Widen a range to the means of both samples."""
    space = NodeSpace.of(model.transformer)
    for sample in (means.first, means.second or means.first):
        bounds = bounds.widened(space.join(moved(sample, model.transformer)))
    return bounds
