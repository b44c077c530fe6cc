"""What ``actions/collections.py`` may declare of a collection: indexes and uniqueness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Collection"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Indexes of one collection, over data fields (dotted paths); created at worker start.

    ``unique=[("email",)]`` refuses a second record with the same value: ``Duplicate: ...``.
    Records that lack one of the fields are not compared.
    """

    indexes: Sequence[Sequence[str]] = ()
    unique: Sequence[Sequence[str]] = ()
