"""The run record: the truth about a run, and the only way to read or change it.

It lives in Redis and changes only by the scripts of `callboard.runs.scripts`; their table says
who changes what. What it holds of the call and of the result is sealed (`callboard.runs.seal`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import starmap
from typing import Any, cast

import redis

from callboard.connections.keys import Keys
from callboard.connections.redis import PipelinedConnection, exchange, guarded, of_type
from callboard.errors import RunRefused, SealError
from callboard.runs.commands import (
    IDEMPOTENCY_MS,
    Accepted,
    Claim,
    Commands,
    ScriptArguments,
    Wait,
    decoded,
)
from callboard.runs.counters import observation
from callboard.runs.ends import END, End
from callboard.runs.kept import Kept, kept_steps
from callboard.runs.outcome import Outcome
from callboard.runs.record import RECORD, ROW, RunRecord, open_record, open_result, open_row
from callboard.runs.report import Sealed
from callboard.runs.seal import CALL_LIFETIME, Call, Sealer
from callboard.runs.signals import Sent
from callboard.runs.start import Start
from callboard.sdk.action import Action

__all__ = ["Accepted", "Claim", "ReceiveMessage", "Runs"]

WAIT_SECONDS = 0.2  # that `Runs.request_message` waits for a message

ReceiveMessage = Callable[[], bytes | None]
"""Receives the message that was requested before; None if none has come."""


class Runs(Commands):
    """The run records of one application, over one client."""

    def __init__(self, client: redis.Redis, sealer: Sealer, keys: Keys) -> None:
        super().__init__(sealer, keys)
        self._redis = client
        self._pipelined = PipelinedConnection(client)

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        self._pipelined.close()
        self._redis.close()

    def accept(self, run_id: str, action: Action, call: Call, **options: Any) -> Accepted:
        """Write the record and queue the message, in one step.

        ``options``: those of `acceptance`. Raises what `accepted` raises.
        """
        return self.accepted(
            self._call("accept", *self.acceptance(run_id, action, call, **options))
        )

    def accept_many(
        self, starts: Sequence[Start], *, max_queue: int, result_ttl: int
    ) -> list[Accepted | RunRefused]:
        """`accept` each; raises `BrokerUnavailable`."""
        answers = self._all(
            "accept", lambda: (self.starting(start, max_queue, result_ttl) for start in starts)
        )
        return [self.taken(answer) for answer in answers]

    def ends(self, run_ids: Sequence[str]) -> list[End | None]:
        """How these runs stand; None for one without a record, or that cannot be read."""
        with guarded():
            found = self._replies("hmget", run_ids, END) if run_ids else []
        return [self.end_of(*pair) for pair in zip(run_ids, found, strict=True)]

    def keyed(self, key: str) -> tuple[str, str] | None:
        """The run that an idempotency key (scoped) leads to, and the digest of its body."""
        with guarded():
            return self.keyed_as(cast("bytes | None", self._redis.get(self.keys.idempotency(key))))

    def present(self, run_ids: Sequence[str]) -> set[str]:
        """Those of the runs that have a record."""
        if not run_ids:
            return set()
        with guarded():
            found = self._replies("exists", run_ids)
        return {run_id for run_id, there in zip(run_ids, found, strict=True) if there}

    def claim(self, run_id: str, action: str, holder: str, lease: float) -> Claim:
        """Take the run for ``lease`` seconds, if the record allows it."""
        return self.claimed(
            self._call_pipelined("claim", *self.claiming(run_id, action, holder, lease))
        )

    def renew(self, held: Sequence[tuple[str, str]], lease: float) -> list[str]:
        """Extend the claims on ``(run id, holder)`` pairs.

        Answers for each pair: held, cancel (held, and to be stopped), taken (by another holder),
        queued or ended.
        """
        flat = [part for pair in held for part in pair]
        return decoded(self._call("renew", [self.keys.open], [int(lease * 1000), *flat]))

    def finish(self, run_id: str, action: str, holder: str, outcome: Outcome) -> bool:
        """End the run and wake whoever waits; False if ``holder`` no longer holds it."""
        return bool(self._call("finish", *self.ending(run_id, action, holder, outcome)))

    def finish_and_request(
        self, run_id: str, action: str, holder: str, outcome: Outcome, queues: Sequence[str]
    ) -> tuple[bool, ReceiveMessage]:
        """`finish`, and at once request the next message of ``queues`` (`request_message`)."""
        keys, arguments = self.ending(run_id, action, holder, outcome)
        finish = self.command("finish", keys, arguments)
        with guarded("finish"):
            try:
                done = self._pipelined.send(finish, ["BRPOP", *queues, WAIT_SECONDS])
            except redis.exceptions.NoScriptError:  # of a server that was started since
                taken = self._pipelined.receive()
                return bool(self._call("finish", keys, arguments)), lambda: taken and taken[1]
        return bool(done), self._receive

    def request_message(self, queues: Sequence[str]) -> ReceiveMessage:
        """Request the next message of these queues, the first one's first.

        ``queues``: the keys of their lists (`Keys.queue`).
        """
        with guarded(" ".join(queues)):
            taken = self._pipelined.send(["BRPOP", *queues, WAIT_SECONDS])
        return lambda: taken and taken[1]

    def put_back(self, queue: str, message: bytes) -> None:
        """Put a message that was taken in front of the queue; its run was not claimed.

        ``queue``: the list's key, as in `request_message`.
        """
        with guarded(queue):
            self._redis.rpush(queue, message)

    def _receive(self) -> bytes | None:
        with guarded("the queues"):
            taken: list[bytes] | None = self._pipelined.receive()
        return taken[1] if taken else None

    def requeue(
        self, run_id: str, holder: str, delay: float = 0.0, report: Sealed | None = None
    ) -> bool:
        """Give the run back to the queue, to be claimed after ``delay`` seconds.

        ``report``: of the attempt that has ended so.
        """
        return bool(self._call("requeue", *self.requeuing(run_id, holder, delay, report)))

    def lose(self, run_id: str, holder: str) -> tuple[int, bool]:
        """The holder died: queue the run again, unless that happened as often as it may.

        Returns how often the run was lost, -1 if ``holder`` no longer holds it; and whether that
        is too often: then it is still the holder's, to be finished.
        """
        lost, over = self._call("lose", self._run_and_open(run_id), [run_id, holder])
        return lost, bool(over)

    def cancel(self, run_id: str, action: str, outcome: Outcome) -> None:
        """End a run that is queued or waits; mark a running one, for its keeper to stop."""
        self._call(
            "cancel", self._run_and_open(run_id), [run_id, *self._sealed(run_id, action, outcome)]
        )

    def cancel_new(self, runs: Sequence[tuple[str, str]]) -> None:
        """End those of these (run id, action) that have not started."""
        self._all("cancel", lambda: starmap(self._canceling_new, runs))

    def _canceling_new(self, run_id: str, action: str) -> ScriptArguments:
        sealed = self._sealed(run_id, action, Outcome.canceled(run_id))
        return self._run_and_open(run_id), [run_id, *sealed, "1"]

    def actions(self, run_ids: Sequence[str]) -> dict[str, str]:
        """The actions of those of the runs that have a record."""
        with guarded():
            found = self._replies("hget", run_ids, "action")
        known = zip(run_ids, found, strict=True)
        return {run_id: decoded([action])[0] for run_id, action in known if action}

    def release(self, most: int, max_queue: int) -> int:
        """Queue up to ``most`` runs that waited and are due; returns how many there were.

        Those for a queue with ``max_queue`` messages wait another second.
        """
        return int(self._call("release", [self.keys.open], [most, max_queue]))

    def admit(self, most: int) -> int:
        """Look at up to ``most`` limits and keys with runs that wait for a slot, if it is time;
        returns at how many."""
        return int(self._call("admit", [self.keys.open], [most]))

    def set_limits(self, limits: Mapping[str, str]) -> None:
        """Have the actions' limits be these (`Limit.numbers`), and no others; what waits for a slot
        is looked at anew."""
        with guarded(self.keys.limits):
            known = cast("list[bytes]", self._redis.hkeys(self.keys.limits))
            gone = {action.decode(errors="replace"): "0 0 0" for action in known}
            if numbers := {**gone, **limits}:
                pipeline = self._redis.pipeline()
                pipeline.hset(self.keys.limits, mapping=cast("Any", numbers))
                pipeline.zunionstore(self.keys.limited, {self.keys.limited: 0})
                pipeline.execute()

    def reschedule(self, record: RunRecord, call: Call, delay: int) -> bool:
        """Have a run that waits for its time due in ``delay`` milliseconds; False if it does not.

        ``call``: the record's, with the later expiry.
        """
        sealed = self.sealer.seal("call", record.id, record.action, call.to_json())
        arguments = [record.id, sealed, delay, IDEMPOTENCY_MS + delay]
        return bool(self._call("reschedule", [self.keys.run(record.id)], arguments)[1])

    def signal(self, run_id: str, action: str, name: str, value: Any) -> Sent:
        """Tell a run something: it is queued at once, if it waits for that, and else keeps it.

        ``name``: see `callboard.sdk.names.signal_name`; ``value``: any JSON. Raises `NewerFormat`.
        """
        answer = self._call("signal", *self.signaling(run_id, action, name, value))
        return self.signaled(run_id, answer)

    def retry(self, record: RunRecord, call: Call) -> bool:
        """Start a run that ended retryable again, under its id; False if it has not so ended.

        ``call``: the record's, perhaps with a later expiry.
        """
        sealed = self.sealer.seal("call", record.id, record.action, call.to_json())
        return bool(self._call("retry", self._run_and_open(record.id), [record.id, sealed]))

    def expire(self, run_id: str, action: str, outcome: Outcome) -> None:
        """End a run that stayed queued longer than its seal is good for."""
        self._call(
            "expire", self._run_and_open(run_id), [run_id, *self._sealed(run_id, action, outcome)]
        )

    def note_session(self, run_id: str, holder: str, session: str) -> bool:
        """Remember the MongoDB session of a transaction, before it starts."""
        return bool(self._call("note", *self.noting(run_id, holder, "session", session)))

    def session(self, run_id: str) -> str:
        """The MongoDB session of the run's open transaction; "" for none."""
        with guarded():
            found = cast("bytes | None", self._redis.hget(self.keys.run(run_id), "session"))
        return found.decode(errors="replace") if found else ""

    def note_progress(self, run_id: str, action: str, holder: str, progress: bytes) -> bool:
        """Show how far the run is, and wake who watches it."""
        return bool(self._call("note", *self.progressing(run_id, action, holder, progress)))

    def keep(
        self, run_id: str, action: str, holder: str, number: int, content: bytes, unless: str = ""
    ) -> bytes | None:
        """Keep a step of the handler: see `keeping` and `is_kept`."""
        keys, arguments = self.keeping(run_id, action, holder, number, content, unless)
        return self.is_kept(self._call_pipelined("keep", keys, arguments))

    def steps(self, run_id: str, action: str, count: int) -> list[Kept]:
        """The first so many steps of the run, in their order; raises `SealError`."""
        with guarded():
            [found] = self._replies("hmget", [run_id], self.step_fields(count))
        return kept_steps(self.sealer, run_id, action, found or ())

    def park(
        self,
        run_id: str,
        action: str,
        holder: str,
        call: Call,
        wait: Wait,
        spent: float,
        report: Sealed | None = None,
    ) -> bool:
        """The handler waits: see `parking`. False if ``holder`` no longer holds the run."""
        command = self.parking(run_id, action, holder, call, wait, spent, report)
        return bool(self._call("park", *command))

    def signal_sent(self, run_id: str, name: str) -> bytes | None:
        """The signal, sealed (`open_signal`); None as long as it has not come, or never came."""
        with guarded():
            [found] = self._replies("hget", [run_id], f"signal:{name}")
        return cast("bytes | None", found or None)

    def now(self) -> int:
        """The broker's time, in epoch milliseconds: what decides when a run is due."""
        with guarded():
            seconds, micros = self._redis.time()
        return seconds * 1000 + micros // 1000

    def watch(self, run_id: str, channel: str) -> bool:
        """Have ``channel`` told of each change; False if there is no such run."""
        return self._call("watch", [self.keys.run(run_id)], [channel]) is not None

    def sweep(self, limit: int = 20) -> list[tuple[str, str]]:
        """Send missing wake-ups again; returns ids and actions of runs that are to expire."""
        arguments = [limit, CALL_LIFETIME * 1000]
        overdue = decoded(self._call("sweep", [self.keys.open, self.keys.sweep], arguments))
        return list(zip(overdue[::2], overdue[1::2], strict=True))

    def count(self, name: str) -> None:
        """Add one to a counter that all processes share."""
        with guarded(self.keys.counters):
            self._redis.hincrby(self.keys.counters, name, 1)

    def observe(self, what: str, name: str, ms: int) -> None:
        """Add a time to the counters that all processes share."""
        with guarded(self.keys.counters):
            pipeline = self._redis.pipeline(transaction=False)
            for field, number in observation(what, name, ms).items():
                pipeline.hincrby(self.keys.counters, field, number)
            pipeline.execute()

    def read(self, run_id: str) -> RunRecord | None:
        """The run as it stands, or None; raises `SealError` for one that cannot be read."""
        with guarded():
            [found] = self._replies("hmget", [run_id], RECORD)
        pairs = zip(RECORD, found or (), strict=bool(found))
        values = {name: value for name, value in pairs if value is not None}
        return open_record(self.sealer, run_id, values) if values else None

    def sealed_fields(self, run_id: str) -> dict[bytes, bytes]:
        """What the record has of the run's attempts and steps, sealed (`callboard.runs.attempts`,
        `callboard.runs.step_times`); as large as all of its steps."""
        with guarded():
            [values] = self._replies("hgetall", [run_id])
        found: dict[bytes, bytes] = values or {}
        return found

    def rows(self, run_ids: Sequence[str]) -> list[RunRecord | SealError | None]:
        """These runs as a list shows them, without call, result and progress.

        None for a run without a record, the error for one that cannot be read.
        """
        with guarded():
            found = self._replies("hmget", run_ids, ROW)
        rows = [dict(zip(ROW, values, strict=True)) if values else {} for values in found]
        return [self._row(run_id, row) for run_id, row in zip(run_ids, rows, strict=True)]

    def results(self, runs: Iterable[str]) -> dict[str, bytes]:
        """The sealed results of those of ``runs`` that have ended."""
        wanted = list(runs)
        with guarded():
            found = self._replies("hget", wanted, "result")
        return {run_id: sealed for run_id, sealed in zip(wanted, found, strict=True) if sealed}

    def _replies(self, command: str, run_ids: Iterable[str], *arguments: Any) -> list[Any]:
        """What the server answers about each; None about what is no record (`SealError` later)."""
        pipeline = self._redis.pipeline(transaction=False)
        for run_id in run_ids:
            getattr(pipeline, command)(self.keys.run(run_id), *arguments)
        replies = pipeline.execute(raise_on_error=False)
        return [of_type(reply) for reply in replies]

    def open_result(self, run_id: str, action: str, sealed: bytes) -> Outcome:
        """A sealed result, as it came in a reply or stands in the record."""
        return open_result(self.sealer, run_id, action, sealed)

    def _row(self, run_id: str, values: Mapping[bytes, bytes]) -> RunRecord | SealError | None:
        if not values.get(b"status"):
            return None
        try:
            if not values[b"origin"]:  # of a version that had none
                return self.read(run_id)
            return open_row(self.sealer, run_id, values)
        except SealError as error:
            return error

    def _call(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        with guarded(script):
            try:
                return self._redis.execute_command(  # type: ignore[no-untyped-call]
                    *self.command(script, keys, arguments)
                )
            except redis.exceptions.NoScriptError:  # of a server that was started since
                return self._redis.eval(self.text(script), len(keys), *keys, *arguments)

    def _all(self, script: str, calls: Callable[[], Iterable[ScriptArguments]]) -> list[Any]:
        """What the script answers to each, an exception where it failed.

        ``calls``: makes keys and arguments; again, where a connection was lost, and for a server
        that was started since: what was done before stays as it is.
        """
        with guarded(script):
            try:
                answers = self._exchange(script, calls)
            except (redis.RedisError, OSError):
                answers = self._exchange(script, calls)
            if any(isinstance(answer, redis.exceptions.NoScriptError) for answer in answers):
                self._redis.script_load(self.text(script))
                answers = self._exchange(script, calls)
        return answers

    def _exchange(self, script: str, calls: Callable[[], Iterable[ScriptArguments]]) -> list[Any]:
        return exchange(self._redis, (self.command(script, *call) for call in calls()))

    def _call_pipelined(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """`_call`, over the thread's own connection."""
        try:
            return self._pipelined.send(self.command(script, keys, arguments))
        except (redis.RedisError, OSError):  # as it is now: closed, or without the script
            return self._call(script, keys, arguments)
