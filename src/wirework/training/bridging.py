"""Bridges: a model trains beside a frozen dense one, with maps between their residual streams.

At each residual location an encoder maps the dense model's stream to the model's, and a decoder
maps back. Both models also run on from the mapped streams, and their predictions are compared with
those of the dense model. The streams come from the clean passes, so that no layer is computed for a
second time before the location.
Source: Gao et al. 2025, sec. 2.3, App. A.3.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from wirework.config import BridgeConfig
from wirework.data import Batch
from wirework.model import Model
from wirework.nn import Transformer
from wirework.nn.bridges import Bridges
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.nn.residual_locations import location_names, record_streams, recorded_streams
from wirework.training.batch_evaluation import to_device
from wirework.training.bridge_files import save_bridges
from wirework.training.bridge_losses import kl_from, reconstruction_losses
from wirework.training.dense_model import check_same_layers, refuse_training_mode
from wirework.training.prior import Prior, StepLosses

NUMBERS = ("encoder_nmse", "decoder_nmse", "kl_dense_to_sparse", "kl_sparse_to_dense")
"""Names of the losses in `metrics.jsonl`: sums over the locations, before the coefficients."""


class Bridging(Prior):
    """The prior that trains bridges to a dense model.

    Args:
        config: coefficients and locations.
        dense: the dense model, in evaluation mode. Its weights are frozen.
        seed: seed of the initial weights of the bridges.

    Raises:
        InputError: the dense model is in training mode.

    Source: Gao et al. 2025, sec. 2.3, App. A.3.
    """

    def __init__(self, config: BridgeConfig, dense: Model, seed: int) -> None:
        refuse_training_mode(dense)
        self.config = config
        self.own_lr = config.lr
        self.dense = dense
        self.seed = seed

    def wrap_model(self, transformer: Transformer) -> Transformer:
        """Create the bridges and freeze the dense model, both on the device of the model.

        Raises:
            InputError: the models have different numbers of layers.
        """
        check_same_layers(self.dense, transformer.config, str(self.dense.path))
        self._fingerprint = self.dense.fingerprint
        self._transformer = transformer
        device = transformer.embed.weight.device
        self._dense = self.dense.to(device).transformer.requires_grad_(False)
        self._names = location_names(transformer.config.n_layer)
        self.bridges = Bridges(
            len(self._names),
            self._dense.config.d_model,
            transformer.config.d_model,
            self.config.act_fraction,
            self.seed,
        ).to(device)
        return transformer

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters of encoders and decoders."""
        return {f"bridges.{name}": weight for name, weight in self.bridges.named_parameters()}

    @unchanged_weights()
    def loss(self, clean: Callable[[], StepLosses], tokens: Tensor, targets: Tensor) -> StepLosses:  # noqa: ARG002
        """Add the losses of the bridges, each times its coefficient, to `total`.

        Where models go on from some of the locations only, these losses are scaled so that the
        expected losses are those of all locations.
        """
        with recorded_streams(self._transformer) as sparse:
            losses = clean()
        numbers, total = self._losses(self._drawn_locations(), sparse, tokens)
        return {**losses, **numbers, "total": losses["total"] + total}

    @torch.no_grad()
    @unchanged_weights()
    def evaluate(self, batches: Sequence[Batch], device: torch.device) -> dict[str, float]:
        """Return the losses with all locations as `val_encoder_nmse`, ...: means over batches."""
        sums = torch.zeros(len(NUMBERS), device=device, dtype=torch.float64)
        for batch in batches:
            tokens = to_device(batch[0], device)
            _, sparse = record_streams(self._transformer, tokens)
            numbers, _ = self._losses(range(len(self._names)), sparse, tokens)
            sums += torch.stack([numbers[name] for name in NUMBERS])
        means = (sums / len(batches)).tolist()
        return {f"val_{name}": mean for name, mean in zip(NUMBERS, means, strict=True)}

    def finish(self) -> None:
        """Make sure that the dense model is bitwise what it was."""
        assert self.dense.fingerprint == self._fingerprint, "the dense model changed"

    def save_beside(self, folder: Path, model: Model) -> None:
        """Write the bridges to `bridges` in the folder of the run."""
        save_bridges(folder / "bridges", self.bridges.cpu(), self.dense, model)

    def _drawn_locations(self) -> list[int]:
        """Return the locations of a step, ascending; they are drawn from torch's generator."""
        count = len(self._names)
        if self.config.locations == "all":
            return list(range(count))
        drawn: list[int] = torch.randperm(count)[: self.config.locations].tolist()
        return sorted(drawn)

    def _losses(
        self, locations: Sequence[int], sparse: Sequence[Tensor], tokens: Tensor
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses by name, before their coefficients, and their weighted sum.

        Args:
            locations: the locations from which the models go on.
            sparse: (B, T, d_sparse) stream of the trained model at every location.
            tokens: (B, T) int64.
        """
        with torch.no_grad():
            state, dense = record_streams(self._dense, tokens)
            log_probs = self._dense.logits_of(state, tokens).log_softmax(-1)
        encoder_nmse, decoder_nmse, encoded, decoded = reconstruction_losses(
            self.bridges, range(len(self._names)), dense, sparse
        )
        scale, config = len(self._names) / len(locations), self.config
        losses = {
            "encoder_nmse": (encoder_nmse, config.encoder_nmse_coef),
            "decoder_nmse": (decoder_nmse, config.decoder_nmse_coef),
        }
        total = torch.stack([loss * coef for loss, coef in losses.values()]).sum()
        numbers = {name: loss.detach() for name, (loss, _) in losses.items()}
        for name, model, every, coef in (
            ("kl_dense_to_sparse", self._transformer, encoded, config.dense_to_sparse_kl_coef),
            ("kl_sparse_to_dense", self._dense, decoded, config.sparse_to_dense_kl_coef),
        ):
            starts = {location: every[location] for location in locations}
            if coef:
                weighted = kl_from(model, starts, tokens, log_probs, scale * coef)
                total = total + weighted
                numbers[name] = weighted.detach() / coef
            elif not torch.is_grad_enabled():  # a step does without what its loss leaves out
                numbers[name] = kl_from(model, starts, tokens, log_probs, scale)
        return numbers, total
