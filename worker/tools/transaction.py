"""Transactions: a whole handler exactly once, or a part of one all together.

A handler's transaction begins with a marker (``_id`` = run id) and ends by putting the result
into it. So a rerun of a run that had committed finds the marker, and answers its result
without running the handler.

The session's id is told before the transaction starts. A worker that dies leaves its
transaction open on the server, and other writers of its records wait for it: whoever takes
the run over ends it with `kill_sessions`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pymongo
from bson.binary import Binary
from pymongo.client_session import ClientSession
from pymongo.database import Database
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from callboard import strict_json
from callboard.errors import DatabaseUnavailable, ServiceUnavailable, TransactionConflict
from callboard.sdk.results import ActionResult

from .deadline import time_left, within
from .faults import outage
from .values import now

__all__ = [
    "MARKERS",
    "MARKER_TTL",
    "Transaction",
    "kill_sessions",
    "part_transaction",
    "run_in_transaction",
]

MARKERS = "_markers"
"""The collection of markers: ``{_id: run id, action, createdAt, result}``."""

MARKER_TTL = 48 * 3600  # seconds: longer than a seal lives, so no rerun outlives its marker

ABORT_TIMEOUT = 0.5  # seconds; what is left open then ends with the session
KILL_TIMEOUT = 1.5  # seconds
COMMIT_AGAIN = "UnknownTransactionCommitResult"

Store = Callable[[], Database[dict[str, Any]]]


@dataclass(slots=True, kw_only=True)
class Transaction:
    """An open transaction and what became of it; `worker.tools.tools.Tools` works inside one."""

    session: ClientSession
    doomed: ActionResult | None = None  # the first failure of a write that the database refused
    broken: ServiceUnavailable | None = None  # the database went away, or a conflict

    def check(self) -> None:
        """Raise what broke the transaction, even if the handler took no notice of it."""
        if self.broken is not None:
            raise self.broken


def run_in_transaction(
    *,
    database: Store,
    run_id: str,
    action: str,
    deadline: float | None,
    before_start: Callable[[str], None],
    body: Callable[[Transaction], ActionResult],
) -> ActionResult:
    """Run ``body`` exactly once: its writes and its result commit together or not at all.

    ``before_start`` gets the session id (a UUID's text) before anything is written. ``body``
    is called anew on each try, so tools that it builds count from the start. A failure, or an
    exception, leaves nothing behind. After a conflict or an outage it is tried again until
    ``deadline`` (`time.monotonic` seconds; None: for ever); then `TransactionConflict` or
    `DatabaseUnavailable` is raised.
    """
    with _session(database, deadline) as session:
        before_start(_session_id(session))
        pauses = _pauses()
        while True:
            try:
                return _attempt(database(), session, run_id, action, deadline, body)
            except (DatabaseUnavailable, TransactionConflict):
                pause = next(pauses)
                if time_left(deadline) <= pause:
                    raise
                time.sleep(pause)


@contextmanager
def part_transaction(
    *, database: Store, deadline: float | None, on_session: Callable[[str], None]
) -> Iterator[Transaction]:
    """A transaction around the ``with`` block; it commits at the end of the block.

    An exception in the block, and a write that the database refused, roll it back. Raises
    `TransactionConflict` or `DatabaseUnavailable` when it could not commit: the block cannot
    be run again from here.
    """
    with _session(database, deadline) as session:
        on_session(_session_id(session))
        with _begun(session) as transaction:
            yield transaction
            transaction.check()
            if transaction.doomed is None:
                _commit(session, deadline)


def kill_sessions(database: Database[dict[str, Any]], session_ids: Sequence[str]) -> None:
    """End the sessions of stopped or dead children, and with them the transactions left open.

    Harmless for a session that is gone, and for what is no session's id: whoever writes Redis may
    have put it there. Raises `DatabaseUnavailable`, within `KILL_TIMEOUT`.
    """
    targets = [{"id": Binary.from_uuid(one)} for one in map(_uuid, session_ids) if one]
    if not targets:
        return
    try:
        with pymongo.timeout(KILL_TIMEOUT):
            database.client.admin.command("killSessions", targets)
    except PyMongoError as error:
        raise outage(error) or error from error


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _attempt(
    database: Database[dict[str, Any]],
    session: ClientSession,
    run_id: str,
    action: str,
    deadline: float | None,
    body: Callable[[Transaction], ActionResult],
) -> ActionResult:
    """One try: marker, body, result, commit."""
    markers = database[MARKERS]
    with _begun(session) as transaction:
        try:
            with _bounded(deadline):
                markers.insert_one(
                    {"_id": run_id, "action": action, "createdAt": now()}, session=session
                )
        except DuplicateKeyError:
            return _committed(database, run_id, deadline)
        result = _settled(transaction, body)
        if isinstance(result, ActionResult) and result.success:
            text = strict_json.dumps(result.data).decode()
            with _bounded(deadline):
                markers.update_one({"_id": run_id}, {"$set": {"result": text}}, session=session)
            _commit(session, deadline)
        return result


def _settled(transaction: Transaction, body: Callable[[Transaction], ActionResult]) -> ActionResult:
    """The body's result, unless the database has already decided otherwise."""
    try:
        result = body(transaction)
    except Exception:
        transaction.check()
        raise
    transaction.check()
    return transaction.doomed or result


def _committed(
    database: Database[dict[str, Any]], run_id: str, deadline: float | None
) -> ActionResult:
    """The result of the run's earlier, committed transaction."""
    with _bounded(deadline):
        marker = database[MARKERS].find_one({"_id": run_id})
    if marker is None:  # its time was up just now
        raise DatabaseUnavailable("The run's marker has expired")
    return ActionResult(success=True, data=strict_json.loads(marker["result"]))


@contextmanager
def _session(database: Store, deadline: float | None) -> Iterator[ClientSession]:
    with _bounded(deadline):
        session = database().client.start_session()
    with session:
        yield session


def _session_id(session: ClientSession) -> str:
    identity: Binary = session.session_id["id"]
    return str(identity.as_uuid())


@contextmanager
def _begun(session: ClientSession) -> Iterator[Transaction]:
    """A started transaction; one that is not committed at the end of the block is aborted."""
    session.start_transaction(
        read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority", j=True)
    )
    try:
        yield Transaction(session=session)
    finally:
        if session.in_transaction:
            with pymongo.timeout(ABORT_TIMEOUT):
                session.abort_transaction()


def _commit(session: ClientSession, deadline: float | None) -> None:
    """Commit, again and again while the outcome is unknown and time is left."""
    pauses = _pauses()
    while True:
        try:
            with within(deadline):
                session.commit_transaction()
            return
        except PyMongoError as error:
            pause = next(pauses)
            if not error.has_error_label(COMMIT_AGAIN) or time_left(deadline) <= pause:
                raise outage(error) or error from error
            time.sleep(pause)


@contextmanager
def _bounded(deadline: float | None) -> Iterator[None]:
    """Bound the block's calls and name an outage."""
    try:
        with within(deadline):
            yield
    except PyMongoError as error:
        if (lost := outage(error)) is not None:
            raise lost from error
        raise


def _pauses() -> Iterator[float]:
    """Seconds to wait before each next try: growing, and uneven so that rivals part."""
    longest = 0.01
    while True:
        yield random.uniform(longest / 2, longest)  # noqa: S311 - jitter, not a secret
        longest = min(longest * 2, 0.5)
