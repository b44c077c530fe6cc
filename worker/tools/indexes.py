"""Indexes: what ``actions/collections.py`` declares, and Callboard's own, made at worker start.

Making an index that is there already is a no-op, so every worker may do it. An index that is
no longer declared stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, PyMongoError

from callboard.errors import ConfigurationError, InvalidData
from callboard.sdk.collection import Collection
from callboard.sdk.names import collection_name, field_path

from .faults import outage
from .transaction import MARKER_TTL, MARKERS

__all__ = ["check_indexes", "create_indexes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Index:
    entry: str  # how a message names the declaration
    collection: str
    fields: tuple[str, ...]  # stored paths
    unique: bool

    @property
    def options(self) -> dict[str, Any]:
        if not self.unique:
            return {}
        present = {field: {"$exists": True} for field in self.fields}
        return {"unique": True, "partialFilterExpression": present}


def check_indexes(collections: Mapping[str, Collection]) -> list[_Index]:
    """Every declared index; raises `ConfigurationError` naming the first entry that is wrong."""
    return [index for name, value in collections.items() for index in _declared(name, value)]


def create_indexes(
    database: Database[dict[str, Any]], collections: Mapping[str, Collection]
) -> None:
    """Make the indexes of ``COLLECTIONS`` and of Callboard's own collections.

    Raises `ConfigurationError` naming the entry that is wrong or that existing records
    violate (nothing is made if an entry is wrong), and `DatabaseUnavailable`.
    """
    declared = check_indexes(collections)
    try:
        database[MARKERS].create_index("createdAt", expireAfterSeconds=MARKER_TTL)
    except PyMongoError as error:
        raise outage(error) or error from error
    for index in declared:
        _create(database, index)


def _create(database: Database[dict[str, Any]], index: _Index) -> None:
    try:
        database[index.collection].create_index(
            [(field, 1) for field in index.fields], **index.options
        )
    except DuplicateKeyError as error:
        raise ConfigurationError(
            f"{index.entry}: records that exist already share a value; make them differ first"
        ) from error
    except PyMongoError as error:
        if (lost := outage(error)) is not None:
            raise lost from error
        raise ConfigurationError(
            f"{index.entry}: the database refused the index: {error.args[0]}"
        ) from error


def _declared(name: object, value: object) -> Iterator[_Index]:
    """The indexes of one entry, each checked."""
    entry = f"COLLECTIONS[{name!r}]"
    if not isinstance(value, Collection):
        raise ConfigurationError(f"{entry}: must be a Collection(...), not {value!r:.80}")
    try:
        collection = collection_name(name)
    except InvalidData as error:
        raise ConfigurationError(f"{entry}: {error}") from error
    seen: set[tuple[str, ...]] = set()
    for option in ("indexes", "unique"):
        for fields in _entries(getattr(value, option), f"{entry}: {option}"):
            if fields in seen:
                raise ConfigurationError(f"{entry}: {option}: the fields {fields} come twice")
            seen.add(fields)
            yield _Index(
                entry=f"{entry}: {option}: {fields}",
                collection=collection,
                fields=tuple(field_path(field, option) for field in fields),
                unique=option == "unique",
            )


def _entries(value: object, where: str) -> Iterator[tuple[str, ...]]:
    """The field lists of one option."""
    if not isinstance(value, list | tuple):
        raise ConfigurationError(f"{where}: must be a list such as [('email',)], not {value!r:.80}")
    for fields in value:
        if not isinstance(fields, list | tuple) or not fields:
            raise ConfigurationError(
                f"{where}: {fields!r:.80} must be a tuple of fields such as ('email',)"
            )
        try:
            for field in fields:
                field_path(field, "field")
        except InvalidData as error:
            raise ConfigurationError(f"{where}: {error}") from error
        if len(set(fields)) != len(fields):
            raise ConfigurationError(f"{where}: {fields!r:.80} names a field twice")
        yield tuple(fields)
