"""The types of what the tools and starts answer, as ``result.data`` has them.

They are dictionaries: a `TypedDict` of the application's own with the same fields is as good.
"""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

__all__ = ["Created", "Deleted", "Found", "Page", "Record", "Started", "StartedAll", "User"]


class Record(TypedDict):
    """A record, in its envelope. Times are ISO 8601 in UTC."""

    recordId: str
    data: dict[str, Any]
    createdBy: str | None
    createdAt: str
    updatedBy: str | None
    updatedAt: str


class Created(TypedDict):
    """Of ``create``, ``update`` and ``remove``."""

    recordId: str


class Found(TypedDict):
    """Of ``get``."""

    record: Record


class Page(TypedDict):
    """Of ``query``; ``after`` gets the next page, None: there is none."""

    records: list[Record]
    count: int
    after: str | None


class Deleted(TypedDict):
    """Of ``delete_where``."""

    deleted: int


class User(TypedDict):
    """Of ``register_user``."""

    user: Record


class Started(TypedDict):
    """Of ``ctx.start``."""

    runId: str


class StartedAll(TypedDict):
    """Of ``ctx.start_all``; ``thenRunId``: of the run that waits for them, None: there is none."""

    runIds: list[str]
    thenRunId: str | None
