"""Numbers, as applications and callers give them."""

from __future__ import annotations

from typing import TypeGuard

__all__ = ["is_number"]


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether it is an int or a float. True and False, which Python counts among the ints, are no
    numbers to whoever writes them."""
    return isinstance(value, int | float) and not isinstance(value, bool)
