"""The commands that change run records, and what their answers say: nothing is sent here.

`callboard.runs.store.Runs` sends them over a plain connection, a loop process over its own
(`worker.loop.runs`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha1
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from callboard import strict_json
from callboard.connections.keys import Keys
from callboard.connections.redis import guarded
from callboard.errors import (
    KeyReused,
    LimitKeyFailed,
    NewerFormat,
    QueueFull,
    RunRefused,
    SealError,
)
from callboard.runs import message
from callboard.runs.ends import END, End
from callboard.runs.kept import MAX_STEPS, no_room
from callboard.runs.limits import limit_arguments
from callboard.runs.live import caller_tag
from callboard.runs.outcome import Outcome
from callboard.runs.report import Sealed
from callboard.runs.scripts import scripts
from callboard.runs.seal import Call, Origin, Sealer
from callboard.runs.signals import MAX_SIGNALS, MAX_SIGNALS_BYTES, Sent, seal_signal
from callboard.runs.start import Start, Terms
from callboard.sdk.action import Action

__all__ = [
    "IDEMPOTENCY_MS",
    "Accepted",
    "Claim",
    "ClaimLost",
    "Commands",
    "ScriptArguments",
    "Wait",
    "decoded",
]

ERROR_LENGTH = 500  # characters of an error, where lists show it
IDEMPOTENCY_MS = 86_400_000  # how long an idempotency key, and the result behind it, are kept

ScriptArguments: TypeAlias = tuple[Sequence[str], Sequence[Any]]
"""The keys and arguments of a script."""


class ClaimLost(Exception):
    """The run is no longer the holder's."""


class Accepted(NamedTuple):
    """How `Runs.accept` ended."""

    run_id: str
    joined: bool  # True: an idempotency key led to a run that exists


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a worker learns when it asks for a run.

    It holds the run in three states: to run it (claimed), or to end it unopened, because too many
    workers died with it (lost) or somebody canceled it (canceled).
    """

    state: Literal["claimed", "lost", "canceled", "held", "early", "ended", "gone", "newer"]
    seal: bytes = field(default=b"", repr=False)
    attempt: int = 0  # 1-based handler starts, this one included
    lost: int = 0  # workers that died with this run
    age: float = 0.0  # seconds since the first start of the handler, without what it waited for
    session: str = ""  # the MongoDB session of the holder before, hex; "" for none
    steps: int = 0  # that the handler has kept
    spent: float = 0.0  # seconds of the attempt's time, before the handler waited
    waited: float = 0.0  # seconds that the handler was parked

    @property
    def is_held(self) -> bool:
        """Whether the run is the claimer's."""
        return self.state in ("claimed", "lost", "canceled")

    @property
    def is_first(self) -> bool:
        """Whether the handler has never been started before."""
        return self.attempt == 1 and not self.waited


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """What a handler waits for, without a process."""

    kind: Literal["time", "signal"]
    name: str
    due: int  # epoch milliseconds by the broker's clock, when it goes on at the latest
    left: float  # seconds until then
    others: tuple[str, ...] = ()  # signals that end it as well: tasks of one handler wait at once

    @classmethod
    def first_of(cls, waits: Sequence[Wait]) -> Wait:
        """The one that is over first, which each signal ends that any of them is for."""
        first = min(waits, key=lambda wait: wait.due)
        names = dict.fromkeys(name for wait in waits for name in wait.signals)
        return replace(first, others=tuple(name for name in names if name not in first.signals))

    @property
    def signals(self) -> tuple[str, ...]:
        """The names of those that end it."""
        return (self.name, *self.others) if self.kind == "signal" else self.others

    def to_json(self) -> bytes:
        """What the record says of it; the time is a field of its own."""
        fields = {"kind": self.kind, "name": self.name}
        return strict_json.dumps({**fields, "others": self.others} if self.others else fields)


class Commands:
    """Those of one application: keys and arguments of the scripts, and what these answer."""

    def __init__(self, sealer: Sealer, keys: Keys) -> None:
        self.sealer = sealer
        self.keys = keys
        self._texts = scripts(keys)
        self._digests = {
            name: sha1(text.encode(), usedforsecurity=False).hexdigest()
            for name, text in self._texts.items()
        }

    def acceptance(
        self,
        run_id: str,
        action: Action,
        call: Call,
        *,
        max_queue: int,
        result_ttl: int,
        idempotency: tuple[str, str] | None = None,
        reply: str = "",
        terms: Terms | None = None,
    ) -> ScriptArguments:
        """The keys and arguments of the script ``accept``.

        ``idempotency``: a key (already scoped to caller and action) and the digest of the body.
        ``reply``: the channel on which an API process waits for the end. ``terms``: of a start,
        whose call expires `CALL_LIFETIME` after it is due.
        """
        key, digest = idempotency or ("", "")
        ttl = IDEMPOTENCY_MS if idempotency else result_ttl * 1000
        queue = self.keys.queue(action.message_queue)
        keys = [*self._run_and_open(run_id), queue, self.keys.idempotency(key)]
        arguments = [
            run_id, action.name, self.sealer.seal("call", run_id, action.name, call.to_json()),
            self._message(run_id, action, call), max_queue, ttl, digest,
            IDEMPOTENCY_MS if terms is None else IDEMPOTENCY_MS + terms.delay,
            caller_tag(self.sealer, call.caller) if call.caller else "",
            self.sealer.seal("origin", run_id, action.name, Origin.of(call).to_json()),
            1 if action.on_worker_lost == "fail" else "", reply,
        ]  # fmt: skip
        if terms is not None or action.limit is not None:
            arguments += [*(terms or Terms()).arguments(), call.parent or ""]
        if action.limit is not None:
            arguments += limit_arguments(self.sealer, action, call, action.limit)
        return keys, arguments

    def starting(self, start: Start, max_queue: int, result_ttl: int) -> ScriptArguments:
        """`acceptance` of a start."""
        return self.acceptance(
            start.run_id, start.action, start.call,
            max_queue=max_queue, result_ttl=result_ttl,
            idempotency=start.idempotency, terms=start.terms,
        )  # fmt: skip

    def taken(self, answer: Any) -> Accepted | RunRefused:
        """`accepted`, but a refusal is an answer, too."""
        try:
            return self.accepted(answer)
        except RunRefused as refusal:
            return refusal

    def accepted(self, answer: Any) -> Accepted:
        """What the script ``accept`` answered, or the exception that came instead.

        Raises `KeyReused`, `QueueFull`, `LimitKeyFailed`, `BrokerUnavailable`.
        """
        if isinstance(answer, Exception):
            with guarded("accept"):
                raise answer
        state, value = decoded(answer)
        if state == "reused":
            raise KeyReused("Idempotency-Key was already used with another body; send a new key")
        if state == "full":
            queue, depth = value.removeprefix(self.keys.celery).rsplit(" ", 1)
            raise QueueFull(f"The queue {queue!r} is full ({depth} runs). Try again shortly.")
        if state == "keyless":
            raise LimitKeyFailed(value)
        if state == "crowded":
            action, line = value.rsplit(" ", 1)
            raise QueueFull(f"{line} runs wait for a slot of {action!r}. Try again shortly.")
        return Accepted(value, joined=state == "joined")

    def end_of(self, run_id: str, values: Sequence[bytes | None] | None) -> End | None:
        """From what the record has in the fields `END`."""
        try:
            known = dict(zip(END, values or (), strict=bool(values)))
            fields = {name: value or b"" for name, value in known.items()}
            return End.of_record(run_id, fields, self.sealer) if fields.get(b"status") else None
        except SealError:
            return None

    def keyed_as(self, text: bytes | None) -> tuple[str, str] | None:
        """What the key holds."""
        run_id, _, digest = (text or b"").decode(errors="replace").partition(" ")
        return (run_id, digest) if digest else None

    def _message(self, run_id: str, action: Action, call: Call) -> str:
        wakeup = message.Wakeup(action.task, run_id, action.display(call.params))
        return message.compose(action.message_queue, wakeup, self.sealer.sign(*wakeup))

    def claiming(self, run_id: str, action: str, holder: str, lease: float) -> ScriptArguments:
        """The keys and arguments of the script ``claim``."""
        return self._run_and_open(run_id), [run_id, action, holder, int(lease * 1000)]

    def claimed(self, answer: Sequence[Any]) -> Claim:
        """What the script ``claim`` answered."""
        state, *rest = answer
        if not rest:
            return Claim(state=state.decode())
        seal, attempt, lost, session, age, *memory = rest
        steps, spent, waited = memory or (0, 0, 0)
        return Claim(
            state=state.decode(),
            seal=seal,
            attempt=attempt,
            lost=lost,
            session=session.decode(errors="replace"),  # that of nobody
            age=age / 1000,
            steps=min(steps, MAX_STEPS),  # whatever somebody has put there
            spent=spent / 1000,
            waited=waited / 1000,
        )

    def ending(self, run_id: str, action: str, holder: str, outcome: Outcome) -> ScriptArguments:
        """The keys and arguments of the script ``finish``."""
        result, error = self._sealed(run_id, action, outcome)
        again = "1" if outcome.retryable else "0"
        ended = [run_id, holder, outcome.status, result, again, error, *(outcome.report or ())]
        return self._run_and_open(run_id), ended

    def _sealed(self, run_id: str, action: str, outcome: Outcome) -> tuple[bytes, bytes]:
        """The result and, for lists, the error by itself; b"" for none."""
        result = self.sealer.seal("result", run_id, action, outcome.to_bytes())
        if outcome.status == "succeeded":
            return result, b""
        error = (outcome.error or "")[:ERROR_LENGTH].encode(errors="replace")
        return result, self.sealer.seal("error", run_id, action, error)

    def requeuing(
        self, run_id: str, holder: str, delay: float, report: Sealed | None
    ) -> ScriptArguments:
        """The keys and arguments of the script ``requeue``; ``report``: of the attempt."""
        again = [run_id, holder, int(delay * 1000), *(report or ())]
        return self._run_and_open(run_id), again

    def noting(self, run_id: str, holder: str, field: str, value: str | bytes) -> ScriptArguments:
        """The keys and arguments of the script ``note``."""
        return [self.keys.run(run_id)], [run_id, holder, field, value]

    def progressing(
        self, run_id: str, action: str, holder: str, progress: bytes
    ) -> ScriptArguments:
        """`noting` for progress."""
        sealed = self.sealer.seal("progress", run_id, action, progress)
        return self.noting(run_id, holder, "progress", sealed)

    def signaling(self, run_id: str, action: str, name: str, value: Any) -> ScriptArguments:
        """The keys and arguments of the script ``signal``; ``value``: any JSON."""
        sealed = seal_signal(self.sealer, run_id, action, name, value)
        return self._run_and_open(run_id), [run_id, name, sealed, MAX_SIGNALS, MAX_SIGNALS_BYTES]

    def signaled(self, run_id: str, answer: bytes) -> Sent:
        """What the script ``signal`` answered; raises `NewerFormat`."""
        if answer == b"newer":
            raise NewerFormat(f"Run {run_id} was written by a newer version of Callboard")
        return cast(Sent, answer.decode())

    def keeping(
        self, run_id: str, action: str, holder: str, number: int, content: bytes, unless: str = ""
    ) -> ScriptArguments:
        """The keys and arguments of the script ``keep``.

        ``number``: of the step, from 1. ``content``: `Kept.to_json`. ``unless``: a signal; if it
        has come, nothing is kept.
        """
        sealed = self.sealer.seal("step", run_id, action, content)
        return [self.keys.run(run_id)], [holder, number, sealed, unless]

    def is_kept(self, answer: Sequence[bytes]) -> bytes | None:
        """What the script ``keep`` answered: None; or the signal that has come, sealed.

        Raises `InvalidData` where a run has no room for more, `ClaimLost`.
        """
        state, *rest = answer
        if state == b"taken":
            raise ClaimLost
        if state == b"full":
            raise no_room()
        return rest[0] if rest else None

    def parking(
        self,
        run_id: str,
        action: str,
        holder: str,
        call: Call,
        wait: Wait,
        spent: float,
        report: Sealed | None = None,
    ) -> ScriptArguments:
        """The keys and arguments of the script ``park``.

        ``call``: the run's, with the later expiry. ``spent``: seconds of the attempt's time.
        ``report``: of the attempt so far.
        """
        sealed = self.sealer.seal("call", run_id, action, call.to_json())
        arguments = [run_id, holder, sealed, wait.due, wait.to_json(), " ".join(wait.signals)]
        arguments += [round(spent * 1000), IDEMPOTENCY_MS, *(report or ())]
        return self._run_and_open(run_id), arguments

    def step_fields(self, count: int) -> list[str]:
        """The fields of so many steps."""
        return [f"step:{number}" for number in range(1, count + 1)]

    def _run_and_open(self, run_id: str) -> list[str]:
        """The keys that most scripts begin with."""
        return [self.keys.run(run_id), self.keys.open]

    def command(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        """The command that runs the script, where the server knows it."""
        return ["EVALSHA", self._digests[script], len(keys), *keys, *arguments]

    def text(self, script: str) -> str:
        """The script itself, for a server that does not know it yet."""
        return self._texts[script]

    @property
    def texts(self) -> list[str]:
        """All of them."""
        return list(self._texts.values())


def decoded(values: Iterable[bytes]) -> list[str]:
    """Texts of a server's answer, whatever somebody has put there."""
    return [value.decode(errors="replace") for value in values]
