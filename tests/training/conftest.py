from training_fixtures import _one_thread, cache, driver, settings, whole

__all__ = ["_one_thread", "cache", "driver", "settings", "whole"]
