"""Transactions: a whole handler exactly once, or a part of one all together.

A handler's transaction begins with a marker (``_id`` = run id) and ends by putting the result
into it. So a rerun of a run that had committed finds the marker, and answers its result
without running the handler.

The session's id is told before the transaction starts. A worker that dies leaves its
transaction open on the server, and other writers of its records wait for it: whoever takes
the run over ends it with `kill_sessions`.

What does I/O is steps (`callboard.sans_io`), for both kinds of handlers.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

import pymongo
from bson.binary import Binary
from pymongo.errors import DuplicateKeyError, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from callboard import strict_json
from callboard.connections.mongodb import AnyDatabase, AnySession
from callboard.errors import DatabaseUnavailable, ServiceUnavailable, TransactionConflict
from callboard.sans_io import Steps, awaited, plain
from callboard.sdk.results import ActionResult, is_result, ok

from .deadline import time_left, within
from .faults import outage
from .values import now

__all__ = [
    "ASYNC",
    "MARKERS",
    "MARKER_TTL",
    "PLAIN",
    "Kind",
    "Transaction",
    "close_part",
    "kill_sessions",
    "kill_sessions_async",
    "open_part",
    "run_in_transaction",
    "run_in_transaction_async",
]

MARKERS = "_markers"
"""The collection of markers: ``{_id: run id, action, createdAt, result}``."""

MARKER_TTL = 48 * 3600  # seconds: longer than a seal lives, so no rerun outlives its marker

ABORT_TIMEOUT = 0.5  # seconds; what is left open then ends with the session
KILL_TIMEOUT = 1.5  # seconds
COMMIT_AGAIN = "UnknownTransactionCommitResult"

Store = Callable[[], AnyDatabase]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What plain and async transactions do not share."""

    pause: Callable[[float], Any]  # for so many seconds; a step
    lock: Callable[[], asyncio.Lock | None]  # of a session that several tasks may use


PLAIN = Kind(pause=time.sleep, lock=lambda: None)
ASYNC = Kind(pause=asyncio.sleep, lock=asyncio.Lock)


@dataclass(slots=True, kw_only=True)
class Transaction:
    """An open transaction and what became of it; `worker.tools.tools` works inside one."""

    session: AnySession
    lock: asyncio.Lock | None = None  # held during a call: a session does one thing at a time
    doomed: ActionResult | None = None  # the first failure of a write that the database refused
    broken: ServiceUnavailable | None = None  # the database went away, or a conflict
    ended: bool = False  # no further call is part of it
    committed: list[Callable[[], Any]] = field(default_factory=list)
    """Steps that are gone through once it is committed; they raise nothing."""
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Of the starts in it, by key: the run, and the digest of its params."""

    def check(self) -> None:
        """Raise what broke the transaction, even if the handler took no notice of it."""
        if self.broken is not None:
            raise self.broken

    def end(self) -> Steps[None]:
        """Take no further call, and wait until what other tasks have called is over."""
        self.ended = True
        if self.lock is not None:
            yield self.lock.acquire()
            self.lock.release()

    def follow(self) -> Steps[None]:
        """It is committed: do what was put off until then."""
        for step in self.committed:
            yield step()


def _run(
    kind: Kind,
    *,
    database: Store,
    run_id: str,
    action: str,
    deadline: float | None,
    before_start: Callable[[str], Any],
    body: Callable[[Transaction], Any],
) -> Steps[ActionResult]:
    """Run ``body`` exactly once: its writes and its result commit together or not at all.

    ``before_start`` (a step) gets the session id (a UUID's text) before anything is written.
    ``body`` (a step: an `ActionResult`) is called anew on each try, so tools that it builds count
    from the start. A failure, or an exception, leaves nothing behind. After a conflict or an
    outage it is tried again until ``deadline`` (`time.monotonic` seconds; None: for ever); then
    `TransactionConflict` or `DatabaseUnavailable` is raised.
    """
    session = _session(database, deadline)
    try:
        yield before_start(_session_id(session))
        conflict: TransactionConflict | None = None
        pauses = _pauses()
        while True:
            try:
                begun = yield from _begin(kind, session)
                return (
                    yield from _attempt(database(), begun, run_id, action, deadline, body, kind)
                )
            except (DatabaseUnavailable, TransactionConflict) as error:
                if isinstance(error, TransactionConflict):
                    conflict = error
                pause = next(pauses)
                if time_left(deadline) <= pause:  # a conflict, if any, is what took it
                    raise (conflict or error) from None
                yield kind.pause(pause)
    finally:
        yield session.end_session()


run_in_transaction = plain(partial(_run, PLAIN))
run_in_transaction_async = awaited(partial(_run, ASYNC))


def open_part(
    kind: Kind, database: Store, deadline: float | None, on_session: Callable[[str], Any]
) -> Steps[Transaction]:
    """Begin the transaction of a part of a handler; ``on_session`` (a step) gets its session id."""
    session = _session(database, deadline)
    try:
        yield on_session(_session_id(session))
        return (yield from _begin(kind, session))
    except BaseException:
        yield session.end_session()
        raise


def close_part(
    kind: Kind, transaction: Transaction, deadline: float | None, *, commit: bool
) -> Steps[None]:
    """Commit it, unless the database refused a write of it, or roll it back.

    Raises `TransactionConflict` or `DatabaseUnavailable` when it could not commit: the part cannot
    be run again from here.
    """
    session = transaction.session
    try:
        yield from transaction.end()
        if commit:
            transaction.check()
            if transaction.doomed is None:
                yield from _commit(kind, session, deadline)
                yield from transaction.follow()
    finally:
        yield from _rolled_back(session)
        yield session.end_session()


def _kill(database: AnyDatabase, session_ids: Sequence[str]) -> Steps[None]:
    """End the sessions of stopped or dead children, and with them the transactions left open.

    Harmless for a session that is gone, and for what is no session's id: whoever writes Redis may
    have put it there. Raises `DatabaseUnavailable`, within `KILL_TIMEOUT`.
    """
    targets = [{"id": Binary.from_uuid(one)} for one in map(_uuid, session_ids) if one]
    if not targets:
        return
    try:
        with pymongo.timeout(KILL_TIMEOUT):
            yield database.client.admin.command("killSessions", targets)
    except PyMongoError as error:
        raise outage(error) or error from error


kill_sessions = plain(_kill)
kill_sessions_async = awaited(_kill)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _attempt(
    database: AnyDatabase,
    transaction: Transaction,
    run_id: str,
    action: str,
    deadline: float | None,
    body: Callable[[Transaction], Any],
    kind: Kind,
) -> Steps[ActionResult]:
    """One try: marker, body, result, commit."""
    markers, session = database[MARKERS], transaction.session
    try:
        marker = {"_id": run_id, "action": action, "createdAt": now()}
        try:
            with _bounded(deadline):
                yield markers.insert_one(marker, session=session)
        except DuplicateKeyError:
            return (yield from _committed(database, run_id, deadline))
        result = yield from _settled(transaction, body)
        if is_result(result) and result.success:
            text = strict_json.dumps(result.data).decode()
            with _bounded(deadline):
                yield markers.update_one(
                    {"_id": run_id}, {"$set": {"result": text}}, session=session
                )
            yield from _commit(kind, session, deadline)
            yield from transaction.follow()
        return result
    finally:
        yield from transaction.end()
        yield from _rolled_back(session)


def _settled(transaction: Transaction, body: Callable[[Transaction], Any]) -> Steps[ActionResult]:
    """The body's result, unless the database has already decided otherwise."""
    try:
        result = yield body(transaction)
    except Exception:
        transaction.check()
        raise
    yield from transaction.end()
    transaction.check()
    return transaction.doomed or result


def _committed(database: AnyDatabase, run_id: str, deadline: float | None) -> Steps[ActionResult]:
    """The result of the run's earlier, committed transaction."""
    with _bounded(deadline):
        marker = yield database[MARKERS].find_one({"_id": run_id})
    if marker is None:  # its time was up just now
        raise DatabaseUnavailable("The run's marker has expired")
    return ok(strict_json.loads(marker["result"]))


def _session(database: Store, deadline: float | None) -> AnySession:
    """A new session, which is to be ended."""
    with _bounded(deadline):
        return database().client.start_session()


def _session_id(session: AnySession) -> str:
    identity: Binary = session.session_id["id"]
    return str(identity.as_uuid())


def _begin(kind: Kind, session: AnySession) -> Steps[Transaction]:
    yield session.start_transaction(
        read_concern=ReadConcern("snapshot"), write_concern=WriteConcern("majority", j=True)
    )
    return Transaction(session=session, lock=kind.lock())


def _rolled_back(session: AnySession) -> Steps[None]:
    """Abort what has not been committed."""
    if session.in_transaction:
        with pymongo.timeout(ABORT_TIMEOUT):
            yield session.abort_transaction()


def _commit(kind: Kind, session: AnySession, deadline: float | None) -> Steps[None]:
    """Commit, again and again while the outcome is unknown and time is left."""
    pauses = _pauses()
    while True:
        try:
            with within(deadline):
                yield session.commit_transaction()
            return
        except PyMongoError as error:
            pause = next(pauses)
            if not error.has_error_label(COMMIT_AGAIN) or time_left(deadline) <= pause:
                raise outage(error) or error from error
        yield kind.pause(pause)


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
