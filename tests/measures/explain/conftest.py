from explain_fixtures import asking, config, model, new_server, server, text

__all__ = ["asking", "config", "model", "new_server", "server", "text"]
