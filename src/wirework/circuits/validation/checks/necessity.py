"""Necessity as a curve: the task loss while the nodes of a circuit are ablated one after the other.

Shapes: N nodes of all sites, n of them in the circuit, R masks, P pairs (two prompts each).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.masked_circuit import Gated, finite
from wirework.errors import InputError
from wirework.summaries import Report
from wirework.tasks import TokenizedPairs

_POINTS = 32
"""Most numbers of ablated nodes that are measured."""
_DRAWS = 4
"""Random orders of nodes outside the circuit."""
_MASKS = 32
"""Masks per call."""


@dataclass(frozen=True, repr=False)
class Necessity(Report):
    """Task losses in nats of the model without the first nodes of the circuit (Fig. 32)."""

    order: str
    """Order in which the circuit's nodes are ablated."""
    n_pairs: int
    """Pairs measured on."""
    n_draws: int
    """Random orders of the nodes outside the circuit that ablation changes."""
    n_ablated: tuple[int, ...]
    """Numbers of ablated nodes, from 0 to all of the circuit."""
    circuit: tuple[float, ...]
    """Loss without so many nodes of the circuit, everything else as in the model."""
    random: tuple[float | None, ...]
    """Loss without as many random nodes outside the circuit that ablation changes, mean over
    draws; None where there are fewer such nodes."""
    random_highest: tuple[float | None, ...]
    """The same, highest over draws."""


def counts_of(n_nodes: int, most: int = _POINTS) -> list[int]:
    """Return at most `most` numbers from 0 to n_nodes, both included, evenly spread.

    Args:
        n_nodes: the last number.
        most: at least 2.
    """
    n_steps = min(n_nodes, most - 1)
    return [round(step * n_nodes / n_steps) for step in range(n_steps + 1)] if n_steps else [0]


def without_first(order: Tensor, counts: Sequence[int], size: int) -> Tensor:
    """Return masks (R, N) float32 that ablate the first nodes of an order and keep all others.

    Args:
        order: (n,) int64, nodes from the first to ablate to the last.
        counts: R numbers of nodes to ablate, at most n each.
        size: N.
    """
    masks = torch.ones(len(counts), size, device=order.device)
    for mask, count in zip(masks, counts, strict=True):
        mask[order[:count]] = 0
    return masks


@torch.no_grad()
def changed_by_ablation(ablation: Ablation, batch: TokenizedPairs) -> Tensor:
    """Return (N,) bool: whether mean ablation changes a node at some token of the prompts.

    A difference within rounding is none.
    """
    transformer = ablation.transformer
    with transformer.recorded(list(ablation.space.widths)) as values:
        transformer.state(batch.tokens)
    positions = torch.arange(batch.tokens.shape[1], device=batch.tokens.device)
    in_prompt = positions <= batch.last_positions[:, None]  # (prompts, T); padding follows
    changed = {
        site: ~torch.isclose(value[in_prompt], ablation.means[site], rtol=1e-4, atol=1e-7)
        for site, value in values.items()
    }
    return ablation.space.join({site: is_changed.any(0) for site, is_changed in changed.items()})


def necessity(
    ablation: Gated,
    nodes: Tensor,
    importance: Tensor,
    changed: Tensor,
    batch: TokenizedPairs,
    *,
    order: str,
    seed: int = 0,
) -> Necessity:
    """Measure the model's task loss without the first nodes of a circuit, the rest left alone.

    Args:
        ablation: the model with a mask over its nodes.
        nodes: (n,) int64, the circuit's nodes.
        importance: (n,) higher is ablated earlier; ties in node order.
        changed: (N,) bool, whether ablation changes a node on these pairs. Random nodes are drawn
            from these: a node that always has its ablation value has no effect.
        batch: tokenised pairs of a task.
        order: what the importance is, for the report.
        seed: seed of the random nodes.

    Raises:
        InputError: the circuit is empty, or a loss is no number.

    Source: Gao et al. 2025, sec. 2.2, Fig. 32.
    """
    if not len(nodes):
        raise InputError("an empty circuit has no node to ablate")
    counts = counts_of(len(nodes))
    ranked = nodes[importance.sort(descending=True, stable=True).indices.to(nodes.device)]
    generator = torch.Generator().manual_seed(seed)
    size, is_outside = len(changed), changed.cpu().clone()
    is_outside[nodes.cpu()] = False
    outside = is_outside.nonzero().flatten()
    possible = [count for count in counts if count <= len(outside)]
    draws = []
    for _ in range(_DRAWS):
        drawn = outside[torch.randperm(len(outside), generator=generator)].to(nodes.device)
        draws.append(_losses(ablation, without_first(drawn, possible, size), batch))
    missing = (None,) * (len(counts) - len(possible))
    by_count = list(zip(*draws, strict=True))
    return Necessity(
        order=order,
        n_pairs=batch.n_pairs,
        n_draws=_DRAWS,
        n_ablated=tuple(counts),
        circuit=tuple(_losses(ablation, without_first(ranked, counts, size), batch)),
        random=(*(sum(losses) / _DRAWS for losses in by_count), *missing),
        random_highest=(*(max(losses) for losses in by_count), *missing),
    )


def _losses(ablation: Gated, masks: Tensor, batch: TokenizedPairs) -> list[float]:
    parts = [ablation.losses(part, batch) for part in torch.split(masks, _MASKS)]
    return [finite(loss, "a task loss") for loss in torch.cat(parts).tolist()]
