"""What starts, and looks at what they have become, read and write: each call is a step of I/O.

Made when it is used: most handlers start nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from callboard.clock import AsyncDatabaseClock, DatabaseClock
from callboard.runs.ends import AsyncPastEnds, PastEnds
from callboard.runs.outbox import AsyncOutbox, Outbox
from callboard.runs.start import Start
from callboard.schedules.stored import AsyncStoredSchedules, StoredSchedules

if TYPE_CHECKING:
    from callboard.connections.mongodb import AsyncStore

    from ..services import Services

__all__ = ["Broker", "Reach"]


class Broker(Protocol):
    """Of `callboard.runs.store.Runs`, what is needed here; each a step."""

    def accept_many(self, starts: Sequence[Start], *, max_queue: int, result_ttl: int) -> Any:
        """Accept each: what came of it."""

    def keyed(self, key: str) -> Any:
        """The run of an idempotency key, and its digest."""

    def ends(self, run_ids: Sequence[str]) -> Any:
        """How these runs stand."""

    def present(self, run_ids: Sequence[str]) -> Any:
        """Those that have a record."""


class Reach:
    """That of a plain handler, or of an async one.

    ``runs`` and ``store``: those of the event loop, of an async handler.
    """

    def __init__(
        self, services: Services, runs: Broker | None = None, store: AsyncStore | None = None
    ) -> None:
        self.services = services
        self.is_async = store is not None
        self._loops = runs
        self._store = store

    @property
    def runs(self) -> Any:
        """The run records."""
        return self._loops or self.services.runs

    @property
    def outbox(self) -> Any:
        """The rows that commit with a transaction, or are due later."""
        return self._kind(Outbox, AsyncOutbox)(self._database, self.services.sealer)

    @property
    def stored(self) -> Any:
        """The schedules that handlers have put."""
        kind = self._kind(StoredSchedules, AsyncStoredSchedules)
        return kind(self._database, self.services.sealer)

    @property
    def clock(self) -> Any:
        """The database's."""
        return self._kind(DatabaseClock, AsyncDatabaseClock)(self._database)

    @property
    def past(self) -> Any:
        """The ends that the history has."""
        return self._kind(PastEnds, AsyncPastEnds)(self._database, self.services.sealer)

    def pause(self) -> Any:
        """A step that lets others have the event loop, if there is one."""
        return asyncio.sleep(0) if self.is_async else None

    def _kind(self, plain: Any, awaited: Any) -> Any:
        return awaited if self.is_async else plain

    @property
    def _database(self) -> Any:
        return (self._store or self.services.store).database
