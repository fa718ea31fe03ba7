"""A weight-sparse model with bridges to a dense one: training and loading."""

from wirework.bridges.bridged import Bridged, bridge, load_bridged

__all__ = ["Bridged", "bridge", "load_bridged"]
