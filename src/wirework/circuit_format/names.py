"""Names in circuit.json: sites that hold nodes, and ends of path edges."""

import re
from typing import Literal, NamedTuple

from wirework.config import NODE_KINDS
from wirework.errors import quoted


def split_site(site: str) -> tuple[int, str]:
    """Split `3.mlp.post_act` into layer 3 and kind `mlp.post_act`.

    Raises:
        ValueError: not the name of a site that holds nodes.
    """
    layer, _, kind = site.partition(".")
    if not (layer.isascii() and layer.isdigit() and len(layer) < 10) or kind not in NODE_KINDS:
        raise ValueError(f"{quoted(site)} is not a site that holds nodes")
    return int(layer), kind


def site_order(site: str) -> tuple[int, int]:
    """Return the key by which sites sort in execution order.

    Raises:
        ValueError: not the name of a site that holds nodes.
    """
    layer, kind = split_site(site)
    return layer, NODE_KINDS.index(kind)


class Component(NamedTuple):
    """An end of a path edge: a component that writes to or reads from the residual stream."""

    kind: Literal["embed", "head", "mlp", "final_resid"]
    layer: int = -1
    """-1, as is `head`, if there is none."""
    head: int = -1
    input: str | None = None
    """Input of a head that reads: q, k or v."""

    @property
    def depth(self) -> float:
        """Position in the forward pass; components of the same depth never read each other."""
        outer = {"embed": -1.0, "final_resid": float("inf")}
        return outer.get(self.kind, 2.0 * self.layer + (self.kind == "mlp"))


def split_component(name: str) -> Component:
    """Split `3.attn.5.q` into the query input of head 5 of layer 3.

    Raises:
        ValueError: not the name of an end of a path edge.
    """
    if name == "embed":
        return Component("embed")
    if name == "final_resid":
        return Component("final_resid")
    number = "(0|[1-9][0-9]{0,8})"
    match = re.fullmatch(rf"{number}\.(?:mlp|attn\.{number}(?:\.([qkv]))?)", name)
    if match is None:
        raise ValueError(f"{quoted(name)} is no end of a path edge")
    layer, head, head_input = match.groups()
    if head is None:
        return Component("mlp", int(layer))
    return Component("head", int(layer), int(head), head_input)
