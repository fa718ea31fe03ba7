"""Priors: plug-ins of the training loop that make a model readable.

A prior can prepare the model, train parameters of its own, change the loss and the learning rate,
act after each step, and add numbers to an evaluation. It has no other state that training depends
on: learned values are parameters returned by `parameters`, and random numbers come from torch's
generators. A checkpoint, which holds both, is then complete.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from wirework.data import Batch
from wirework.model import Model
from wirework.nn import Transformer
from wirework.nn.gates import Gates
from wirework.renamed_names import old_names
from wirework.training.live_gradient import LiveGradient

StepLosses = dict[str, Tensor]
"""Scalars by name: `loss`, the next-token loss in nats; `total`, the loss that is differentiated;
and numbers of priors for the log."""


class Prior:
    """Base class of priors; each of its methods changes nothing."""

    gates: Gates | None = None
    """Gates to save with the model, or None."""
    live: LiveGradient | None = None
    """Matrices of which only live weights are trained, or None."""
    own_lr: float | None = None
    """Peak learning rate of the prior's parameters, which are then trained apart from the model:
    Adam with its usual eps, no weight decay, their gradients not scaled; `learning_rate_factor`
    does not act on them. None: as the model's."""

    nan_flag: Tensor | None = None
    """Bool scalar on the model's device: whether the last `after_step` met a NaN. The loop reads it
    with the losses of the next step, and before an evaluation or a checkpoint, so that the host
    need not wait for the device. None if `after_step` raises `ValueError` itself."""

    def wrap_model(self, transformer: Transformer) -> Transformer:
        """Prepare the model. Called once, before the optimizer is created.

        Args:
            transformer: the model on its device.

        Returns:
            The transformer to train: the same one, possibly with parameters or edits added, or a
            new one.
        """
        return transformer

    def prepare(self, transformer: Transformer, optimizer: torch.optim.Optimizer) -> None:
        """Prepare the training. Called once, after the optimizer was created.

        Args:
            transformer: the model, wrapped by all priors.
            optimizer: the optimizer of its parameters.
        """

    def before_first_step(self) -> None:
        """Act before the first step of a run. A resumed run has its checkpoint instead."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that the prior trains in addition to the transformer, by name."""
        return {}

    def loss(
        self,
        clean: Callable[[], StepLosses],
        tokens: Tensor,  # noqa: ARG002
        targets: Tensor,  # noqa: ARG002
    ) -> StepLosses:
        """Return the losses of a step.

        Args:
            clean: computes the losses of the prior before this one. Call it once; site values can
                be recorded during the call.
            tokens: (B, T) int64 batch of this step.
            targets: (B, T) int64 next tokens.

        Returns:
            Losses by name; `total` is differentiated.
        """
        return clean()

    def learning_rate_factor(self, step: int) -> float:  # noqa: ARG002
        """Return the factor of the learning rate at step `step` (from 0)."""
        return 1.0

    def is_settled(self, step: int) -> bool:  # noqa: ARG002
        """Return whether the constraint has its final strength after step `step` (from 0).

        Earlier evaluations do not count for the best checkpoint, since the lower loss of a denser
        model says nothing about the final model.
        """
        return True

    def after_step(self, step: int) -> dict[str, float]:  # noqa: ARG002
        """Act after the optimizer's update at step `step` (from 0); return numbers for the log."""
        return {}

    def final_weights(self) -> AbstractContextManager[None]:
        """Give the model, inside a `with` block, the weights that it would be saved with now.

        Every evaluation runs inside it. The base class changes nothing.
        """
        return nullcontext()

    def finish(self) -> None:
        """Give the model its final weights. Called once, after the last checkpoint."""

    def save_beside(self, folder: Path, model: Model) -> None:
        """Write what the prior trained beside the model. Called once, after the model is saved.

        Args:
            folder: folder of the run.
            model: the trained model, on the CPU, as it was saved.
        """

    def evaluate(
        self,
        batches: Sequence[Batch],  # noqa: ARG002
        device: torch.device,  # noqa: ARG002
    ) -> dict[str, float]:
        """Return numbers of the prior, by name.

        Args:
            batches: held-out tokens and targets, (B, T) each.
            device: device of the model.
        """
        return {}


def losses_of(
    transformer: Transformer, priors: Sequence[Prior], tokens: Tensor, targets: Tensor
) -> StepLosses:
    """Return the losses of a step; each prior changes the losses of the one before it."""

    def plain() -> StepLosses:
        loss = transformer.loss(tokens, targets)
        return {"loss": loss, "total": loss}

    compute = plain
    for prior in priors:
        compute = partial(prior.loss, compute, tokens, targets)
    return compute()


__getattr__ = old_names(__name__, Losses="StepLosses")
