"""The run record: the truth about a run, and the only way to read or change it.

It lives in Redis and changes only by the scripts of `callboard.run_scripts`; their table says
who changes what. What it holds of the call and of the result is sealed (`callboard.seal`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import redis

from callboard import message
from callboard.action import Action
from callboard.broker import Line, guarded
from callboard.counters import COUNTERS, observation
from callboard.errors import KeyReused, QueueFull, SealError
from callboard.live import caller_tag
from callboard.outcome import Outcome
from callboard.run_scripts import OPEN, SCRIPTS
from callboard.seal import CALL_LIFETIME, Call, Sealer

__all__ = ["Accepted", "Claim", "RunRecord", "Runs", "Status", "Take"]

Status = Literal["queued", "running", "succeeded", "failed", "canceled"]

WAIT_SECONDS = 0.2  # that `Runs.ask` waits for a message
IDEMPOTENCY_MS = 86_400_000  # how long an idempotency key, and the result behind it, are kept


class Accepted(NamedTuple):
    """How `Runs.accept` ended."""

    run_id: str
    joined: bool  # True: an idempotency key led to a run that exists


Take = Callable[[], bytes | None]
"""Takes the message that was asked for before; None if none has come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a worker learns when it asks for a run."""

    state: Literal["claimed", "held", "early", "ended", "gone"]
    seal: bytes = field(default=b"", repr=False)
    attempt: int = 0  # 1-based handler starts, this one included
    lost: int = 0  # workers that died with this run
    age: float = 0.0  # seconds since the first start of the handler
    session: str = ""  # the MongoDB session of the holder before, hex; "" for none


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as it stands, opened. Times are epoch milliseconds."""

    id: str
    action: str
    status: Status
    call: Call
    enqueued: int
    started: int | None
    ended: int | None
    attempt: int
    lost: int
    outcome: Outcome | None  # set once the run has ended
    progress: bytes | None  # JSON of {"fraction", "message"}

    @property
    def caller(self) -> str | None:
        """Who asked for it; None for an anonymous caller."""
        return self.call.caller

    @property
    def error(self) -> str | None:
        """Why it failed, as its caller is told; None while it has not."""
        return self.outcome.error if self.outcome else None


class Runs:
    """The run records of one application."""

    def __init__(self, client: redis.Redis, sealer: Sealer) -> None:
        self._redis = client
        self._line = Line(client)
        self.sealer = sealer
        self._scripts = {name: client.register_script(text) for name, text in SCRIPTS.items()}

    def accept(self, run_id: str, action: Action, call: Call, **options: Any) -> Accepted:
        """Write the record and queue the message, in one step.

        ``options``: those of `acceptance`. Raises what `accepted` raises.
        """
        return self.accepted(
            self._call("accept", *self.acceptance(run_id, action, call, **options))
        )

    def acceptance(
        self,
        run_id: str,
        action: Action,
        call: Call,
        *,
        max_queue: int,
        result_ttl: int,
        idempotency: tuple[str, str] | None = None,
    ) -> tuple[list[str], list[Any]]:
        """The keys and arguments of the script ``accept``.

        ``idempotency``: a key (already scoped to caller and action) and the digest of the body.
        """
        key, digest = idempotency or ("", "")
        ttl = IDEMPOTENCY_MS if idempotency else result_ttl * 1000
        keys = [_run(run_id), OPEN, action.queue, f"callboard:idempotency:{key}"]
        arguments = [
            run_id, action.name, self.sealer.seal("call", run_id, action.name, call.to_json()),
            self._message(run_id, action, call), max_queue, ttl, digest, IDEMPOTENCY_MS,
            caller_tag(self.sealer, call.caller) if call.caller else "",
        ]  # fmt: skip
        return keys, arguments

    def accepted(self, answer: Any) -> Accepted:
        """What the script ``accept`` answered, or the exception that came instead.

        Raises `KeyReused`, `QueueFull`, `BrokerUnavailable`.
        """
        if isinstance(answer, Exception):
            with guarded():
                raise answer
        state, value = _text(answer)
        if state == "reused":
            raise KeyReused("Idempotency-Key was already used with another body; send a new key")
        if state == "full":
            queue, depth = value.rsplit(" ", 1)
            raise QueueFull(f"The queue {queue!r} is full ({depth} runs). Try again shortly.")
        return Accepted(value, joined=state == "joined")

    def _message(self, run_id: str, action: Action, call: Call) -> str:
        wakeup = message.Wakeup(action.task, run_id, action.display(call.params))
        return message.compose(action.queue, wakeup, self.sealer.sign(*wakeup))

    def claim(self, run_id: str, action: str, holder: str, lease: float) -> Claim:
        """Take the run for ``lease`` seconds, if the record allows it."""
        keys, arguments = [_run(run_id), OPEN], [run_id, action, holder, int(lease * 1000)]
        state, *rest = self._call_on_line("claim", keys, arguments)
        if state != b"claimed":
            return Claim(state=state.decode())
        seal, attempt, lost, session, age = rest
        return Claim(
            state="claimed",
            seal=seal,
            attempt=attempt,
            lost=lost,
            session=session.decode(),
            age=age / 1000,
        )

    def renew(self, held: Sequence[tuple[str, str]], lease: float) -> list[str]:
        """Extend the claims on ``(run id, holder)`` pairs.

        Answers for each pair: held, cancel (held, and to be stopped), taken (by another holder),
        queued or ended.
        """
        flat = [part for pair in held for part in pair]
        return _text(self._call("renew", [OPEN], [int(lease * 1000), *flat]))

    def finish(
        self, run_id: str, action: str, holder: str, outcome: Outcome, reply: str | None
    ) -> bool:
        """End the run and wake whoever waits; False if ``holder`` no longer holds it."""
        return bool(self._call("finish", *self._end(run_id, action, holder, outcome, reply)))

    def finish_and_ask(
        self,
        run_id: str,
        action: str,
        holder: str,
        outcome: Outcome,
        reply: str | None,
        queues: Sequence[str],
    ) -> tuple[bool, Take]:
        """`finish`, and at once ask for the next message of ``queues``, as `ask` does."""
        keys, arguments = self._end(run_id, action, holder, outcome, reply)
        finish = self.command("finish", keys, arguments)
        with guarded():
            try:
                done = self._line.send(finish, ["BRPOP", *queues, WAIT_SECONDS])
            except redis.exceptions.NoScriptError:  # of a server that was started since
                taken = self._line.receive()
                return bool(self._call("finish", keys, arguments)), lambda: taken and taken[1]
        return bool(done), self._take

    def ask(self, queues: Sequence[str]) -> Take:
        """Ask for the next message of these queues, the first one's first."""
        with guarded():
            taken = self._line.send(["BRPOP", *queues, WAIT_SECONDS])
        return lambda: taken and taken[1]

    def put_back(self, queue: str, message: bytes) -> None:
        """Put a message that was taken in front of the queue; its run was not claimed."""
        with guarded():
            self._redis.rpush(queue, message)

    def _take(self) -> bytes | None:
        with guarded():
            taken: list[bytes] | None = self._line.receive()
        return taken[1] if taken else None

    def _end(
        self, run_id: str, action: str, holder: str, outcome: Outcome, reply: str | None
    ) -> tuple[list[str], list[Any]]:
        """The keys and arguments of the script."""
        sealed = self.sealer.seal("result", run_id, action, outcome.to_bytes())
        again = "1" if outcome.retryable else "0"
        return [_run(run_id), OPEN], [run_id, holder, outcome.status, sealed, again, reply or ""]

    def requeue(self, run_id: str, holder: str, delay: float = 0.0) -> bool:
        """Give the run back to the queue, to be claimed after ``delay`` seconds."""
        return bool(
            self._call("requeue", [_run(run_id), OPEN], [run_id, holder, int(delay * 1000)])
        )

    def lose(self, run_id: str, holder: str, limit: int) -> int:
        """The holder died: queue the run again, unless this was loss number ``limit``.

        Returns how often the run was lost; -1 if ``holder`` no longer holds it.
        """
        return int(self._call("lose", [_run(run_id), OPEN], [run_id, holder, limit]))

    def cancel(self, run_id: str, action: str, outcome: Outcome, reply: str | None) -> None:
        """End a queued run; mark a running one, for its keeper to stop."""
        sealed = self.sealer.seal("result", run_id, action, outcome.to_bytes())
        self._call("cancel", [_run(run_id), OPEN], [run_id, sealed, reply or ""])

    def retry(self, record: RunRecord, call: Call) -> bool:
        """Start a run that ended retryable again, under its id; False if it has not so ended.

        ``call``: the record's, perhaps with a later expiry.
        """
        sealed = self.sealer.seal("call", record.id, record.action, call.to_json())
        return bool(self._call("retry", [_run(record.id), OPEN], [record.id, sealed]))

    def expire(self, run_id: str, action: str, outcome: Outcome, reply: str | None) -> None:
        """End a run that stayed queued longer than its seal is good for."""
        sealed = self.sealer.seal("result", run_id, action, outcome.to_bytes())
        self._call("expire", [_run(run_id), OPEN], [run_id, sealed, reply or ""])

    def note_session(self, run_id: str, holder: str, session: str) -> bool:
        """Remember the MongoDB session of a transaction, before it starts."""
        return bool(self._call("note", [_run(run_id)], [run_id, holder, "session", session]))

    def session(self, run_id: str) -> str:
        """The MongoDB session of the run's open transaction; "" for none."""
        with guarded():
            found = cast("bytes | None", self._redis.hget(_run(run_id), "session"))
        return found.decode() if found else ""

    def note_progress(self, run_id: str, action: str, holder: str, progress: bytes) -> bool:
        """Show how far the run is, and wake who watches it."""
        sealed = self.sealer.seal("progress", run_id, action, progress)
        return bool(self._call("note", [_run(run_id)], [run_id, holder, "progress", sealed]))

    def watch(self, run_id: str, channel: str) -> bool:
        """Have ``channel`` told of each change; False if there is no such run."""
        return self._call("watch", [_run(run_id)], [channel]) is not None

    def sweep(self, limit: int = 20) -> list[str]:
        """Send missing wake-ups again; returns queued runs that outlived their seal."""
        arguments = [limit, CALL_LIFETIME * 1000]
        return _text(self._call("sweep", [OPEN, "callboard:sweep"], arguments))

    def count(self, name: str) -> None:
        """Add one to a counter that all processes share (``callboard:counters``)."""
        with guarded():
            self._redis.hincrby(COUNTERS, name, 1)

    def observe(self, what: str, name: str, ms: int) -> None:
        """Add a time to the counters that all processes share."""
        with guarded():
            pipeline = self._redis.pipeline(transaction=False)
            for field, number in observation(what, name, ms).items():
                pipeline.hincrby(COUNTERS, field, number)
            pipeline.execute()

    def read(self, run_id: str) -> RunRecord | None:
        """The run as it stands, or None; raises `SealError` if it was tampered with."""
        with guarded():
            values = cast("dict[bytes, bytes]", self._redis.hgetall(_run(run_id)))
        return self._opened(run_id, values) if b"seal" in values else None

    def read_all(self, run_ids: Sequence[str]) -> Iterator[RunRecord]:
        """Those of these runs that have a record; one that was tampered with is left out."""
        with guarded():
            pipeline = self._redis.pipeline(transaction=False)
            for run_id in run_ids:
                pipeline.hgetall(_run(run_id))
            found = pipeline.execute()
        for run_id, values in zip(run_ids, found, strict=True):
            if b"seal" in values:
                with contextlib.suppress(SealError):
                    yield self._opened(run_id, values)

    def results(self, runs: Iterable[str]) -> dict[str, bytes]:
        """The sealed results of those of ``runs`` that have ended."""
        wanted = list(runs)
        with guarded():
            pipeline = self._redis.pipeline(transaction=False)
            for run_id in wanted:
                pipeline.hget(_run(run_id), "result")
            found = pipeline.execute()
        return {run_id: sealed for run_id, sealed in zip(wanted, found, strict=True) if sealed}

    def open_result(self, run_id: str, action: str, sealed: bytes) -> Outcome:
        """A sealed result, as it came in a reply or stands in the record."""
        return Outcome.from_bytes(self.sealer.open("result", run_id, action, sealed))

    def _opened(self, run_id: str, values: Mapping[bytes, bytes]) -> RunRecord:
        action = values[b"action"].decode()
        result, progress = values.get(b"result"), values.get(b"progress")
        return RunRecord(
            id=run_id,
            action=action,
            status=cast(Status, values[b"status"].decode()),
            call=Call.from_json(self.sealer.open("call", run_id, action, values[b"seal"])),
            enqueued=int(values[b"enqueued"]),
            started=_number(values.get(b"started")),
            ended=_number(values.get(b"ended")),
            attempt=int(values.get(b"attempt", 0)),
            lost=int(values.get(b"lost", 0)),
            outcome=self.open_result(run_id, action, result) if result else None,
            progress=self.sealer.open("progress", run_id, action, progress) if progress else None,
        )

    def command(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        """The command that runs the script, where the server knows it."""
        return ["EVALSHA", self._scripts[script].sha, len(keys), *keys, *arguments]

    def _call(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        with guarded():
            try:
                return self._redis.execute_command(  # type: ignore[no-untyped-call]
                    *self.command(script, keys, arguments)
                )
            except redis.exceptions.NoScriptError:  # of a server that was started since
                return self._scripts[script](keys=keys, args=arguments)

    def _call_on_line(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """`_call`, over the thread's own connection."""
        try:
            return self._line.send(self.command(script, keys, arguments))
        except (redis.RedisError, OSError):  # as it is now: closed, or without the script
            return self._call(script, keys, arguments)


def _run(run_id: str) -> str:
    return f"callboard:run:{run_id}"


def _text(values: Iterable[bytes]) -> list[str]:
    return [value.decode() for value in values]


def _number(value: bytes | None) -> int | None:
    return None if value is None else int(value)
