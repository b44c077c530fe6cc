"""Rows: documents of one collection, parts of them sealed, for plain and for async callers.

A kind of them writes what it does as steps (`callboard.sans_io`) in a class on `Rows`, bound twice:
with `PlainRows` beside it for plain callers, who may also look rows up and go through all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, TypeVar, cast

from pymongo.collection import Collection

from callboard.connections.mongodb import AnyCollection, AnyDatabase, Document, guarded
from callboard.runs.seal import Sealer

__all__ = ["PlainRows", "Rows", "of_kind"]

T = TypeVar("T")


class Rows:
    """``database``: opens the connection on first use."""

    collection: ClassVar[str]
    seconds: ClassVar[float]  # that the database may take for a batch

    def __init__(self, database: Callable[[], AnyDatabase], sealer: Sealer) -> None:
        self._of = database
        self._sealer = sealer

    @property
    def _rows(self) -> AnyCollection:
        return self._of()[self.collection]


class PlainRows(Rows):
    """For plain callers. Every method raises `DatabaseUnavailable`."""

    @property
    def _plain(self) -> Collection[Document]:
        return cast("Collection[Document]", self._rows)

    def find(self, row_id: str) -> Document | None:
        """The row of this id."""
        with guarded():
            return self._plain.find_one({"_id": row_id})

    def after(self, row_id: str, limit: int) -> list[Document]:
        """Rows in the order of their ids, after this one ("": from the first)."""
        with guarded(self.seconds):
            rows = self._plain.find({"_id": {"$gt": row_id}})
            return rows.sort("_id", 1).limit(limit).to_list()


def of_kind(kind: type[T], value: object) -> T:
    """The value of a row's field; raises TypeError for one of another kind."""
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__}, not {type(value).__name__}")
    return value
