"""Self-ablation: training with a second stream in which each token keeps only its k winners.

Both streams learn to predict the next token. The gates that choose the winners are no part of the
transformer. The clean pass of the loss is recorded, so that nothing is computed twice.
Source: Ferrao et al. 2025.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from wirework.config import GatingConfig
from wirework.data import Batch
from wirework.nn import Transformer
from wirework.nn.gates import Gates
from wirework.nn.streams import clean_sites, combined_loss, run_ablated_stream, two_streams
from wirework.training.batch_evaluation import to_device
from wirework.training.prior import Prior, StepLosses


class SelfAblation(Prior):
    """The prior of self-ablating training.

    Args:
        config: level, number of winners and coefficients.
        seed: seed of the initial weights of the gates.

    Source: Ferrao et al. 2025.
    """

    def __init__(self, config: GatingConfig, seed: int) -> None:
        self.config = config
        self.seed = seed

    def wrap_model(self, transformer: Transformer) -> Transformer:
        """Create the gates, on the device of the model."""
        device = transformer.embed.weight.device
        self.gates = self._gates = Gates(transformer.config, self.config, self.seed).to(device)
        self._transformer = transformer
        self._sites = clean_sites(transformer.config.n_layer)
        return transformer

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the gates."""
        return {f"gates.{name}": parameter for name, parameter in self._gates.named_parameters()}

    def loss(self, clean: Callable[[], StepLosses], tokens: Tensor, targets: Tensor) -> StepLosses:
        """Add `loss_ablated` and `loss_reconstruction`, each times its coefficient."""
        with self._transformer.recorded(self._sites) as clean_values:
            losses = clean()
        streams = run_ablated_stream(self._transformer, self._gates, tokens, clean_values)
        ablated = self._transformer.loss_of(streams.ablated, tokens, targets)
        reconstruction = streams.reconstruction
        total = combined_loss(self.config, losses["total"], ablated, reconstruction)
        return {
            **losses,
            "loss_ablated": ablated,
            "loss_reconstruction": reconstruction,
            "total": total,
        }

    @torch.no_grad()
    def evaluate(self, batches: Sequence[Batch], device: torch.device) -> dict[str, float]:
        """Return `val_loss_ablated` and `val_loss_reconstruction`, means over the batches."""
        sums = torch.zeros(2, device=device, dtype=torch.float64)
        for batch in batches:
            tokens, targets = (to_device(part, device) for part in batch)
            streams = two_streams(self._transformer, self._gates, tokens)
            ablated_loss = self._transformer.loss_of(streams.ablated, tokens, targets)
            sums += torch.stack([ablated_loss, streams.reconstruction])
        ablated, reconstruction = (sums / len(batches)).tolist()
        return {"val_loss_ablated": ablated, "val_loss_reconstruction": reconstruction}
