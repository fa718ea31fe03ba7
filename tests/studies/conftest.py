from studies_fixtures import _one_thread, settings, study

__all__ = ["_one_thread", "settings", "study"]
