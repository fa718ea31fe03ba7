import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "circuits"))  # the hand-wired models

from bridges_fixtures import _one_thread, bridged, save_dense, values

__all__ = ["_one_thread", "bridged", "save_dense", "values"]
