"""A value that the types allow to be absent and a test knows to be there."""

from typing import TypeVar

T = TypeVar("T")


def present(value: T | None) -> T:
    """Return a value, which must not be None."""
    assert value is not None
    return value
