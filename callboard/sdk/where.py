"""The operators of ``where``.

They are Python objects, so JSON that a caller sends can never be one::

    where={"price": all_of(gte(10), lt(20)), "status": one_of("new", "open")}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Operator", "all_of", "exists", "gt", "gte", "lt", "lte", "ne", "one_of"]


@dataclass(frozen=True, slots=True)
class Operator:
    """One condition on a field, as MongoDB spells it. Build it with the functions below."""

    conditions: Mapping[str, Any]


def gt(value: Any) -> Operator:
    """Greater than ``value``."""
    return Operator({"$gt": value})


def gte(value: Any) -> Operator:
    """Greater than or equal to ``value``."""
    return Operator({"$gte": value})


def lt(value: Any) -> Operator:
    """Less than ``value``."""
    return Operator({"$lt": value})


def lte(value: Any) -> Operator:
    """Less than or equal to ``value``."""
    return Operator({"$lte": value})


def ne(value: Any) -> Operator:
    """Not equal to ``value``; a record without the field matches too."""
    return Operator({"$ne": value})


def one_of(*values: Any) -> Operator:
    """Equal to one of ``values``."""
    return Operator({"$in": list(values)})


def exists(present: bool = True) -> Operator:
    """The field is there (or, with False, is not); a null field is there."""
    return Operator({"$exists": bool(present)})


def all_of(*operators: Operator) -> Operator:
    """All of ``operators`` at once: a range is ``all_of(gte(1), lt(5))``."""
    conditions: dict[str, Any] = {}
    for operator in operators:
        if not isinstance(operator, Operator):
            raise TypeError(f"all_of() takes operators such as gte(1), not {operator!r}")
        for name, value in operator.conditions.items():
            if name in conditions:
                raise ValueError(f"all_of() was given two conditions of the kind {name[1:]!r}")
            conditions[name] = value
    return Operator(conditions)
