"""What a search puts the nodes at that it takes out: their means, or values of training text."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wirework.circuit_format import MeanSource
from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.activation_cache import ActivationCache, activation_cache_of_search
from wirework.circuits.masking.means import Means, means_for
from wirework.config import PruneConfig
from wirework.files import tensors_checksum

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model


@dataclass(frozen=True)
class AblationBaseline:
    """Measured once for all searches on a model that differ in nothing but the task."""

    means: Means
    """Of the sample that a search is fitted to, and of the one that its circuit is judged on."""
    activation_cache: ActivationCache | None = None
    """Values that removed nodes take; None where they rest at their means."""
    held_out_cache: ActivationCache | None = None
    """Other values, which a circuit is judged on."""
    origin: str = ""
    """Tells searches apart that removed nodes rest elsewhere in: SHA-256 over the text that was
    given or, where the model's own was taken, over the means. The text is steadier, as means
    measured anew with another number of threads round otherwise."""
    source: MeanSource = "given means"
    """Where the means are from."""

    @classmethod
    def of(cls, model: "Model", data: "Tokens | None", config: PruneConfig) -> "AblationBaseline":
        """Measure it.

        Args:
            model: the model.
            data: training text; None for the means beside the model and the text of its run.
            config: of the search.

        Raises:
            InputError: there is no text to measure means or take values from.
        """
        means = means_for(model, data, config.mean_tokens)
        plain = {name: mean.float().cpu() for name, mean in means.first.items()}
        origin = tensors_checksum(plain, {}) if data is None else data.fingerprint
        own: MeanSource = "given means" if means.n_tokens is None else "text of the model's run"
        return cls(
            means,
            activation_cache_of_search(model, data, config),
            activation_cache_of_search(model, data, config, held_out=True),
            origin,
            own if data is None else "given text",
        )

    def ablation(self, model: "Model", config: PruneConfig) -> Ablation:
        """Return the model with gates that take nodes to where they rest in a search."""
        ablation = Ablation.of(model.transformer, self.means.first, tie_qk=config.tie_qk)
        return replace(
            ablation, activation_cache=self.activation_cache, n_resamples=config.n_resamples
        )

    def held_out(self, model: "Model", config: PruneConfig) -> Ablation | None:
        """Return the same with what no search has seen, nodes not tied; None if there is none."""
        if (second := self.means.second) is None:
            return None
        ablation = Ablation.of(model.transformer, second)
        return replace(
            ablation, activation_cache=self.held_out_cache, n_resamples=config.n_resamples
        )
