"""Cursors: where a page of a query ended, and the filter for what comes after it.

Pages are in the order of one field, ties broken by record id. A cursor holds the position of
the last record, not a count, so records that come and go elsewhere do not shift a page.

MongoDB orders values of different types by type, takes a missing field as null, and a list by
its least element (descending: its greatest), while a comparison in a filter matches one type
and any element of a list. `Order.after` bridges the two, so that no record is skipped or seen
twice, whatever a field holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from callboard import cursor
from callboard.errors import InvalidData
from callboard.sdk.names import field_path, record_id
from callboard.times import iso

from .values import stored_scalar, stored_time

__all__ = ["Order"]

_KINDS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("empty", {"$size": 0}),
    ("null", {"$eq": None}),
    ("number", {"$type": "number"}),
    ("text", {"$type": "string"}),
    ("object", {"$type": "object"}),
    ("list", {"$elemMatch": {"$type": "array"}}),
    ("binary", {"$type": "binData"}),
    ("id", {"$type": "objectId"}),
    ("bool", {"$type": "bool"}),
    ("time", {"$type": "date"}),
)
"""The kinds of values in MongoDB's order, each with the condition that finds one."""

_RANK = {kind: rank for rank, (kind, _) in enumerate(_KINDS)}

_REFUSED = "after: not a cursor of this query; pass the 'after' of its previous page unchanged"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The order of a query's records: by one field, then by record id."""

    collection: str
    field: str  # the stored path; "_id" when the record id alone decides
    descending: bool

    @classmethod
    def of(cls, collection: str, order_by: object, order_dir: object) -> Order:
        """The order that a tool's arguments mean; raises `InvalidData`."""
        if order_dir not in ("asc", "desc"):
            raise InvalidData(f"order_dir: must be 'asc' or 'desc', not {order_dir!r:.80}")
        field = "_id" if order_by is None else field_path(order_by, "order_by")
        return cls(collection=collection, field=field, descending=order_dir == "desc")

    @property
    def sort(self) -> list[tuple[str, int]]:
        """As PyMongo's ``sort`` takes it."""
        fields = dict.fromkeys((self.field, "_id"))
        return [(field, -1 if self.descending else 1) for field in fields]

    def cursor(self, document: Mapping[str, Any]) -> str:
        """The opaque text for the position of ``document``, the last record of a page."""
        if not isinstance(document["_id"], str):
            raise InvalidData("query: a record id that is no text was written past the tools")
        kind, value = self._position(document)
        return cursor.encode([*self._identity, kind, value, document["_id"]])

    def after(self, text: object) -> dict[str, Any]:
        """The filter for the records after the cursor ``text``; raises `InvalidData` for a bad one.

        It names what is *not* after it: any element that sorts before the position's value,
        or that value with a record id up to the position's.
        """
        kind, value, last_id = self._opened(text)
        beyond, up_to = ("$gt", "$gte") if self.descending else ("$lt", "$lte")
        if self.field == "_id":
            return {"$nor": [{"_id": {up_to: last_id}}]}
        rank = _RANK[kind]
        passed = _KINDS[rank + 1 :] if self.descending else _KINDS[:rank]
        earlier = [{self.field: dict(condition)} for _, condition in passed]
        if kind not in ("empty", "null"):
            earlier.append({self.field: {beyond: value}})
        same = dict(_KINDS[rank][1]) if kind == "empty" else {"$eq": value}
        return {"$nor": [*earlier, {self.field: same, "_id": {up_to: last_id}}]}

    @property
    def _identity(self) -> tuple[str, str, bool]:
        return self.collection, self.field, self.descending

    def _position(self, document: Mapping[str, Any]) -> tuple[str, Any]:
        """What ``document`` is sorted by: its kind and value."""
        if self.field == "_id":
            return "null", None
        found: Any = document
        for key in self.field.split("."):
            if isinstance(found, list):
                raise self._no_position(document)
            found = found.get(key) if isinstance(found, Mapping) else None
        if found == []:
            return "empty", None
        values = found if isinstance(found, list) else [found]
        if any(isinstance(value, Mapping | list) or _kind(value) is None for value in values):
            raise self._no_position(document)
        value = (max if self.descending else min)(values, key=_sort_key)
        kind = str(_kind(value))
        return kind, iso(value) if kind == "time" else value

    def _no_position(self, document: Mapping[str, Any]) -> InvalidData:
        return InvalidData(
            f"order_by: record {document['_id']!r:.80} holds an object or a nested list in "
            f"{self.field.removeprefix('data.')!r}, so no page can end there; "
            f"order by another field or raise the limit"
        )

    def _opened(self, text: object) -> tuple[str, Any, str]:
        """Kind, value and record id of a cursor, each checked as a caller's own text is."""
        if not isinstance(text, str):
            raise InvalidData(_REFUSED)
        try:
            *identity, kind, value, last_id = cursor.decode(text)
            if tuple(identity) != self._identity:
                raise InvalidData(_REFUSED)
            value = (stored_time if kind == "time" else stored_scalar)(value, "after")
            if _kind(value) != ("null" if kind == "empty" else kind):
                raise InvalidData(_REFUSED)
            return kind, value, record_id(last_id)
        except (ValueError, TypeError, InvalidData):
            raise InvalidData(_REFUSED) from None


def _kind(value: object) -> str | None:
    """The kind of a single value that JSON or the envelope has; None for any other."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "text"
        case datetime():
            return "time"
    return None


def _sort_key(value: Any) -> tuple[int, Any]:
    """MongoDB's order of single values: by kind, text by its UTF-8 bytes."""
    kind = str(_kind(value))
    comparable = value.encode() if isinstance(value, str) else value
    return _RANK[kind], 0 if comparable is None else comparable
