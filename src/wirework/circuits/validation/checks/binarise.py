"""Binarisation: the task loss if each node of a circuit can take only two values.

Shapes: n kept nodes of all sites, k of one site, P pairs (two prompts each).
Source: Gao et al. 2025, App. C.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.masking.masked_circuit import (
    MaskedCircuit,
    finite,
    passes,
)
from wirework.circuits.masking.masks import without_weight_gradients
from wirework.circuits.validation.checks.binary_thresholds import (
    BinaryValues,
    best_start,
    binarisation,
    binarising_edits,
)
from wirework.errors import InputError
from wirework.nn import Edit
from wirework.summaries import Report
from wirework.tasks import TokenizedPairs, pair_losses
from wirework.tasks.task_loss import reduced

_START_PAIRS = 32
"""Training pairs on which the initial values are compared: three passes per node."""

_CLIP = 1.0
"""Norm that a gradient is cut to: where an activation lies near a threshold that is almost a step,
it is hundreds of times that of other batches."""


@dataclass(frozen=True, repr=False)
class Binarised(Report):
    """Task losses in nats, on held-out pairs unless said otherwise."""

    circuit: float
    """The circuit without binarisation."""
    start: float
    """All nodes binarised, before training."""
    loss: float
    """All nodes binarised, after training."""
    train_loss: float
    """The same on the pairs that the two values of each node were trained on."""
    n_pairs: int
    """Held-out pairs."""
    n_train_pairs: int
    """Training pairs."""
    alone: tuple[float, ...]
    """Only one node binarised, before training; by site, then channel."""
    n_keep: int
    """How many of `alone` are at most `slack` above `circuit`."""


def binarise(
    masked_circuit: MaskedCircuit,
    train: TokenizedPairs,
    judge: TokenizedPairs,
    *,
    steps: int = 800,
    lr: float | Sequence[float] = (0.05, 0.02, 0.1, 0.03, 0.01),
    batch_pairs: int = 32,
    slack: float = 0.01,
    enough: float = 0.01,
    seed: int = 0,
) -> Binarised:
    """Replace every node of the circuit by a step function of two values and report the task loss.

    Initially each node has the best of three pairs of values (`best_start`). Then Adam trains both
    values of all nodes jointly on the task loss, in units of their distance, while the nodes turn
    from the identity into the step between their values: they are psi_t (`binarisation`) with
    t = (1 - progress)^5. One training can end with a node whose two values no longer separate what
    the task needs, from which no gradient leads back, so there is one for each learning rate, until
    one reaches `enough` on the training pairs. Of these and the initial values, those with the
    lowest loss on the training pairs are kept. Trained values may do better than the circuit
    itself: a low loss says that two values a node suffice, not that the nodes have only two.

    Args:
        masked_circuit: the circuit.
        train: pairs on which initial values are chosen and trained.
        judge: other pairs, on which losses are measured.
        steps: Adam steps; 0 for the initial values.
        lr: learning rates of Adam, one for each training, relative to the distance of a node's two
            initial values; each falls linearly to 0.
        batch_pairs: pairs per step.
        slack: tolerance in nats for a node binarised alone.
        enough: loss in nats on the training pairs after which no further training is tried.
        seed: seed of the batches of the first training; later ones count up from it.

    Raises:
        InputError: the circuit has no node, or a loss is no number.

    Source: Gao et al. 2025, App. C.
    """
    if not masked_circuit.kept:
        raise InputError("an empty circuit has no node to binarise")
    start = best_start(masked_circuit, train.select(torch.arange(train.n_pairs)[:_START_PAIRS]))
    rates = (lr,) if isinstance(lr, float | int) else tuple(lr)
    train_loss, trained = binarised_loss(masked_circuit, train, start), start
    for number, rate in enumerate(rates):
        values = _train(masked_circuit, train, start, steps, rate, batch_pairs, seed + number)
        loss = binarised_loss(masked_circuit, train, values)
        if loss < train_loss:
            train_loss, trained = loss, values
        if train_loss <= enough:
            break
    circuit_loss = masked_circuit.loss(judge)
    alone = losses_alone(masked_circuit, judge, start)
    return Binarised(
        circuit=circuit_loss,
        start=binarised_loss(masked_circuit, judge, start),
        loss=binarised_loss(masked_circuit, judge, trained),
        train_loss=train_loss,
        n_pairs=judge.n_pairs,
        n_train_pairs=train.n_pairs,
        alone=tuple(alone),
        n_keep=sum(loss <= circuit_loss + slack for loss in alone),
    )


@torch.no_grad()
def losses_alone(
    masked_circuit: MaskedCircuit, batch: TokenizedPairs, values: BinaryValues
) -> list[float]:
    """Return for each kept node the task loss in nats when it alone is binarised.

    Raises:
        InputError: a loss is no number.
    """
    run, kept = masked_circuit.runner(), masked_circuit.kept
    nodes = [(name, number) for name, channels in kept.items() for number in range(len(channels))]
    edits = [
        {name: _edit_of_one(number, *of_node)}
        for (name, number), of_node in zip(
            nodes, torch.stack([values.low, values.high], 1), strict=True
        )
    ]
    sums = torch.zeros(len(nodes), dtype=torch.float64, device=masked_circuit.device)
    for _, part in passes(batch):
        for first, edit in enumerate(edits):
            sums[first] += pair_losses(run(part, edit).double()).sum()
    losses = reduced(sums / len(batch.last_positions), masked_circuit.loss_reduction)
    return [finite(loss, "a task loss") for loss in losses.tolist()]


@torch.no_grad()
def binarised_loss(
    masked_circuit: MaskedCircuit, batch: TokenizedPairs, values: BinaryValues
) -> float:
    """Return the task loss in nats with all kept nodes binarised.

    Raises:
        InputError: it is no number.
    """
    run, edits = masked_circuit.runner(), binarising_edits(masked_circuit.kept, values, 0.0)
    return masked_circuit.loss_of(torch.cat([run(part, edits) for _, part in passes(batch)]))


def _train(
    masked_circuit: MaskedCircuit,
    batch: TokenizedPairs,
    start: BinaryValues,
    steps: int,
    lr: float,
    batch_pairs: int,
    seed: int,
) -> BinaryValues:
    """Train the two values of each node at one learning rate; arguments as in `binarise`."""
    generator = torch.Generator().manual_seed(seed)
    unit = start.high - start.low
    shifts = torch.zeros(2, len(unit), dtype=unit.dtype, device=unit.device, requires_grad=True)
    adam = torch.optim.Adam([shifts], lr)

    def values() -> BinaryValues:
        return BinaryValues(start.low + shifts[0] * unit, start.high + shifts[1] * unit)

    run = masked_circuit.runner()
    with without_weight_gradients(masked_circuit.transformer), torch.enable_grad():
        for step in range(steps):
            part = batch.select(torch.randperm(batch.n_pairs, generator=generator)[:batch_pairs])
            edits = binarising_edits(masked_circuit.kept, values(), (1 - step / steps) ** 5)
            loss = pair_losses(run(part, edits)).mean()
            finite(loss.item(), f"the loss at step {step} of binarisation")
            if not loss.requires_grad:  # no node of the circuit reaches the answers
                return start
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_([shifts], _CLIP)
            adam.param_groups[0]["lr"] = lr * (1 - step / steps)
            adam.step()
    with torch.no_grad():
        return values()


def _edit_of_one(number: int, low: Tensor, high: Tensor) -> Edit:
    """Return the edit that binarises one of the kept nodes of a site, for (..., k)."""

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., number] = binarisation(x[..., number], low, high, 0.0)
        return x

    return edit
