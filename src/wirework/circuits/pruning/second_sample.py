"""Edges pruned so that a circuit meets the target on the second sample of text too.

Greedy removal goes right up to its target and so overfits to the ablation values that it uses. If a
circuit then misses the target with those of the second sample, its edges are pruned again with a
target lowered by 1.5 times the excess loss. This step is ours, not the paper's.
Shapes: G gates.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from wirework.circuit_format import EmbeddingPart
from wirework.circuits.masking.ablation import Ablation
from wirework.circuits.masking.edge_masks import EdgeMasks
from wirework.circuits.masking.embedding_edges import EmbeddingEdges, EmbeddingMasks
from wirework.circuits.pruning.discretise import clean_up, discretise, ranking
from wirework.circuits.pruning.feasibility import model_loss
from wirework.config import PruneConfig
from wirework.tasks import TokenizedPairs

ROUNDING = 1e-5
"""Nats by which a loss may exceed the target: circuits end close to it, and rounding depends on the
size of a batch."""
_RETRIES = 6
"""Retries for a circuit that misses the target with the means of the second sample."""
_OVERSHOOT = 1.5
"""A retry lowers the target by this times the excess loss."""


def with_second_sample(edge_masks: EdgeMasks, second: Ablation | None) -> EdgeMasks:
    """Return the same masks with the ablation values of a second sample, if there is one."""
    return edge_masks if second is None else replace(edge_masks, ablation=second)


@dataclass(frozen=True)
class EdgePruning:
    """Prunes the edges of a circuit, with retries if it misses the target on the second sample."""

    ablation: Ablation
    """Node masks with the ablation values that the search uses."""
    second: Ablation | None
    """Node masks with those of the second sample; None without one: those of the search judge."""
    judge: TokenizedPairs
    """The judging pairs."""
    config: PruneConfig
    on_try: Callable[[], None]
    """Called before each removal that is tried, for a progress bar."""

    def pruned_edges(self, nodes: Tensor, score: Tensor) -> tuple[EdgeMasks, Tensor]:
        """Prune the edges between some nodes.

        A retry starts from these nodes and the next best of the ranking.

        Args:
            nodes: (G,), the mask of the nodes.
            score: (G,), the ranking that the nodes come from.

        Returns:
            Masks over the circuit's nodes and edges, and its gates.
        """
        goal, judge = self.config.target_loss, self.judge
        own_loss = model_loss(self.ablation, judge)
        target, lowest_target = goal, own_loss if own_loss < goal else 0.0
        edge_masks, gates = self._pruned_once(nodes, target)
        if not self.ablation.within(nodes, judge, goal):
            return edge_masks, gates  # no candidate reaches it: this is the closest one
        for _ in range(_RETRIES):
            excess = self._highest_loss(edge_masks, gates) - goal
            if excess <= ROUNDING:
                break
            target = max(lowest_target, target - _OVERSHOOT * excess)
            nodes = self._grown(nodes, score, target)
            if not self.ablation.within(nodes, judge, target):
                break
            edge_masks, gates = self._pruned_once(nodes, target, (edge_masks, gates))
        return edge_masks, gates

    def pruned_embedding_edges(
        self, edge_masks: EdgeMasks, gates: Tensor, edges: EmbeddingEdges
    ) -> tuple[EdgeMasks, EmbeddingPart]:
        """Remove the embedding edges that a circuit does not need, and say which it keeps.

        If the circuit misses the target on the second sample in every retry, all are kept.

        Args:
            edge_masks: masks over the circuit's nodes and edges.
            gates: (G,), the circuit.
            edges: its embedding edges.
        """
        masks = EmbeddingMasks(edge_masks, gates, edges)
        everything = torch.ones(masks.size)
        goal = target = self.config.target_loss
        for _ in range(_RETRIES + 1):
            kept = clean_up(masks, everything, self.judge, target, self.on_try)
            masked = masks.masked(kept[None])
            excess = self._highest_loss(masked, gates) - goal
            if excess <= ROUNDING:
                return masked, edges.part(kept)
            if bool(kept.all()):  # nothing is removed, so that a lower target changes nothing
                break
            target -= _OVERSHOOT * excess
        return masks.masked(everything[None]), edges.part(everything)

    def _pruned_once(
        self, nodes: Tensor, target: float, before: tuple[EdgeMasks, Tensor] | None = None
    ) -> tuple[EdgeMasks, Tensor]:
        """Return masks and gates of a circuit, with the edges pruned to a target if configured.

        Args:
            nodes: (G,), the mask of the circuit's nodes.
            target: task loss in nats.
            before: a circuit with some of these nodes. Greedy removal starts without the edges that
                it lacks, if the target is met without them.
        """
        edge_masks = EdgeMasks.of(self.ablation, self.ablation.nodes(nodes))
        gates = torch.ones(edge_masks.size)
        if self.config.prune_edges:
            fewer = gates if before is None else edge_masks.without_closed(*before)
            start = fewer if edge_masks.within(fewer, self.judge, target) else gates
            gates = clean_up(edge_masks, start, self.judge, target, self.on_try)
        return edge_masks.compacted(gates)

    def _grown(self, nodes: Tensor, score: Tensor, target: float) -> Tensor:
        """Add the fewest nodes, best-ranked first, that reach a lower target."""
        rank = ranking(score)
        kept_first = len(rank) * nodes.to(rank.device) - rank
        grown = discretise(self.ablation, kept_first, self.judge, target)
        if self.config.prune_edges or not self.config.clean_up:
            return grown  # nodes are pruned together with the edges
        return clean_up(self.ablation, grown, self.judge, target)

    def _highest_loss(self, edge_masks: EdgeMasks, gates: Tensor) -> float:
        """Return the highest task loss over ablation modes, on the second sample of text."""
        ablation_modes = with_second_sample(edge_masks, self.second).ablation_modes()
        return max(float(mode.losses(gates[None], self.judge)[0]) for mode in ablation_modes)
