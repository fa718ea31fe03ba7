from view_fixtures import browser, circuit

__all__ = ["browser", "circuit"]
