"""Effects of single units, and of random ones in randomly inflated circuits.

What the minimality test of Shi et al. 2024 (arXiv 2410.13032) compares.
Shapes: U units, u of them in the circuit, P pairs.
"""

from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor

from wirework.circuits.masking.nodes import NodeSpace
from wirework.circuits.validation.checks.masked_circuit import Gated
from wirework.circuits.validation.checks.minimality import effects, without_each
from wirework.nn import Transformer
from wirework.tasks import TokenizedPairs

Extras = Callable[[torch.Generator], Tensor]
"""Draws units (int64) outside a circuit to put into it; none where it finds none."""

_MASKS = 64
_TRIES = 100


def unit_effects(gated: Gated, gates: Tensor, batch: TokenizedPairs) -> list[float]:
    """Return how far each unit moves the scores when it goes from the circuit.

    Args:
        gated: a model under masks over units.
        gates: (U,) the circuit.
        batch: a task.

    Returns:
        (u,) mean over rows of the absolute change of right minus wrong logit, in the mask's order;
        none for an empty circuit.
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
    """Return how far a random unit moves the scores when it goes from an inflated circuit.

    Args:
        gated: a model under masks over units.
        gates: (U,) the circuit.
        batch: a task.
        extras: what each random circuit gets on top of the circuit; one of these units goes.
        n_resamples: random circuits.
        seed: of the draws.

    Returns:
        One effect a draw, in the unit of `unit_effects`; draws without extras are left out.
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
    """Draw `count` units evenly from those outside the circuit, or all if there are fewer."""
    outside = (gates == 0).nonzero().flatten().cpu()

    def draw(generator: torch.Generator) -> Tensor:
        return outside[torch.randperm(len(outside), generator=generator)[:count]]

    return draw


def random_paths(transformer: Transformer, gates: Tensor) -> Extras:
    """Draw a way through one sublayer: a read, a value channel or neuron, a write.

    A single random node is joined to nothing and does nothing; a path reads the residual stream
    and writes to it, as the random paths of the source lead from the input to the output. The
    write's weight is drawn evenly from all nonzero output weights, then the read's from the nonzero
    weights of the channel between.

    Args:
        transformer: the model.
        gates: (N,) the circuit, over nodes.
    """
    reads, writes = _wires(transformer)
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
def _wires(transformer: Transformer) -> tuple[Tensor, Tensor]:
    """Return the nonzero weights into and out of value channels and neurons, each (E, 2) int64.

    Entries are places of source and target in the row of all nodes.
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
            reads.append(_places(into, starts[f"{part}.act_in"], starts[middle]))
            writes.append(_places(out, starts[middle], starts[f"{part}.resid_delta"]))
    return torch.cat(reads), torch.cat(writes)


def _places(matrix: Tensor, sources: int, targets: int) -> Tensor:
    """Return source and target of each nonzero entry of a matrix (targets, sources)."""
    entries = matrix.nonzero().cpu()
    return torch.stack([entries[:, 1] + sources, entries[:, 0] + targets], 1)
