"""The run record: the truth about a run. It lives in Redis and changes only by the scripts here.

Each script is a compare-and-set: a message that is delivered twice, late, or by a stranger
changes nothing that the record does not allow. All use the clock of the Redis server.

===========  ======================================  ==========================================
script       from -> to                              who
===========  ======================================  ==========================================
``accept``   nothing -> queued                       the API, a schedule
``claim``    queued, or a lapsed claim -> running    a worker's child, before the handler
``renew``    running -> running                      the worker's keeper, while the run goes on
``finish``   running (and still the holder's) -> end the child; the keeper for a hard stop
``requeue``  running (and still the holder's) ->     a retry, with a delay; a graceful stop
             queued
``lose``     running (and still the holder's) ->     the worker, when its child died
             queued
``cancel``   queued -> canceled; running: a mark     the API
``sweep``    (re-sends wake-ups that went missing)   any worker's keeper
===========  ======================================  ==========================================

Keys: ``callboard:run:<id>`` (a hash; expires after the end), ``callboard:open`` (every run
that has not ended, scored by when to look at it again), the queue's list.

A run that has not ended is always in ``callboard:open``, so a lost message costs a few seconds
and never a run: `sweep` sends the wake-up again, for a queued run and for one whose claim lapsed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, cast

import redis

from callboard import message
from callboard.action import Action
from callboard.broker import guarded
from callboard.errors import KeyReused, QueueFull
from callboard.outcome import Outcome
from callboard.seal import CALL_LIFETIME, Call, Sealer

__all__ = ["Accepted", "Claim", "RunRecord", "Runs", "Status"]

Status = Literal["queued", "running", "succeeded", "failed", "canceled"]

OPEN = "callboard:open"
COUNTERS = "callboard:counters"
IDEMPOTENCY_MS = 86_400_000  # how long an idempotency key, and the result behind it, are kept

_COMMON = """
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function held_by(run, holder)
  local r = redis.call('HMGET', run, 'status', 'holder')
  return r[1] == 'running' and r[2] and string.sub(r[2], 1, #holder) == holder
end
local function wake_watchers(run, id)
  local watchers = redis.call('HGET', run, 'watchers')
  for channel in string.gmatch(watchers or '', '%S+') do redis.call('PUBLISH', channel, id) end
end
local function finish(run, open, id, status, result, again, reply)
  local ttl = redis.call('HGET', run, 'ttl')
  redis.call('HSET', run, 'status', status, 'result', result, 'again', again, 'ended', now())
  redis.call('HDEL', run, 'holder', 'lease', 'session', 'cancel')
  redis.call('PEXPIRE', run, ttl)
  redis.call('ZREM', open, id)
  if reply ~= '' then redis.call('PUBLISH', reply, id .. result) end
  wake_watchers(run, id)
end
local function queue_again(run, open, id, delay)
  local r = redis.call('HMGET', run, 'queue', 'message')
  redis.call('HSET', run, 'status', 'queued', 'due', now() + delay)
  redis.call('HDEL', run, 'holder', 'lease', 'cancel')
  if delay == 0 then redis.call('RPUSH', r[1], r[2]) end
  redis.call('ZADD', open, now() + (delay == 0 and 5000 or delay), id)
end
"""

# An idempotency key that is known answers with its run. A run that ended in a way that is
# worth another try (503, worker lost) starts again, under its own id and seal.
_ACCEPT = """
local run, open, queue, idempotency = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, action, seal, message = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local max_queue, ttl, digest, kept = tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
if digest ~= '' then
  local known, before = string.match(redis.call('GET', idempotency) or '', '^(%S+) (%S+)$')
  if known and before ~= digest then return {'reused', known} end
  local old = known and 'callboard:run:' .. known
  if old and redis.call('EXISTS', old) == 1 then
    if redis.call('HGET', old, 'again') == '1' then
      redis.call('PERSIST', old)
      redis.call('HDEL', old, 'result', 'ended', 'again')
      redis.call('HSET', old, 'lost', 0)
      queue_again(old, open, known, 0)
      return {'accepted', known}
    end
    return {'joined', known}
  end
end
if redis.call('EXISTS', run) == 1 then return {'accepted', id} end
local depth = redis.call('LLEN', queue)
if depth >= max_queue then return {'full', tostring(depth)} end
local t = now()
redis.call('HSET', run, 'action', action, 'queue', queue, 'seal', seal, 'message', message,
  'status', 'queued', 'enqueued', t, 'ttl', ttl)
redis.call('LPUSH', queue, message)
redis.call('ZADD', open, t + 5000, id)
if digest ~= '' then redis.call('SET', idempotency, id .. ' ' .. digest, 'PX', kept) end
return {'accepted', id}
"""

_CLAIM = """
local run, open = KEYS[1], KEYS[2]
local id, action, holder, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local r = redis.call('HMGET', run, 'status', 'action', 'holder', 'lease', 'due', 'seal', 'session',
  'started')
local status, t = r[1], now()
if not status or r[2] ~= action then return {'gone'} end
if status ~= 'queued' and status ~= 'running' then return {'ended'} end
local resent = r[3] == holder
if status == 'running' and not resent and tonumber(r[4]) > t then return {'held'} end
if status == 'queued' and tonumber(r[5] or 0) > t then return {'early'} end
if not resent then
  if status == 'running' then redis.call('HINCRBY', run, 'lost', 1) end
  redis.call('HINCRBY', run, 'attempt', 1)
  redis.call('HSETNX', run, 'started', t)
end
redis.call('HSET', run, 'status', 'running', 'holder', holder, 'lease', t + lease)
redis.call('ZADD', open, t + lease, id)
local counts = redis.call('HMGET', run, 'attempt', 'lost')
if not resent then wake_watchers(run, id) end
return {'claimed', r[6], counts[1], counts[2] or '0', r[7] or '', tostring(t - (r[8] or t))}
"""

_RENEW = """
local open, lease, t = KEYS[1], tonumber(ARGV[1]), now()
local told = {}
for i = 2, #ARGV, 2 do
  local id, holder = ARGV[i], ARGV[i + 1]
  local run = 'callboard:run:' .. id
  if held_by(run, holder) then
    redis.call('HSET', run, 'lease', t + lease)
    redis.call('ZADD', open, t + lease, id)
    told[#told + 1] = redis.call('HEXISTS', run, 'cancel') == 1 and 'cancel' or 'held'
  else
    local status = redis.call('HGET', run, 'status')
    told[#told + 1] = (status == 'running' and 'taken') or (status == 'queued' and 'queued') or 'ended'
  end
end
return told
"""

_FINISH = """
local run, open = KEYS[1], KEYS[2]
local id, holder, status, result, again, reply = unpack(ARGV)
if not held_by(run, holder) then return 0 end
finish(run, open, id, status, result, again, reply)
return 1
"""

_REQUEUE = """
local run, open, id, holder, delay = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3])
if not held_by(run, holder) then return 0 end
queue_again(run, open, id, delay)
wake_watchers(run, id)
return 1
"""

# Leaves the run with its holder when it was lost too often: the caller then finishes it.
_LOSE = """
local run, open, id, holder, limit = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3])
if not held_by(run, holder) then return -1 end
local lost = redis.call('HINCRBY', run, 'lost', 1)
if lost < limit then queue_again(run, open, id, 0) end
return lost
"""

_CANCEL = """
local run, open, id, result, reply = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local status = redis.call('HGET', run, 'status')
if status == 'queued' then finish(run, open, id, 'canceled', result, '0', reply) end
if status == 'running' then redis.call('HSETNX', run, 'cancel', now()) end
return status
"""

_EXPIRE = """
local run, open, id, result, reply = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
if redis.call('HGET', run, 'status') ~= 'queued' then return 0 end
finish(run, open, id, 'failed', result, '0', reply)
return 1
"""

_NOTE = """
local run, id, holder, name, value = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not held_by(run, holder) then return 0 end
redis.call('HSET', run, name, value)
if name == 'progress' then wake_watchers(run, id) end
return 1
"""

_WATCH = """
local run, channel = KEYS[1], ARGV[1]
local r = redis.call('HMGET', run, 'status', 'watchers')
if not r[1] then return false end
if not string.find(' ' .. (r[2] or '') .. ' ', ' ' .. channel .. ' ', 1, true) then
  redis.call('HSET', run, 'watchers', (r[2] and r[2] .. ' ' or '') .. channel)
end
return r[1]
"""

# One sweeper at a time, a bounded number of runs at a time: looking for a message in a deep
# queue reads the queue. An older run goes to the queue's front.
_SWEEP = """
local open, turn, id_limit, lifetime = KEYS[1], KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2])
if not redis.call('SET', turn, '1', 'NX', 'PX', 200) then return {} end
local t, overdue = now(), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', t, 'LIMIT', 0, id_limit)) do
  local run = 'callboard:run:' .. id
  local r = redis.call('HMGET', run, 'status', 'queue', 'message', 'enqueued')
  if r[1] ~= 'queued' and r[1] ~= 'running' then
    redis.call('ZREM', open, id)
  else
    if r[1] == 'queued' and tonumber(r[4]) + lifetime < t then
      overdue[#overdue + 1] = id
    elseif not redis.call('LPOS', r[2], r[3], 'RANK', -1) then
      redis.call('RPUSH', r[2], r[3])
    end
    redis.call('ZADD', open, t + 5000, id)
  end
end
return overdue
"""


class Accepted(NamedTuple):
    """How `Runs.accept` ended."""

    run_id: str
    joined: bool  # True: an idempotency key led to a run that exists


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


class Runs:
    """The run records of one application."""

    def __init__(self, client: redis.Redis, sealer: Sealer) -> None:
        self._redis = client
        self.sealer = sealer
        for name, text in _SCRIPTS.items():
            setattr(self, f"_{name}", client.register_script(_COMMON + text))

    def accept(
        self,
        run_id: str,
        action: Action,
        call: Call,
        *,
        max_queue: int,
        result_ttl: int,
        idempotency: tuple[str, str] | None = None,
    ) -> Accepted:
        """Write the record and queue the message, in one step.

        ``idempotency``: a key (already scoped to caller and action) and the digest of the
        body. Raises `KeyReused`, `QueueFull`, `BrokerUnavailable`.
        """
        key, digest = idempotency or ("", "")
        ttl = IDEMPOTENCY_MS if idempotency else result_ttl * 1000
        keys = [_run(run_id), OPEN, action.queue, f"callboard:idempotency:{key}"]
        arguments = [
            run_id, action.name, self.sealer.seal("call", run_id, action.name, call.to_json()),
            self._message(run_id, action, call), max_queue, ttl, digest, IDEMPOTENCY_MS,
        ]  # fmt: skip
        state, value = _text(self._call("accept", keys, arguments))
        if state == "reused":
            raise KeyReused("Idempotency-Key was already used with another body; send a new key")
        if state == "full":
            raise QueueFull(
                f"The queue {action.queue!r} is full ({value} runs). Try again shortly."
            )
        return Accepted(value, joined=state == "joined")

    def _message(self, run_id: str, action: Action, call: Call) -> str:
        display = action.display(call.params)
        tag = self.sealer.sign(*message.signed_parts(action.task, run_id, display))
        return message.write(action.queue, message.headers(action.task, run_id, display, tag))

    def claim(self, run_id: str, action: str, holder: str, lease: float) -> Claim:
        """Take the run for ``lease`` seconds, if the record allows it."""
        state, *rest = self._call(
            "claim", [_run(run_id), OPEN], [run_id, action, holder, int(lease * 1000)]
        )
        if state != b"claimed":
            return Claim(state=state.decode())
        seal, attempt, lost, session, age = rest
        return Claim(
            state="claimed",
            seal=seal,
            attempt=int(attempt),
            lost=int(lost),
            session=session.decode(),
            age=int(age) / 1000,
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
        sealed = self.sealer.seal("result", run_id, action, outcome.to_bytes())
        again = "1" if outcome.retryable else "0"
        arguments = [run_id, holder, outcome.status, sealed, again, reply or ""]
        return bool(self._call("finish", [_run(run_id), OPEN], arguments))

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

    def read(self, run_id: str) -> RunRecord | None:
        """The run as it stands, or None; raises `SealError` if it was tampered with."""
        with guarded():
            values = cast("dict[bytes, bytes]", self._redis.hgetall(_run(run_id)))
        return self._opened(run_id, values) if b"seal" in values else None

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

    def _call(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        with guarded():
            return getattr(self, f"_{script}")(keys=keys, args=arguments)


_SCRIPTS = {
    "accept": _ACCEPT,
    "cancel": _CANCEL,
    "claim": _CLAIM,
    "expire": _EXPIRE,
    "finish": _FINISH,
    "lose": _LOSE,
    "note": _NOTE,
    "renew": _RENEW,
    "requeue": _REQUEUE,
    "sweep": _SWEEP,
    "watch": _WATCH,
}


def _run(run_id: str) -> str:
    return f"callboard:run:{run_id}"


def _text(values: Iterable[bytes]) -> list[str]:
    return [value.decode() for value in values]


def _number(value: bytes | None) -> int | None:
    return None if value is None else int(value)
