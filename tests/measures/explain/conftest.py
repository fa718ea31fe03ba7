from explain_fixtures import asking, config, model, server, text

__all__ = ["asking", "config", "model", "server", "text"]
