"""Where a node of the sparse model acts in the dense model, and along which direction.

A node that reads the residual stream (`L.attn.act_in.C`, `L.mlp.act_in.C`) is channel C of the
stream at a residual location. The bridge of this location has a column for the channel in its
decoder, a direction in the dense model, and a row in its encoder, which reads the channel from the
dense model. Bridges map streams before the norm, nodes are read after it, so that a node's value is
first divided by the norm's gain and multiplied by the size of the stream.
Source: Gao et al. 2025, sec. 2.3, App. A.4.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wirework.bridges.bridged import Bridged
from wirework.circuits.node_circuit import NodeCircuit
from wirework.errors import InputError, quoted
from wirework.nn import Transformer
from wirework.nn.kernels.sparse_linear import unchanged_weights
from wirework.nn.residual_locations import location_names, record_streams
from wirework.node_names import node_name

_READS = ".act_in"


@dataclass(frozen=True)
class ReadingNode:
    """A node of the sparse model that reads a channel of the residual stream."""

    name: str
    """`3.attn.act_in.17`."""
    site: str
    index: int
    """The residual channel."""
    location: int
    """Number of the residual location that it reads: 2L for attention, 2L + 1 for the MLP."""

    @classmethod
    def of(cls, name: str, transformer: Transformer) -> "ReadingNode":
        """Return the node with a name.

        Args:
            name: name of the node.
            transformer: the sparse model.

        Raises:
            InputError: no node of the model that reads the residual stream has this name.
        """
        site, _, index = name.rpartition(".")
        locations = [f"{location}{_READS}" for location in location_names(_n_layer(transformer))]
        width = transformer.config.d_model
        if site not in locations[:-1] or not index.isdecimal() or int(index) >= width:
            raise InputError(
                f"{quoted(name)} is no node that reads the residual stream: give "
                f"L.attn.act_in.C or L.mlp.act_in.C with L below {_n_layer(transformer)} and C "
                f"below {width}"
            )
        return cls(name, site, int(index), locations.index(site))


def reading_nodes(circuit: NodeCircuit, transformer: Transformer) -> list[ReadingNode]:
    """Return the nodes of a circuit that read the residual stream, in the order of the circuit.

    Nodes that read concatenated position vectors are left out: no bridge maps these.

    Raises:
        InputError: it has none.
    """
    width = transformer.config.d_model
    found = [
        ReadingNode.of(node_name(node.site, node.index), transformer)
        for node in circuit.nodes
        if node.site.endswith(_READS) and node.index < width
    ]
    if not found:
        raise InputError("the circuit has no node that reads the residual stream to steer with")
    return found


def chosen_nodes(
    names: Iterable[str], circuit: NodeCircuit, transformer: Transformer
) -> list[ReadingNode]:
    """Return the nodes of a circuit with these names.

    Raises:
        InputError: a name is no node that reads the residual stream, or not one of the circuit.
    """
    chosen = [ReadingNode.of(name, transformer) for name in dict.fromkeys(names)]
    own = {node.name: node for node in reading_nodes(circuit, transformer)}
    for node in chosen:
        if node.name not in own:
            raise InputError(
                f"the circuit does not hold {node.name}; its nodes that read the residual stream "
                f"are {', '.join(own)}"
            )
    return chosen


@torch.no_grad()
@unchanged_weights()
def stream_sizes(transformer: Transformer, windows: Sequence[Tensor]) -> Tensor:
    """Return by how much the stream is larger before the norm than after it, the gain left out.

    Args:
        transformer: the model.
        windows: (B, T) int64 each, reference text.

    Returns:
        (2L,) for each location with nodes: ratio of the root mean squares over all tokens. A node's
        value divided by the gain of its channel, times this, is a change of the stream.

    Source: Gao et al. 2025, App. A.4.
    """
    norms = _norms(transformer)
    before, after = torch.zeros(2, len(norms), dtype=torch.float64)
    for tokens in windows:
        _, streams = record_streams(transformer, tokens)
        for location, (norm, stream) in enumerate(zip(norms, streams[:-1], strict=True)):
            gain = _gain(norm, stream.shape[-1])
            normed = (norm(stream) / gain)[..., gain != 0]
            before[location] += stream[..., gain != 0].double().square().sum()
            after[location] += normed.double().square().sum()
    sizes: Tensor = (before / after).sqrt()
    return sizes


def _norms(transformer: Transformer) -> list[nn.Module]:
    """Return the norm at each location with nodes."""
    return [norm for block in transformer.blocks for norm in (block.norm1, block.norm2)]


def _gain(norm: nn.Module, width: int) -> Tensor:
    """Return (width,), the gain of a norm by channel; 1 for a norm without one."""
    gain = getattr(norm, "weight", None)
    return torch.ones(width) if gain is None else gain.detach()


@torch.no_grad()
@unchanged_weights()
def stream_means(transformer: Transformer, windows: Sequence[Tensor]) -> list[Tensor]:
    """Return the mean of the residual stream at each location over reference text, (D,) each.

    Args:
        transformer: the model.
        windows: (B, T) int64 each, reference text.
    """
    width, n_locations = transformer.config.d_model, 2 * _n_layer(transformer) + 1
    sums = [torch.zeros(width, dtype=torch.float64) for _ in range(n_locations)]
    for tokens in windows:
        for total, stream in zip(sums, record_streams(transformer, tokens)[1], strict=True):
            total += stream.double().sum((0, 1))
    n_tokens = sum(tokens.numel() for tokens in windows)
    return [(total / n_tokens).to(transformer.embed.weight.dtype) for total in sums]


def dense_direction(bridged: Bridged, node: ReadingNode, sizes: Tensor) -> Tensor:
    """Return (d_dense,), the change of the dense stream for a change of a node by 1.

    Args:
        bridged: the models and bridges.
        node: the node.
        sizes: result of `stream_sizes` for the sparse model.
    """
    column = bridged.bridges.decoders[node.location].weight[:, node.index].detach()
    norm = _norms(bridged.sparse.transformer)[node.location]
    gain = float(_gain(norm, bridged.sparse.config.d_model)[node.index])
    # A node whose gain is 0 never changes.
    return column * (float(sizes[node.location]) / gain if gain else 0.0)


def sparse_reading(bridged: Bridged, node: ReadingNode) -> Tensor:
    """Return (d_dense,): its product with a change of the dense stream is that of the channel.

    The channel is that of the sparse stream before the norm.
    """
    return bridged.bridges.encoders[node.location].weight[node.index].detach()


def _n_layer(transformer: Transformer) -> int:
    return transformer.config.n_layer
