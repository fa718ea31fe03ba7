"""How nodes and heads are named wherever a person reads them, and in files.

A node is a channel of a site, `0.attn.v.30`: layer, site and channel number. A head is
`0.attn.1`: layer and head number. One of its inputs is `0.attn.1.q`.
"""


def node_name(site: str, index: int) -> str:
    """Return the name of a node.

    Args:
        site: name of the site, with its layer, such as `0.attn.v`.
        index: number of the channel, from 0.

    Example:
        >>> node_name("0.attn.v", 30)
        '0.attn.v.30'
    """
    return f"{site}.{index}"


NEGATED = ".negated"
"""End of the name of a neuron whose activation counts with the opposite sign."""


def neuron_name(site: str, index: int, negated: bool) -> str:
    """Return the name of a neuron to explain.

    Args:
        site: name of the site, with its layer.
        index: number of the channel, from 0.
        negated: whether its activation counts with the opposite sign.

    Example:
        >>> neuron_name("3.mlp.post_act", 17, negated=True)
        '3.mlp.post_act.17.negated'
    """
    return node_name(site, index) + (NEGATED if negated else "")


def head_name(layer: int, head: int) -> str:
    """Return the name of an attention head.

    Args:
        layer: number of the layer, from 0.
        head: number of the head in its layer, from 0.

    Example:
        >>> head_name(0, 1)
        '0.attn.1'
    """
    return f"{layer}.attn.{head}"
