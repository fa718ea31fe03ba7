"""Transformers wired by hand, with the circuit that was planted in each."""

from collections.abc import Callable

from hand_wired import (
    agreement,
    competing,
    correlated,
    depth_counter,
    exclusive_or,
    inhibited,
    quote_closer,
    redundant,
    relay,
    superposed,
    three_valued,
    type_tracker,
)
from hand_wired.edge_masks import Corpus, Edge, Node, Planted

PLANT: dict[str, Callable[[], Planted]] = {
    "quote closer": quote_closer.plant,
    "depth counter": depth_counter.plant,
    "type tracker": type_tracker.plant,
    "redundant": redundant.plant,
    "inhibited": inhibited.plant,
    "agreement": agreement.plant,
    "superposed": superposed.plant,
    "three-valued": three_valued.plant,
    "competing heads": competing.plant,
    "correlated distractor": correlated.plant,
    "exclusive or": exclusive_or.plant,
    "relay": relay.plant,
}
"""Name to what makes a model and says what was planted in it."""

__all__ = ["PLANT", "Corpus", "Edge", "Node", "Planted"]
