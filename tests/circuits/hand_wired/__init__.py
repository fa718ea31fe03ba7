"""Transformers wired by hand, with the circuit that was planted in each."""

from collections.abc import Callable

from hand_wired import depth_counter, inhibited, quote_closer, redundant, type_tracker
from hand_wired.edge_masks import Corpus, Edge, Node, Planted

PLANT: dict[str, Callable[[], Planted]] = {
    "quote closer": quote_closer.plant,
    "depth counter": depth_counter.plant,
    "type tracker": type_tracker.plant,
    "redundant": redundant.plant,
    "inhibited": inhibited.plant,
}
"""Name to what makes a model and says what was planted in it."""

__all__ = ["PLANT", "Corpus", "Edge", "Node", "Planted"]
