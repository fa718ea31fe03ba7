"""A weight-sparse model with bridges to a dense one: training, loading,
steering."""

from wirework.bridges.bridged import Bridged, bridge, load_bridged
from wirework.bridges.steer import SteeringReport, steer

__all__ = ["Bridged", "SteeringReport", "bridge", "load_bridged", "steer"]
