"""What a search puts the nodes at that it takes out: their means, or values of training text."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from wirework.circuits.ablation import Ablation
from wirework.circuits.bank import Bank, bank_of_search
from wirework.circuits.means import means_for
from wirework.config import PruneConfig
from wirework.files import tensors_checksum

if TYPE_CHECKING:
    from wirework.data import Tokens
    from wirework.model import Model


@dataclass(frozen=True)
class Resting:
    """Measured once for all searches on a model that differ in nothing but the task."""

    means: Mapping[str, Tensor]
    """Site to (width,), as `means_for` returns them."""
    bank: Bank | None
    """Values that removed nodes take; None where they rest at their means."""
    origin: str
    """Tells searches apart that removed nodes rest elsewhere in: SHA-256 over the text that was
    given or, where the model's own was taken, over the means. The text is steadier, as means
    measured anew with another number of threads round otherwise."""

    @classmethod
    def of(cls, model: "Model", data: "Tokens | None", config: PruneConfig) -> "Resting":
        """Measure it.

        Args:
            model: the model.
            data: training text; None for the means beside the model and the text of its run.
            config: of the search.

        Raises:
            InputError: there is no text to measure means or take values from.
        """
        means = means_for(model, data, config.mean_batches)
        plain = {name: mean.float().cpu() for name, mean in means.items()}
        origin = tensors_checksum(plain, {}) if data is None else data.fingerprint
        return cls(means, bank_of_search(model, data, config), origin)

    def ablation(self, model: "Model", config: PruneConfig) -> Ablation:
        """Return the model with gates that take nodes to where they rest."""
        ablation = Ablation.of(model.transformer, self.means, tie_qk=config.tie_qk)
        return replace(ablation, bank=self.bank, draws=config.draws)
