"""Records: how they lie in MongoDB, and the one atomic operation behind each tool.

A record is a document ``{_id, data, createdBy, createdAt, updatedBy, updatedAt}``. No write
reads first: a merge is an ``$set`` per top-level key of ``data``, so writers of different keys
never lose each other's.

The methods are steps (`callboard.sans_io`), for a plain collection and for an async one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument
from pymongo.errors import DuplicateKeyError
from pymongo.results import DeleteResult, UpdateResult

from callboard.connections.mongodb import AnyCollection, AnySession, Document
from callboard.sans_io import Steps
from callboard.sdk.names import ENVELOPE

from .cursor import Order
from .values import now, read

__all__ = ["Records", "envelope"]

_UPSERT_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """The records of one collection, as one writer sees them.

    Names and values are checked by the caller of these methods. They raise PyMongo's errors.
    """

    collection: AnyCollection
    session: AnySession  # of the open transaction
    writer: str | None  # the user id for createdBy and updatedBy; None: anonymous

    def insert(self, record_id: str, data: Document) -> Steps[None]:
        """Store a new record; one that exists already stays as it is."""
        moment = now()
        change = {"$setOnInsert": {"data": data, **self._created(moment)}}
        yield from self._retrying(lambda: self._upsert(record_id, change))

    def merge(self, record_id: str, data: Document) -> Steps[None]:
        """Store a record, or set the top-level keys of ``data`` in the existing one."""
        change = self._merge(data)
        yield from self._retrying(lambda: self._upsert(record_id, change))

    def merged(self, record_id: str, data: Document) -> Steps[Document]:
        """As `merge`, and answer the document that came of it."""
        change = self._merge(data)
        document: Document = yield from self._retrying(
            lambda: self.collection.find_one_and_update(
                {"_id": record_id},
                change,
                upsert=True,
                return_document=ReturnDocument.AFTER,
                session=self.session,
            )
        )
        return document

    def patch(self, record_id: str, data: Document) -> Steps[bool]:
        """Set the top-level keys of ``data`` in an existing record; whether there is one."""
        fields = {**_paths(data), **self._updated(now())}
        updated: UpdateResult = yield self.collection.update_one(
            {"_id": record_id}, {"$set": fields}, session=self.session
        )
        return updated.matched_count == 1

    def remove(self, record_id: str) -> Steps[bool]:
        """Delete a record; whether there was one."""
        deleted: DeleteResult = yield self.collection.delete_one(
            {"_id": record_id}, session=self.session
        )
        return deleted.deleted_count == 1

    def find(self, record_id: str) -> Steps[Document | None]:
        """One document."""
        document: Document | None = yield self.collection.find_one(
            {"_id": record_id}, session=self.session
        )
        return document

    def search(self, where: Document, order: Order, limit: int) -> Steps[list[Document]]:
        """The first ``limit`` matching documents."""
        found = self.collection.find(where, sort=order.sort, limit=limit, session=self.session)
        documents: list[Document] = yield found.to_list()
        return documents

    def delete(self, where: Document, limit: int) -> Steps[int]:
        """Delete up to ``limit`` matching records, by record id; how many were deleted.

        A record that no longer matches when its turn comes stays.
        """
        found = self.collection.find(
            where, projection=["_id"], sort=[("_id", 1)], limit=limit, session=self.session
        )
        documents: list[Document] = yield found.to_list()
        ids = [document["_id"] for document in documents]
        if not ids:
            return 0
        chosen = {"$and": [{"_id": {"$in": ids}}, where]}
        deleted: DeleteResult = yield self.collection.delete_many(chosen, session=self.session)
        return deleted.deleted_count

    def _upsert(self, record_id: str, change: Document) -> Any:
        return self.collection.update_one(
            {"_id": record_id}, change, upsert=True, session=self.session
        )

    def _retrying(self, upsert: Callable[[], Any]) -> Steps[Any]:
        """Upsert. Two first writers can meet on the record id: then the loser updates."""
        for tries_left in reversed(range(_UPSERT_TRIES)):
            try:
                return (yield upsert())
            except DuplicateKeyError as error:
                on_id = "_id" in ((error.details or {}).get("keyPattern") or {})
                if not on_id or not tries_left or self.session is not None:
                    raise
        raise AssertionError("the last try returns or raises")

    def _merge(self, data: Document) -> Document:
        moment = now()
        created = self._created(moment)
        updated = {field: created.pop(field) for field in ("updatedBy", "updatedAt")}
        if not data:  # an empty object has no path to set
            created["data"] = {}
        return {"$set": {**_paths(data), **updated}, "$setOnInsert": created}

    def _created(self, moment: datetime) -> Document:
        return {"createdBy": self.writer, "createdAt": moment, **self._updated(moment)}

    def _updated(self, moment: datetime) -> Document:
        return {"updatedBy": self.writer, "updatedAt": moment}


def envelope(document: Mapping[str, Any]) -> Document:
    """A document as the tools answer it: ``{"recordId", "data", "createdBy", ...}``, JSON."""
    record = {name: read(document.get(field)) for name, field in ENVELOPE.items()}
    return {"recordId": record.pop("recordId"), "data": read(document.get("data", {})), **record}


def _paths(data: Document) -> Document:
    return {f"data.{key}": value for key, value in data.items()}
