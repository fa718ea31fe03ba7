"""Read the models of InterpBench, whose circuits are known because they were trained in.

A case is a folder:

- `ll_model.pth`: the state dict of a `HookedTransformer` of TransformerLens;
- `ll_model_cfg.pkl`: its settings, a pickled dict or `HookedTransformerConfig`;
- `edges.pkl`: the edges of the circuit, pairs of names such as `blocks.0.attn.hook_result[2]`;
- `meta.json`: how it was trained; not read.

Source: Gupta et al. 2024 (arXiv 2407.14494), and https://github.com/FlyingPumba/InterpBench.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wirework.circuit_format import PathEdge, split_component
from wirework.errors import InputError, number_of, quoted
from wirework.interop.foreign_tokenizer import read_tokenizer
from wirework.interop.plain_pickle import Inert, number, read_plain_pickle
from wirework.interop.transformer_lens import load_lens
from wirework.interop.weight_files import read_weights
from wirework.interop.weights import unwrapped
from wirework.model import Model
from wirework.node_names import head_name

_CONFIGS = (
    "transformer_lens.HookedTransformerConfig.HookedTransformerConfig",
    "transformer_lens.config.hooked_transformer_config.HookedTransformerConfig",
)
"""Full names of their class of settings, in versions up to 2 and since 3."""
_KNOWN = {
    *_CONFIGS,
    "torch.device",
    *(f"torch.{dtype}" for dtype in ("float64", "float32", "float16", "bfloat16")),
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
}
"""What may occur in their settings beside plain values."""
_NODE = re.compile(r"(?:blocks\.(\d{1,6})\.)?([a-z_.]+?)(?:\[(\d{1,6})\])?")
"""Layer, kind and head of a name in `edges.pkl`."""
_EMBED = ("hook_embed", "hook_pos_embed")
_HEAD_OUTPUTS = ("attn.hook_result", "attn.hook_z")
_HEAD_INPUTS = {f"hook_{kind}_input": kind for kind in "qkv"}
_MLP_OUTPUTS = ("hook_mlp_out", "mlp.hook_post")
_INSIDE = (*_HEAD_INPUTS, *(f"attn.hook_{kind}" for kind in "qkv"), "hook_mlp_in")
"""Parts from which an edge leads further into the same head or MLP."""
_INPUT = re.compile(r"\.[qkv]$")
"""The input of a head at the end of a name."""


@dataclass(frozen=True)
class GroundTruth:
    """A model and the path edges of the circuit that it was made to use."""

    model: Model
    path_edges: tuple[PathEdge, ...]
    """Edges of the circuit in the names of `wirework.circuits.acdc`, without effects, sorted."""
    n_outputs: int
    """Number of tokens that the model answers with; the logits of later ones are -1e9."""

    @property
    def components(self) -> tuple[str, ...]:
        """Heads, MLPs and ends of the circuit's edges, such as `1.attn.2`, in execution order."""
        ends = {end for edge in self.path_edges for end in (edge.source, component(edge.target))}
        return tuple(sorted(ends, key=_order))


def component(name: str) -> str:
    """Return the name of a component without the input that a path edge leads to.

    Example:
        >>> component("1.attn.2.q"), component("0.mlp")
        ('1.attn.2', '0.mlp')
    """
    return _INPUT.sub("", name)


def load_interpbench(folder: str | Path) -> GroundTruth:
    """Load a model of InterpBench with its circuit.

    Args:
        folder: folder of a case, with `ll_model.pth`, `ll_model_cfg.pkl` and `edges.pkl`. Nothing
            is downloaded and no code in the pickles runs. A `tokenizer.json` in it is read too;
            InterpBench has none, and finders need one.

    Returns:
        The model on the CPU in float32, and its circuit. InterpBench trains whole heads, so queries
        and keys that its edges name may do nothing: compare heads, as `path_edge_auroc` does.

    Raises:
        InputError: a file is missing, damaged or holds other Python objects, the model has a part
            that wirework does not support (such as attention to later tokens), a tensor is missing,
            unexpected, of the wrong shape or not finite, or an edge is not one of the model.

    Source: Gupta et al. 2024 (arXiv 2407.14494).
    """
    if "://" in str(folder):
        raise InputError(
            f"{folder} is a web address, and nothing is downloaded: put the files of a case into a "
            "folder and give its path"
        )
    folder = Path(folder)
    settings, weights, edges = (
        folder / name for name in ("ll_model_cfg.pkl", "ll_model.pth", "edges.pkl")
    )
    fields = _fields(read_plain_pickle(settings, _KNOWN), settings)
    state = unwrapped(read_weights(weights), str(weights))
    transformer, n_outputs = load_lens(fields, state, str(settings), str(weights))
    config = transformer.config
    named = _named_edges(read_plain_pickle(edges), edges)
    path_edges = _path_edges(named, config.n_layer, config.n_head, edges)
    return GroundTruth(
        Model(transformer, read_tokenizer(folder), folder), tuple(path_edges), n_outputs
    )


def _fields(value: Any, path: Path) -> dict[str, Any]:
    """Return their settings by name, of a dict or of the stand-in for their class."""
    if isinstance(value, Inert) and value.name in _CONFIGS:
        value = value.state
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise InputError(
            f"{path}: expected the settings of a HookedTransformer, got {_kind(value)}"
        )
    return {name: number(field) for name, field in value.items()}


def _named_edges(value: Any, path: Path) -> list[tuple[str, str]]:
    """Return the pairs of names in an `edges.pkl`."""
    if not isinstance(value, list | tuple):
        raise InputError(f"{path}: expected a list of edges, got {_kind(value)}")
    for edge in value:
        is_pair = isinstance(edge, list | tuple) and len(edge) == 2
        if not is_pair or not all(isinstance(name, str) for name in edge):
            raise InputError(f"{path}: expected a pair of names for an edge, got {quoted(edge)}")
    return [(source, target) for source, target in value]


def _path_edges(
    edges: Iterable[tuple[str, str]], n_layer: int, n_head: int, path: Path
) -> list[PathEdge]:
    """Return the edges in our names, sorted by target and source in execution order.

    Token and position embeddings are one source of ours. Edges inside of a head or an MLP are left
    out. An edge to a head as a whole stands for three, to its queries, keys and values.

    Raises:
        InputError: an edge has an unknown part, one that the model lacks, or does not lead forward;
            or there are no edges.
    """
    found: set[tuple[str, str]] = set()
    for source, target in edges:
        where = f"{path}: the edge {quoted(source)} -> {quoted(target)}"
        start, end = (_parsed(name, n_layer, n_head, where) for name in (source, target))
        if start.kind in _INSIDE:
            inside = (*_INSIDE, *_HEAD_OUTPUTS, *_MLP_OUTPUTS)
            if (start.layer, start.head) != (end.layer, end.head) or end.kind not in inside:
                raise InputError(f"{where} leaves a head or MLP before its output")
            continue
        written = _source_name(start)
        if written is None:
            raise InputError(f"{where} begins at a part that is not supported: {quoted(source)}")
        read = list(_target_names(end))
        if not read:
            raise InputError(f"{where} ends at a part that is not supported: {quoted(target)}")
        for name in read:
            if split_component(written).depth >= split_component(name).depth:
                raise InputError(f"{where} does not lead forward")
            found.add((written, name))
    if not found:
        raise InputError(f"{path} has no edge between heads and MLPs: the circuit is empty")
    return [
        PathEdge(source=source, target=target)
        for source, target in sorted(found, key=lambda edge: (_order(edge[1]), _order(edge[0])))
    ]


@dataclass(frozen=True)
class _LensNode:
    """A parsed name of `edges.pkl`."""

    kind: str
    layer: int
    """-1 for a part outside of the layers."""
    head: int
    """-1 for a part that is no head's."""


def _parsed(name: str, n_layer: int, n_head: int, where: str) -> _LensNode:
    """Split a name into layer, kind and head.

    Raises:
        InputError: it is no name of this form, or the model has no such layer or head.
    """
    match = _NODE.fullmatch(name)
    if match is None:
        raise InputError(f"{where} has an unknown part: {quoted(name)}")
    layer, kind, head = match.groups()
    node = _LensNode(kind, -1 if layer is None else int(layer), -1 if head is None else int(head))
    if node.layer >= n_layer or node.head >= n_head:
        raise InputError(
            f"{where} has the part {quoted(name)}, the model has {number_of(n_layer, 'layer')} of "
            f"{number_of(n_head, 'head')}"
        )
    per_head = kind.startswith("attn.hook_") or kind in _HEAD_INPUTS
    if per_head != (head is not None) or (kind in _EMBED) != (layer is None):
        raise InputError(f"{where} has an unknown part: {quoted(name)}")
    return node


def _source_name(node: _LensNode) -> str | None:
    """Return our name of what writes to the residual stream, or None."""
    if node.kind in _EMBED or (node.kind == "hook_resid_pre" and node.layer == 0):
        return "embed"
    if node.kind in _HEAD_OUTPUTS:
        return head_name(node.layer, node.head)
    return f"{node.layer}.mlp" if node.kind in _MLP_OUTPUTS else None


def _target_names(node: _LensNode) -> Iterator[str]:
    """Yield our names of what reads the residual stream there; none for an unknown part.

    The circuits of programs with fewer layers than the model end at the last layer of the program.
    """
    if node.kind in _HEAD_INPUTS:
        yield f"{head_name(node.layer, node.head)}.{_HEAD_INPUTS[node.kind]}"
    elif node.kind in _HEAD_OUTPUTS:
        for kind in "qkv":
            yield f"{head_name(node.layer, node.head)}.{kind}"
    elif node.kind in ("hook_mlp_in", *_MLP_OUTPUTS):
        yield f"{node.layer}.mlp"
    elif node.kind == "hook_resid_post":
        yield "final_resid"


def _order(name: str) -> tuple[float, int, int]:
    """Return the key by which components sort in execution order."""
    component = split_component(name)
    return component.depth, component.head, "_qkv".index(component.input or "_")


def _kind(value: Any) -> str:
    return value.name if isinstance(value, Inert) else type(value).__name__
