from random_models import kind

__all__ = ["kind"]
