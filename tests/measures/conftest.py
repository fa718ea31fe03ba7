from measures_fixtures import _one_thread, model, text

__all__ = ["_one_thread", "model", "text"]
