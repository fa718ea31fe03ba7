from bridges_fixtures import _one_thread, bridged, save_dense, values

__all__ = ["_one_thread", "bridged", "save_dense", "values"]
