"""What a test knows of a value and its type does not say."""

from typing import TypeVar

T = TypeVar("T")


def sure(value: T | None) -> T:
    """The value, which is there."""
    assert value is not None
    return value
