"""The runs that ended and that the history is to take.

`callboard.runs.store` puts each on the list ``callboard:ended``, as ``<run id> <end, epoch ms>``,
and its record stays in Redis. An archiver (`worker.archive.archiver`) takes the first ones, writes
them, and settles them: only then do they leave the list, and their records begin to expire.

An archiver that dies between the two leaves the list as it was, and the next writes the same
runs again, which changes nothing. Of two that took the same runs, the second settles nothing:
each entry is removed only while it is the first of the list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from callboard.connections.redis import guarded
from callboard.runs.counters import BOUNDS, COUNTERS
from callboard.runs.live import LIVE
from callboard.runs.scripts import HOSTILE

__all__ = ["ENDED", "Ended", "EndedRun"]

ENDED = "callboard:ended"
TURN = "callboard:historian"
MOST_BYTES = 8 * 1024 * 1024  # of records in one `Ended.take`, if more than one

# A run that was started again since then is not what the entry tells: its entry is empty.
_TAKE = (
    HOSTILE
    + """
local list, turn = KEYS[1], KEYS[2]
local me, seconds, count, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if redis.call('SET', turn, me, 'NX', 'EX', seconds) == false then
  if redis.call('GET', turn) ~= me then return {} end
  redis.call('EXPIRE', turn, seconds)
end
local taken, bytes = {}, 0
for _, entry in ipairs(redis.call('LRANGE', list, 0, count - 1)) do
  local id, ended = string.match(entry, '^(%S+) (%S+)$')
  local run = 'callboard:run:' .. (id or '')
  if not ended or record(run, 'ended')[1] ~= ended then
    taken[#taken + 1] = {entry, {}}
  else
    bytes = bytes + redis.call('HSTRLEN', run, 'seal') + redis.call('HSTRLEN', run, 'result')
    if bytes > most and #taken > 0 then return taken end
    taken[#taken + 1] = {entry, redis.call('HGETALL', run)}
  end
end
return taken
"""
)

# Each entry comes with the least time (ms) that its record is kept. How long a run waited counts
# from its first start only: a run that was started again had ended in between. What a run was
# called with, token and all, leaves with it, unless it may start again.
_SETTLE = (
    HOSTILE
    + """
local list, live, counters = KEYS[1], KEYS[2], KEYS[3]
local settled, counted = 0, {}
local NOW = redis.call('TIME')[1] * 1000
local function add(field, number)
  counted[field] = (counted[field] or 0) + number
end
local function observe(what, ms)
  local le = 'Inf'
  for _, bound in ipairs({BOUNDS}) do
    if ms <= bound then le = bound break end
  end
  add(what .. ':' .. le, 1)
  add(what .. ':sum', ms)
end
local function settle(id, run, ended, least)
  local r = record(run, 'ended', 'ttl', 'caller', 'action', 'status', 'enqueued', 'started',
    'restarted', 'again')
  if not r[1] or r[1] ~= ended then return end
  if r[9] ~= '1' then redis.call('HDEL', run, 'seal', 'message') end
  local ended, enqueued, started = number(ended, NOW), number(r[6]), number(r[7])
  redis.pcall('PEXPIREAT', run, math.min(ended, NOW) + math.max(number(r[2], 0), least))
  redis.pcall('ZREM', live, id)
  if r[3] then redis.pcall('ZREM', live .. ':' .. r[3], id) end
  if not (r[4] and r[5]) then return end
  add('runs:' .. r[4] .. ':' .. r[5], 1)
  if started then observe('run:' .. r[4], ended - started) end
  if started and enqueued and not r[8] then observe('wait:' .. r[4], started - enqueued) end
end
for i = 1, #ARGV, 2 do
  local entry = ARGV[i]
  if redis.call('LINDEX', list, 0) ~= entry then break end
  redis.call('LPOP', list)
  local id, ended = string.match(entry, '^(%S+) (%S+)$')
  if id then settle(id, 'callboard:run:' .. id, ended, tonumber(ARGV[i + 1])) end
  settled = settled + 1
end
for field, number in pairs(counted) do redis.pcall('HINCRBY', counters, field, number) end
return settled
"""
).replace("BOUNDS", ", ".join(map(str, BOUNDS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedRun:
    """An entry of the list and the run's record, sealed; empty where there is nothing to write."""

    entry: bytes
    run_id: str
    values: Mapping[bytes, bytes]


class Ended:
    """The list of ended runs."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._take = client.register_script(_TAKE)
        self._settle = client.register_script(_SETTLE)

    def take(self, holder: str, turn: int, count: int) -> list[EndedRun]:
        """The first ``count`` runs at most; none while it is another holder's turn.

        A turn ends ``turn`` seconds after the holder's last `take`. It only spares double work:
        nothing depends on it.
        """
        with guarded():
            taken: list[tuple[bytes, list[bytes]]] = self._take(
                keys=[ENDED, TURN], args=[holder, turn, count, MOST_BYTES]
            )
        return [
            EndedRun(
                entry=entry,
                run_id=entry.partition(b" ")[0].decode(errors="replace"),
                values=dict(zip(fields[::2], fields[1::2], strict=True)),
            )
            for entry, fields in taken
        ]

    def settle(self, runs: Sequence[tuple[EndedRun, int]]) -> int:
        """The history has these, the first of the list, each to be kept that many seconds.

        The record expires its own time to live after the end, or after that long if it is more.
        Returns how many were settled here; the rest were settled by another.
        """
        arguments: list[Any] = []
        for run, keep in runs:
            arguments += [run.entry, keep * 1000]
        with guarded():
            return int(self._settle(keys=[ENDED, LIVE, COUNTERS], args=arguments))

    def __len__(self) -> int:
        return self.backlog()[0]

    def backlog(self) -> tuple[int, float]:
        """How many runs are on the list, and how long ago, in seconds, the first one ended."""
        with guarded():
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.llen(ENDED)
            pipeline.lindex(ENDED, 0)
            pipeline.time()
            length, first, (now, _) = pipeline.execute()
        ended = (first or b"").partition(b" ")[2]
        return int(length), now - int(ended) / 1000 if ended.isdigit() and len(ended) < 16 else 0.0
