"""Search against an adversary: each circuit is attacked, and what breaks it joins the next search.

1. The first set of the adversary's values is that of the whole model, to first order.
2. A search finds a circuit that reaches the target with every set so far, and at the means. A mask
   that does is attacked by a few long steps, and refused if they break it.
3. Gradient ascent attacks the circuit on the judging pairs. If the loss exceeds the target, the
   values are a further set, and the search is made again.
4. If the rounds run out, the circuit is grown: the fewest nodes, its own first, then the best of
   the ranking, that withstand the attack.

Fixed sets are cheap but greedy removal overfits to them; the short attack adapts to each mask.
Nodes that a circuit keeps have values in a set too, to first order, since a later search may remove
them. Ours.
Shapes: G gates, N nodes of all sites, P pairs (two prompts each).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from wirework.circuit_format import AttackPart, EmbeddingPart
from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.ascent import (
    ascend,
    first_order_values,
    logit_diffs,
    losses_and_gradient,
)
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.masked_circuit import MaskedCircuit
from wirework.circuits.masking.masks import Masks
from wirework.circuits.masking.value_range import ValueRange
from wirework.circuits.pruning.discretise import best_nodes, ranking, smallest_count
from wirework.tasks import TokenizedPairs
from wirework.tasks.task_loss import largest_sum

_SHORT_ATTACK = (1.0, 0.5)
"""Steps of a short attack, as shares of a node's range."""
_QUICK_SHARE = 5
"""A quick attack has this fraction of the steps; a circuit that it breaks needs no longer one."""
_RANGES_MOVED = 1.5
"""Ranges that a value can move in an attack; the check of adversarial ablation has as many."""
_MOST_GROWN = 4
"""Times that a circuit is grown; after that it keeps all nodes."""


@dataclass(frozen=True)
class Found:
    """A circuit as a search leaves it."""

    edge_masks: EdgeMasks
    """Masks over its nodes and all edges between them, with the values that judge it."""
    gates: Tensor
    """(G,), 0 for removed edges."""
    score: Tensor
    """(G of the node masks,), the ranking that its nodes come from."""
    embedding_edges: EmbeddingPart | None = None
    """The kept embedding edges; None if none were pruned, as under adversarial ablation."""


@dataclass(frozen=True)
class Attack:
    """Result of an attack on one circuit."""

    loss: float
    """Highest task loss that was met, in nats; each prompt has its own worst values."""
    values: Tensor
    """(2P, N) values that give it; those of kept nodes would raise it if they were removed."""


def with_first_adversary(ablation: Ablation, batch: TokenizedPairs) -> Ablation:
    """Return the masks with the adversary's values for the whole model, and short attacks."""
    assert ablation.value_range is not None
    everything = torch.ones(ablation.space.size, device=ablation.device)
    masked_circuit = MaskedCircuit.of(ablation.untied().with_mean_ablation(), everything)
    means = ablation.space.join(ablation.means).expand(len(batch.last_positions), -1)
    values = first_order_values(masked_circuit, batch, ablation.value_range, means)
    return replace(ablation.with_adversary(values), adversary=partial(breaks, ablation.value_range))


def breaks(
    bounds: ValueRange, masks: Masks, gates: Tensor, batch: TokenizedPairs, target: float
) -> bool:
    """Return whether a few long steps of each prompt's values raise a loss above a target.

    The first step goes from the means to the ends of the ranges that the gradient points to.

    Args:
        bounds: range of each node.
        masks: the model with its gates.
        gates: (G,), one mask.
        batch: tokenised pairs.
        target: nats.
    """
    masked_circuit, means = _masked_circuit(masks, gates)
    values = means.expand(len(batch.last_positions), -1)
    limit = largest_sum(target, len(values), masks.loss_reduction)
    highest = values.new_full((len(values),), -torch.inf, dtype=torch.float64)
    for length in (*_SHORT_ATTACK, 0.0):
        losses, gradient = losses_and_gradient(masked_circuit, batch, values)
        highest = highest.maximum(losses)
        if float(highest.sum()) > limit:
            return True
        moved = values + length * (bounds.high - bounds.low) * gradient.sign()
        values = moved.clamp(bounds.low, bounds.high)
    return False


def _masked_circuit(masks: Masks, gates: Tensor) -> tuple[MaskedCircuit, Tensor]:
    """Return the circuit of one mask with mean ablation, and the means (N,)."""
    if isinstance(masks, EdgeMasks):
        ablation = masks.ablation.with_mean_ablation()
        circuit = MaskedCircuit.of_edges(replace(masks, ablation=ablation), gates)
    else:
        assert isinstance(masks, Ablation)
        ablation = replace(masks.untied().with_mean_ablation(), excluded=None)
        circuit = MaskedCircuit.of(ablation, masks.nodes(gates))
    return circuit, ablation.space.join(ablation.means)


def attack(
    edge_masks: EdgeMasks, gates: Tensor, batch: TokenizedPairs, bounds: ValueRange, steps: int
) -> Attack:
    """Return the values of highest task loss that gradient ascent meets for each prompt.

    One ascent starts at the means, one at the ends of the ranges that the gradient there points to.
    A short attack takes longer steps.

    Args:
        edge_masks: masks over the circuit's nodes and edges, with the means of removed edges.
        gates: (G,) the circuit.
        batch: P tokenised pairs.
        bounds: range of each node.
        steps: steps of each ascent.
    """
    masked_circuit, at_means = _masked_circuit(edge_masks, gates)
    means = at_means.expand(len(batch.last_positions), -1)
    ends = first_order_values(masked_circuit, batch, bounds, means)
    first_step = 2 * _RANGES_MOVED / max(1, steps)
    worst = ascend(masked_circuit, batch, bounds, [means, ends], steps, first_step)
    removed = masked_circuit.gates.to(worst.device) == 0
    ends = first_order_values(masked_circuit, batch, bounds, worst)
    return Attack(
        loss=masked_circuit.loss_of(logit_diffs(masked_circuit, batch, worst)),
        values=torch.where(removed, worst, ends),
    )


@dataclass(frozen=True)
class AdversarialSearch:
    """Searches for a circuit that withstands an attack on the judging pairs."""

    search: Callable[[Ablation], Found]
    """Searches with the adversary's values in the masks that it gets."""
    grown_circuit: Callable[[Tensor], tuple[EdgeMasks, Tensor]]
    """Returns masks and gates of the circuit of some nodes (N,), with all edges between them."""
    batch: TokenizedPairs
    """The judging pairs."""
    target: float
    """Task loss in nats, plus what rounding may add."""
    rounds: int
    steps: int

    def run(self, ablation: Ablation) -> tuple[Found, AttackPart]:
        """Search until a circuit withstands the attack, or grow the last one until it does.

        If the model with all nodes misses the target, there is one search and nothing is grown.
        """
        everything = self.grown_circuit(torch.ones(ablation.space.size, device=ablation.device))
        is_feasible = everything[0].within(everything[1], self.batch, self.target)
        rounds, n_grown = self.rounds if is_feasible else 1, 0
        found = self.search(ablation)
        result = self._attacked(ablation, found)
        while result.loss > self.target and len(ablation.adversaries) < rounds:
            ablation = ablation.with_adversary(result.values)
            found = self.search(ablation)
            result = self._attacked(ablation, found)
        if result.loss > self.target and is_feasible:
            before = found.edge_masks.n_nodes
            found, result = self._grown(ablation, found)
            n_grown = found.edge_masks.n_nodes - before
        return found, AttackPart(
            rounds=len(ablation.adversaries),
            steps=self.steps,
            loss=result.loss,
            grown_nodes=n_grown,
        )

    def _attacked(self, ablation: Ablation, found: Found) -> Attack:
        """Attack a circuit, first quickly; the first attack that breaks it counts."""
        assert ablation.value_range is not None
        for steps in (max(1, self.steps // _QUICK_SHARE), self.steps):
            result = attack(found.edge_masks, found.gates, self.batch, ablation.value_range, steps)
            if result.loss > self.target:
                break
        return result

    def _grown(self, ablation: Ablation, found: Found) -> tuple[Found, Attack]:
        """Add the fewest nodes, best-ranked first, with which the circuit withstands the attack.

        The number is found by quick attacks; if the long one breaks the circuit, its nodes are the
        fewest of the next try.
        """
        assert ablation.value_range is not None
        bounds, space = ablation.value_range, ablation.space
        kept = found.edge_masks.mask(torch.ones_like(found.gates))
        rank = ranking(ablation.nodes(found.score)).to(kept.device)
        rank = ranking(len(rank) * kept - rank)
        fewest, quick = int(kept.sum()), max(1, self.steps // _QUICK_SHARE)

        def withstands(count: int) -> bool:
            if count <= fewest:
                return False
            circuit = self.grown_circuit(best_nodes(rank, [count])[0])
            return attack(*circuit, self.batch, bounds, quick).loss <= self.target

        for _ in range(_MOST_GROWN):
            fewest = smallest_count(withstands, space.size, min(space.size, 2 * fewest + 1))
            grown = Found(*self.grown_circuit(best_nodes(rank, [fewest])[0]), found.score)
            result = self._attacked(ablation, grown)
            if result.loss <= self.target:
                return grown, result
        grown = Found(*self.grown_circuit(torch.ones_like(kept)), found.score)
        return grown, self._attacked(ablation, grown)
