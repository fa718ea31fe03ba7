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

_TOKENS = 6144
"""Tokens of all copies of a batch in one pass, as for masks."""


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
    """Train the two values of each node; arguments as in `binarise`."""
    generator = torch.Generator().manual_seed(seed)
    unit = start.high - start.low
    shifts = torch.zeros(2, len(unit), dtype=unit.dtype, device=unit.device, requires_grad=True)
    adam = torch.optim.Adam([shifts], lr)

    def thresholds() -> BinaryThresholds:
        return BinaryThresholds(
            start.threshold, start.low + shifts[0] * unit, start.high + shifts[1] * unit
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
            current = x[..., channels]
            stepped = torch.where(current > threshold, high, low).to(x.dtype)
            return x.index_copy(-1, channels, torch.lerp(stepped, current, t))

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
    """Return the logit differences with only one node binarised, for R nodes in one pass.

    Args:
        masked_circuit: the circuit.
        part: prompts that fit R times in one pass.
        nodes: R of the kept nodes, (site, channel) each.
        thresholds: thresholds and values of all kept nodes.
        first: index of the first of `nodes` among all kept nodes.

    Returns:
        (R, prompts); row r with only node r binarised.
    """
    copies_of_site: dict[str, list[int]] = {}
    for copy, (name, _) in enumerate(nodes):
        copies_of_site.setdefault(name, []).append(copy)

    def step_edit(copies: list[int]) -> Edit:
        channels = [nodes[copy][1] for copy in copies]
        threshold, low, high = (
            values[[first + copy for copy in copies], None, None]
            for values in (thresholds.threshold, thresholds.low, thresholds.high)
        )

        def edit(x: Tensor) -> Tensor:
            by_copy = x.clone().view(len(nodes), -1, *x.shape[1:])  # (R, B, T, N)
            current = by_copy[copies, :, :, channels]
            by_copy[copies, :, :, channels] = torch.where(current > threshold, high, low).to(
                x.dtype
            )
            return by_copy.flatten(0, 1)

        return edit

    edits = {name: step_edit(copies) for name, copies in copies_of_site.items()}
    with masked_circuit.on(), masked_circuit.transformer.edited(edits):
        logits = masked_circuit.transformer(
            part.tokens.repeat(len(nodes), 1), part.last_positions.repeat(len(nodes))
        )
    return logit_difference(logits, part.answers.repeat(len(nodes), 1)).view(len(nodes), -1)
