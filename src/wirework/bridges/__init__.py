"""A weight-sparse model with bridges to a dense one: training, loading, quality, steering."""

from wirework.bridges.bridge_quality import BridgeQuality, bridge_quality
from wirework.bridges.bridged import Bridged, bridge, is_bridged_run, load_bridged
from wirework.bridges.steering import steer
from wirework.bridges.steering_report import SteeringReport

__all__ = [
    "BridgeQuality",
    "Bridged",
    "SteeringReport",
    "bridge",
    "bridge_quality",
    "is_bridged_run",
    "load_bridged",
    "steer",
]
