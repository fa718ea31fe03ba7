"""A prior: what makes a model readable, as a plug-in of the training loop.

Its moments: it prepares the model, makes the loss, acts after a step, and adds to an evaluation. A
prior keeps no state of its own that training depends on: what it learns are parameters that it
names, what it draws comes from torch's generators, so that a checkpoint of those two is whole.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from wirework.data import Batch
from wirework.nn import Transformer
from wirework.nn.gates import Gates

Losses = dict[str, Tensor]
"""Scalars by name: `loss`, the next-token loss in nats, `total`, what is differentiated, and what
priors add for the log."""


class Prior:
    """A plug-in of the training loop; this base class changes nothing."""

    gates: Gates | None = None
    """Gates to save beside the model; None: it has none."""

    def wrap_model(self, transformer: Transformer) -> Transformer:
        """Prepare the model, once, on its device and before the optimizer is made.

        Returns:
            What is trained from now on: the same, with parameters or edits added, or a new one.
        """
        return transformer

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return what is trained besides the transformer, by names of its own."""
        return {}

    def loss(
        self,
        clean: Callable[[], Losses],
        tokens: Tensor,  # noqa: ARG002
        targets: Tensor,  # noqa: ARG002
    ) -> Losses:
        """Return the losses of a step.

        Args:
            clean: computes them as the prior before left them; what passes at sites meanwhile can
                be recorded. To be called once.
            tokens: (B, T) int64 of this step.
            targets: (B, T) int64 of this step.
        """
        return clean()

    def learning_rate_factor(self, step: int) -> float:  # noqa: ARG002
        """Return the factor on the learning rate of step `step` (from 0)."""
        return 1.0

    def is_settled(self, step: int) -> bool:  # noqa: ARG002
        """Say whether the constraint is at its final strength after step `step` (from 0).

        Evaluations before that do not count for the best checkpoint: a denser model's lower loss
        says nothing about the model at the end.
        """
        return True

    def after_step(self, step: int) -> dict[str, float]:  # noqa: ARG002
        """Act after the optimizer's update of step `step` (from 0); return numbers for the log."""
        return {}

    def evaluate(
        self,
        batches: Sequence[Batch],  # noqa: ARG002
        device: torch.device,  # noqa: ARG002
    ) -> dict[str, float]:
        """Return numbers of its own on held-out batches."""
        return {}


def losses_of(
    transformer: Transformer, priors: Sequence[Prior], tokens: Tensor, targets: Tensor
) -> Losses:
    """Return the losses of a step, each prior acting on those of the one before."""

    def plain() -> Losses:
        loss = transformer.loss(tokens, targets)
        return {"loss": loss, "total": loss}

    compute = plain
    for prior in priors:
        compute = partial(prior.loss, compute, tokens, targets)
    return compute()
