"""Binarisation: the task loss if each node of a circuit can take only two values.

Shapes: n kept nodes of all sites, k of one site, P pairs (two prompts each).
Source: Gao et al. 2025, App. C.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import without_weight_gradients
from wirework.circuits.validation.checks.binary_thresholds import BinaryThresholds, best_start
from wirework.circuits.validation.checks.masked_circuit import (
    MaskedCircuit,
    finite,
    passes,
)
from wirework.errors import InputError
from wirework.nn import Edit
from wirework.summaries import Report
from wirework.tasks import TokenizedPairs, pair_losses
from wirework.tasks.task_loss import reduced


@dataclass(frozen=True, repr=False)
class Binarised(Report):
    """Task losses in nats."""

    circuit: float
    """The circuit without binarisation."""
    start: float
    """All nodes binarised, before training."""
    loss: float
    """All nodes binarised, after training."""
    alone: tuple[float, ...]
    """Only one node binarised, before training; by site, then channel."""
    n_keep: int
    """How many of `alone` are at most `slack` above `circuit`."""


def binarise(
    masked_circuit: MaskedCircuit,
    train: TokenizedPairs,
    judge: TokenizedPairs,
    *,
    steps: int = 150,
    lr: float = 0.1,
    batch_pairs: int = 16,
    slack: float = 0.01,
    seed: int = 0,
) -> Binarised:
    """Replace every node of the circuit by a step function of two values and report the task loss.

    Initially each node uses the threshold at 1/4, 1/2 or 3/4 of its range over the prompt tokens
    with the least squared error, and the means below and above it as its two values. Then Adam
    trains both values of all nodes jointly on the task loss, in units of their distance, with fixed
    thresholds. During training a node is x -> t x + (1 - t) step(x), with t = (1 - progress)^5.
    Trained values may do better than the circuit itself, so the result means something only if a
    control circuit fails after the same training.

    Args:
        masked_circuit: the circuit.
        train: pairs to train on.
        judge: other pairs, on which losses are measured.
        steps: Adam steps; 0 for the initial values.
        lr: learning rate of Adam, relative to the distance of a node's two values.
        batch_pairs: pairs per step.
        slack: tolerance in nats for a node binarised alone.
        seed: seed of the batches.

    Raises:
        InputError: the circuit has no node, or a loss is no number.

    Source: Gao et al. 2025, App. C.
    """
    if not masked_circuit.kept:
        raise InputError("an empty circuit has no node to binarise")
    start = best_start(masked_circuit, train)
    trained = _train(masked_circuit, train, start, steps, lr, batch_pairs, seed)
    circuit_loss = masked_circuit.loss(judge)
    alone = losses_alone(masked_circuit, judge, start)
    return Binarised(
        circuit=circuit_loss,
        start=_loss(masked_circuit, judge, start),
        loss=_loss(masked_circuit, judge, trained),
        alone=tuple(alone),
        n_keep=sum(loss <= circuit_loss + slack for loss in alone),
    )


@torch.no_grad()
def losses_alone(
    masked_circuit: MaskedCircuit, batch: TokenizedPairs, thresholds: BinaryThresholds
) -> list[float]:
    """Return for each kept node the task loss in nats when it alone is binarised.

    Raises:
        InputError: a loss is no number.
    """
    run, kept = masked_circuit.runner(), masked_circuit.kept
    nodes = [(name, number) for name, channels in kept.items() for number in range(len(channels))]
    levels = torch.stack([thresholds.threshold, thresholds.low, thresholds.high], 1)
    edits = [
        {name: _step_of_one(number, *of_node)}
        for (name, number), of_node in zip(nodes, levels, strict=True)
    ]
    sums = torch.zeros(len(nodes), dtype=torch.float64, device=masked_circuit.device)
    for _, part in passes(batch):
        for first, edit in enumerate(edits):
            sums[first] += pair_losses(run(part, edit).double()).sum()
    losses = reduced(sums / len(batch.last_positions), masked_circuit.loss_reduction)
    return [finite(loss, "a task loss") for loss in losses.tolist()]


def _train(
    masked_circuit: MaskedCircuit,
    batch: TokenizedPairs,
    start: BinaryThresholds,
    steps: int,
    lr: float,
    batch_pairs: int,
    seed: int,
) -> BinaryThresholds:
    """Train the two values of each node; arguments as in `binarise`."""
    generator = torch.Generator().manual_seed(seed)
    unit = start.high - start.low
    shifts = torch.zeros(2, len(unit), dtype=unit.dtype, device=unit.device, requires_grad=True)
    adam = torch.optim.Adam([shifts], lr)

    def thresholds() -> BinaryThresholds:
        return BinaryThresholds(
            start.threshold, start.low + shifts[0] * unit, start.high + shifts[1] * unit
        )

    run = masked_circuit.runner()
    with without_weight_gradients(masked_circuit.transformer), torch.enable_grad():
        for step in range(steps):
            part = batch.select(torch.randperm(batch.n_pairs, generator=generator)[:batch_pairs])
            edits = _edits(masked_circuit.kept, thresholds(), (1 - step / steps) ** 5)
            loss = pair_losses(run(part, edits)).mean()
            finite(loss.item(), f"the loss at step {step} of binarisation")
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
    with torch.no_grad():
        return thresholds()


@torch.no_grad()
def _loss(
    masked_circuit: MaskedCircuit, batch: TokenizedPairs, thresholds: BinaryThresholds
) -> float:
    run, edits = masked_circuit.runner(), _edits(masked_circuit.kept, thresholds, 0.0)
    return masked_circuit.loss_of(torch.cat([run(part, edits) for _, part in passes(batch)]))


def _edits(kept: Mapping[str, Tensor], thresholds: BinaryThresholds, t: float) -> dict[str, Edit]:
    """Return edits x -> t x + (1 - t) step(x) of every kept node, for (..., k) at each site."""

    def blend(threshold: Tensor, low: Tensor, high: Tensor) -> Edit:
        def edit(x: Tensor) -> Tensor:
            return torch.lerp(torch.where(x > threshold, high, low).to(x.dtype), x, t)

        return edit

    sizes = [len(channels) for channels in kept.values()]
    parts = (
        torch.split(values, sizes)
        for values in (thresholds.threshold, thresholds.low, thresholds.high)
    )
    return {name: blend(*three) for name, *three in zip(kept, *parts, strict=True)}


def _step_of_one(number: int, threshold: Tensor, low: Tensor, high: Tensor) -> Edit:
    """Return the edit that binarises one of the kept nodes of a site, for (..., k)."""

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        x[..., number] = torch.where(x[..., number] > threshold, high, low).to(x.dtype)
        return x

    return edit
