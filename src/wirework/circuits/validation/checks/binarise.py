"""Binarisation: the task loss if each node of a circuit can take only two values.

Shapes: n kept nodes of all sites, k of one site, P pairs (two prompts each), R copies of a batch.
Source: Gao et al. 2025, App. C.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import without_weight_gradients
from wirework.circuits.validation.checks.binary_thresholds import BinaryThresholds, best_start
from wirework.circuits.validation.checks.masked_circuit import MaskedCircuit, finite, passes
from wirework.errors import InputError
from wirework.nn import Edit
from wirework.summaries import Report
from wirework.tasks import TokenizedPairs, logit_difference, pair_losses

_TOKENS = 6144  # of all copies in one pass, as for masks


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
    with the least squared error. The step is then blended in, x -> t x + (1 - t) step(x) with
    t = (1 - progress)^5, while Adam trains both values of all nodes jointly on the task loss, in
    units of their distance; thresholds are fixed.
    Trained values may do better than the circuit itself, so the result is meaningful only beside a
    control circuit that fails after the same training.

    Args:
        masked_circuit: the circuit.
        train: pairs to train on.
        judge: other pairs, on which losses are measured.
        steps: Adam steps; 0 for the initial values.
        lr: learning rate of Adam, relative to the distance of a node's two values.
        batch_pairs: pairs per step.
        slack: tolerance in nats for a node binarised alone.
        seed: of the batches.

    Raises:
        InputError: the circuit has no node, or a loss is no number.

    Source: Gao et al. 2025, App. C.
    """
    if not masked_circuit.kept:
        raise InputError("an empty circuit has no node to binarise")
    start = best_start(masked_circuit, train)
    trained = _train(masked_circuit, train, start, steps, lr, batch_pairs, seed)
    own = masked_circuit.loss(judge)
    alone = losses_alone(masked_circuit, judge, start)
    return Binarised(
        circuit=own,
        start=_loss(masked_circuit, judge, start),
        loss=_loss(masked_circuit, judge, trained),
        alone=tuple(alone),
        n_keep=sum(loss <= own + slack for loss in alone),
    )


@torch.no_grad()
def losses_alone(
    masked_circuit: MaskedCircuit, batch: TokenizedPairs, thresholds: BinaryThresholds
) -> list[float]:
    """Return for each kept node the task loss in nats when it alone is binarised.

    Raises:
        InputError: a loss is no number.
    """
    nodes = [(name, int(c)) for name, channels in masked_circuit.kept.items() for c in channels]
    sums = torch.zeros(len(nodes), dtype=torch.float64, device=masked_circuit.device)
    for _, part in passes(batch):
        copies = max(1, _TOKENS // part.tokens.numel())
        for first in range(0, len(nodes), copies):
            some = slice(first, min(first + copies, len(nodes)))
            logit_diffs = _logit_diffs_alone(masked_circuit, part, nodes[some], thresholds, first)
            sums[some] += pair_losses(logit_diffs.double()).sum(1)
    return [finite(loss, "a task loss") for loss in (sums / len(batch.last_positions)).tolist()]


def _train(
    masked_circuit: MaskedCircuit,
    batch: TokenizedPairs,
    start: BinaryThresholds,
    steps: int,
    lr: float,
    batch_pairs: int,
    seed: int,
) -> BinaryThresholds:
    generator = torch.Generator().manual_seed(seed)
    unit = start.high - start.low
    moves = torch.zeros(2, len(unit), dtype=unit.dtype, device=unit.device, requires_grad=True)
    adam = torch.optim.Adam([moves], lr)

    def thresholds() -> BinaryThresholds:
        return BinaryThresholds(
            start.threshold, start.low + moves[0] * unit, start.high + moves[1] * unit
        )

    with without_weight_gradients(masked_circuit.transformer), torch.enable_grad():
        for step in range(steps):
            part = batch.select(torch.randperm(batch.n_pairs, generator=generator)[:batch_pairs])
            edits = _edits(masked_circuit.kept, thresholds(), (1 - step / steps) ** 5)
            with masked_circuit.on(), masked_circuit.transformer.edited(edits):
                logits = masked_circuit.transformer(part.tokens, part.last_positions)
            loss = pair_losses(logit_difference(logits, part.answers)).mean()
            finite(loss.item(), f"the loss at step {step} of binarisation")
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
    with torch.no_grad():
        return thresholds()


def _loss(
    masked_circuit: MaskedCircuit, batch: TokenizedPairs, thresholds: BinaryThresholds
) -> float:
    return masked_circuit.loss(batch, _edits(masked_circuit.kept, thresholds, 0.0))


def _edits(kept: Mapping[str, Tensor], thresholds: BinaryThresholds, t: float) -> dict[str, Edit]:
    """Return edits x -> t x + (1 - t) step(x) of every kept node."""

    def blend(channels: Tensor, threshold: Tensor, low: Tensor, high: Tensor) -> Edit:
        def edit(x: Tensor) -> Tensor:
            now = x[..., channels]
            stepped = torch.where(now > threshold, high, low).to(x.dtype)
            return x.index_copy(-1, channels, torch.lerp(stepped, now, t))

        return edit

    sizes = [len(channels) for channels in kept.values()]
    parts = (
        torch.split(values, sizes)
        for values in (thresholds.threshold, thresholds.low, thresholds.high)
    )
    return {
        name: blend(channels, *three)
        for (name, channels), *three in zip(kept.items(), *parts, strict=True)
    }


def _logit_diffs_alone(
    masked_circuit: MaskedCircuit,
    part: TokenizedPairs,
    nodes: list[tuple[str, int]],
    thresholds: BinaryThresholds,
    first: int,
) -> Tensor:
    """Return (R, rows): the differences with only node r binarised, R copies in one pass.

    Args:
        masked_circuit: the circuit.
        part: rows that fit R times in one pass.
        nodes: R of the kept nodes.
        levels: of all kept nodes.
        first: the place of the first of `nodes` among all.
    """
    copies: dict[str, list[int]] = {}
    for copy, (name, _) in enumerate(nodes):
        copies.setdefault(name, []).append(copy)

    def stepping(which: list[int]) -> Edit:
        channels = [nodes[copy][1] for copy in which]
        threshold, low, high = (
            values[[first + copy for copy in which], None, None]
            for values in (thresholds.threshold, thresholds.low, thresholds.high)
        )

        def edit(x: Tensor) -> Tensor:
            parted = x.clone().view(len(nodes), -1, *x.shape[1:])  # (R, B, T, N)
            now = parted[which, :, :, channels]
            parted[which, :, :, channels] = torch.where(now > threshold, high, low).to(x.dtype)
            return parted.flatten(0, 1)

        return edit

    edits = {name: stepping(which) for name, which in copies.items()}
    with masked_circuit.on(), masked_circuit.transformer.edited(edits):
        logits = masked_circuit.transformer(
            part.tokens.repeat(len(nodes), 1), part.last_positions.repeat(len(nodes))
        )
    return logit_difference(logits, part.answers.repeat(len(nodes), 1)).view(len(nodes), -1)
