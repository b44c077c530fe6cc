"""Filters: a tool's ``where`` as a MongoDB filter.

Only an `Operator` object becomes an operator, and every value is a scalar below an explicit
one: JSON that a caller sent stays a value to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from callboard.errors import InvalidData
from callboard.sdk.names import field_path
from callboard.sdk.where import Operator

from .values import stored_scalar, stored_time

__all__ = ["filter_of"]

_TIMES = {"createdAt", "updatedAt"}
_RANGES = {"$gt", "$gte", "$lt", "$lte"}
_EQUALITIES = {"$eq", "$ne"}


def filter_of(where: object) -> dict[str, Any]:
    """The MongoDB filter of ``where`` (None: all records); raises `InvalidData`."""
    if where is None:
        return {}
    if not isinstance(where, Mapping):
        raise InvalidData(f"where: must be an object of fields, not {type(where).__name__}")
    return {field_path(key, "where"): _conditions(key, value) for key, value in where.items()}


def _conditions(key: str, value: object) -> dict[str, Any]:
    given = value.conditions if isinstance(value, Operator) else {"$eq": value}
    return {operator: _operand(key, operator, operand) for operator, operand in given.items()}


def _operand(key: str, operator: str, operand: Any) -> Any:
    path = f"where.{key}"
    if operator in _EQUALITIES:
        return _value(key, operand)
    if operator in _RANGES:
        if operand is None or isinstance(operand, Decimal):
            raise InvalidData(
                f"{path}: {operator[1:]}() cannot compare with {operand!r}; "
                f"use a number, text or time"
            )
        return _value(key, operand)
    if operator == "$in" and isinstance(operand, list):
        return [_value(key, item) for item in operand]
    if operator == "$exists":
        return bool(operand)
    raise InvalidData(f"{path}: unknown operator {operator!r}")


def _value(key: str, value: object) -> Any:
    path = f"where.{key}"
    if isinstance(value, Mapping | list | tuple):
        raise InvalidData(
            f"{path}: compares with single values, not with a {type(value).__name__}; "
            f"use one_of(*values), or a dotted field"
        )
    if isinstance(value, Operator):
        raise InvalidData(f"{path}: an operator inside an operator; combine them with all_of()")
    return stored_time(value, path) if key in _TIMES else stored_scalar(value, path)
