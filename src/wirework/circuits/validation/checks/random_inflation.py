"""Effects of removing single units, from the circuit and from randomly inflated circuits.

These are the quantities that the minimality test of Shi et al. 2024 (arXiv 2410.13032) compares.
Shapes: U units, u of them in the circuit, P pairs.
"""

from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor

from wirework.circuits.masking.masked_circuit import Gated
from wirework.circuits.masking.nodes import NodeSpace
from wirework.circuits.validation.checks.minimality import effects, without_each
from wirework.nn import Transformer
from wirework.tasks import TokenizedPairs

Extras = Callable[[torch.Generator], Tensor]
"""Draws units (int64) outside a circuit to add to it; empty if there are none."""

_MASKS = 64
"""Masks per call, to bound the memory."""
_TRIES = 100
"""Attempts to draw a path that is not in the circuit."""


def unit_effects(gated: Gated, gates: Tensor, batch: TokenizedPairs) -> list[float]:
    """Return the effect of removing each unit of the circuit on the logit differences.

    Args:
        gated: a model with masks over units.
        gates: (U,) the circuit.
        batch: tokenised pairs of a task.

    Returns:
        (u,) mean absolute change of the logit difference over prompts, in mask order; empty for an
        empty circuit.
    """
    if not gates.any():
        return []
    return [
        effect
        for part in torch.split(gates.nonzero().flatten(), _MASKS)
        for effect in effects(gated, gates[None], without_each(gates, part), batch).tolist()
    ]


def random_effects(
    gated: Gated,
    gates: Tensor,
    batch: TokenizedPairs,
    extras: Extras,
    n_resamples: int = 100,
    seed: int = 0,
) -> list[float]:
    """Return the effects of removing a random unit from randomly inflated circuits.

    Args:
        gated: a model with masks over units.
        gates: (U,) the circuit.
        batch: tokenised pairs of a task.
        extras: draws the units added to the circuit; one of these is then removed.
        n_resamples: number of inflated circuits.
        seed: seed of the draws.

    Returns:
        One effect per inflated circuit, as in `unit_effects`; draws without extras are skipped.
    """
    generator = torch.Generator().manual_seed(seed)
    effect_sizes: list[float] = []
    for first in range(0, n_resamples, _MASKS):
        before, after = [], []
        for _ in range(min(_MASKS, n_resamples - first)):
            extra = extras(generator)
            if len(extra):
                removed = extra[int(torch.randint(len(extra), (), generator=generator))]
                before.append(gates.index_fill(0, extra.to(gates.device), 1))
                after.append(before[-1].index_fill(0, removed.to(gates.device), 0))
        if before:
            effect_sizes += effects(gated, torch.stack(before), torch.stack(after), batch).tolist()
    return effect_sizes


def random_units(gates: Tensor, count: int) -> Extras:
    """Return a function that draws units outside the circuit uniformly.

    Args:
        gates: (U,) the circuit.
        count: number of units to draw; all of them if there are fewer.
    """
    outside = (gates == 0).nonzero().flatten().cpu()

    def draw(generator: torch.Generator) -> Tensor:
        return outside[torch.randperm(len(outside), generator=generator)[:count]]

    return draw


def random_paths(transformer: Transformer, gates: Tensor) -> Extras:
    """Return a function that draws a path through a sublayer: read, value or neuron, write.

    A single random node is connected to nothing and has no effect; a path reads from and writes to
    the residual stream, like the random input-output paths of the source. The write is drawn
    uniformly from all nonzero output weights, then the read from the nonzero input weights of its
    channel.

    Args:
        transformer: the model.
        gates: (N,) the circuit, over nodes.
    """
    reads, writes = _sublayer_edges(transformer)
    kept = gates.cpu() != 0

    def draw(generator: torch.Generator) -> Tensor:
        for _ in range(_TRIES if len(writes) else 0):
            middle, write = writes[
                int(torch.randint(len(writes), (), generator=generator))
            ].tolist()
            sources = reads[reads[:, 1] == middle, 0]
            if len(sources):
                read = int(sources[torch.randint(len(sources), (), generator=generator)])
                path = torch.tensor([read, middle, write])
                if not kept[path].all():
                    return path[~kept[path]]
        return torch.empty(0, dtype=torch.int64)

    return draw


@torch.no_grad()
def _sublayer_edges(transformer: Transformer) -> tuple[Tensor, Tensor]:
    """Return the nonzero weights into and out of value channels and neurons, each (E, 2) int64.

    Entries are flat node indices of source and target.
    """
    widths = NodeSpace.of(transformer).widths
    starts = dict(zip(widths, accumulate(widths.values(), initial=0), strict=False))
    weights = dict(transformer.named_parameters())
    reads, writes = [], []
    for layer in range(transformer.config.n_layer):
        attn, mlp, block = f"{layer}.attn", f"{layer}.mlp", f"blocks.{layer}"
        values = weights[f"{block}.attn.qkv.weight"].chunk(3)[2]
        for middle, into, out, part in (
            (f"{attn}.v", values, weights[f"{block}.attn.out.weight"], attn),
            (f"{mlp}.post_act", weights[f"{block}.mlp.up.weight"],
             weights[f"{block}.mlp.down.weight"], mlp),
        ):  # fmt: skip
            reads.append(_edges_of_matrix(into, starts[f"{part}.act_in"], starts[middle]))
            writes.append(_edges_of_matrix(out, starts[middle], starts[f"{part}.resid_delta"]))
    return torch.cat(reads), torch.cat(writes)


def _edges_of_matrix(matrix: Tensor, first_source: int, first_target: int) -> Tensor:
    """Return (E, 2) int64, flat node indices of source and target of each nonzero entry.

    Args:
        matrix: (targets, sources).
        first_source: flat index of the node of column 0.
        first_target: flat index of the node of row 0.
    """
    entries = matrix.nonzero().cpu()
    return torch.stack([entries[:, 1] + first_source, entries[:, 0] + first_target], 1)
