"""The scripts that change a run record.

Each script is a compare-and-set: a message that is delivered twice, late, or by a stranger
changes nothing that the record does not allow. All use the clock of the Redis server.

What they read may have been altered by whoever can write Redis: a number that is none, a field
that is gone or a key of another type costs its own run and stops no script (``record`` and
``number`` see to that).

===========  ======================================  ==========================================
script       from -> to                              who
===========  ======================================  ==========================================
``accept``   nothing -> queued                       the API, a schedule
``claim``    queued, or a lapsed claim -> running    a worker's child, before anything of the run is
                                                     opened: told too, if it is to be ended now
``renew``    running -> running                      the worker's keeper, while the run goes on
``finish``   running (and still the holder's) -> end the child; the keeper for a hard stop
``requeue``  running (and still the holder's) ->     a retry, with a delay; a graceful stop
             queued
``lose``     running (and still the holder's) ->     the worker, when its child died
             queued
``cancel``   queued -> canceled; running: a mark     the API
``expire``   queued too long -> failed               any worker's keeper, as ``sweep`` answers
``retry``    a retryable end -> queued               the owner, who starts it again
``sweep``    (re-sends wake-ups that went missing)   any worker's keeper
===========  ======================================  ==========================================

Keys: ``callboard:run:<id>`` (a hash), ``callboard:open`` (every run that has not ended, scored
by when to look at it again), the queue's list, ``callboard:live`` (every run that is not in the
history yet, scored by when it was enqueued; see `callboard.runs.live`), ``callboard:ended`` (what
the history is to take; see `callboard.runs.ended`, which also lets the record expire then), and
``callboard:counters`` (see `callboard.runs.counters`).

A run that has not ended is always in ``callboard:open``, so a lost message costs a few seconds
and never a run: `sweep` sends the wake-up again, for a queued run and for one whose claim lapsed.
What was sent to the queue's front is looked at a second later. A run that waits in the queue is
looked at the more seldom the more there are, so that a lapsed claim never waits behind them.
"""

from __future__ import annotations

__all__ = ["HOSTILE", "MAX_LOST", "OPEN", "SCRIPTS"]

OPEN = "callboard:open"
MAX_LOST = 3  # workers that may die with one run before it ends as `Worker lost`

HOSTILE = """
local function record(run, ...)
  local r = redis.pcall('HMGET', run, ...)
  return r.err and {} or r
end
local function number(text, otherwise)
  return text and #text < 16 and string.find(text, '^%d+$') and tonumber(text) or otherwise
end
"""
"""For scripts: the fields of a record, and a number among them, whatever somebody has put there."""

_COMMON = (
    HOSTILE
    + """
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function patience(waiting)
  return 5000 + 15 * waiting
end
local function held_by(run, holder)
  local r = record(run, 'status', 'holder')
  return r[1] == 'running' and r[2] == holder
end
local function wake(watchers, id)
  for channel in string.gmatch(watchers or '', '%S+') do redis.call('PUBLISH', channel, id) end
end
local function wake_watchers(run, id)
  wake(record(run, 'watchers')[1], id)
end
local function count(what, action)
  redis.pcall('HINCRBY', 'callboard:counters', what .. ':' .. (action or ''), 1)
end
local function finish(run, open, id, status, result, again, error)
  local t = now()
  local r = record(run, 'watchers', 'reply', 'session', 'cancel')
  redis.call('HSET', run, 'status', status, 'result', result, 'again', again, 'ended', t,
    unpack(error ~= '' and {'error', error} or {}))
  if r[3] or r[4] then redis.call('HDEL', run, 'session', 'cancel') end
  redis.pcall('RPUSH', 'callboard:ended', id .. ' ' .. t)
  redis.call('ZREM', open, id)
  if r[2] then redis.call('PUBLISH', r[2], id .. result) end
  wake(r[1], id)
end
local function queue_again(run, open, id, delay)
  local r = record(run, 'queue', 'message', 'cancel')
  if r[3] then delay = 0 end
  redis.call('HSET', run, 'status', 'queued', 'due', now() + delay)
  redis.call('HDEL', run, 'holder', 'lease')
  if delay == 0 and r[1] and r[2] then redis.pcall('RPUSH', r[1], r[2]) end
  redis.call('ZADD', open, now() + (delay == 0 and 1000 or delay), id)
end
local function enlist(id, enqueued, caller)
  redis.call('ZADD', 'callboard:live', enqueued, id)
  if caller then redis.call('ZADD', 'callboard:live:' .. caller, enqueued, id) end
end
local function start_again(run, open, id)
  redis.call('PERSIST', run)
  redis.call('HDEL', run, 'result', 'error', 'ended', 'again', 'started', 'progress')
  redis.call('HSET', run, 'lost', 0, 'restarted', 1)
  local r = record(run, 'enqueued', 'caller')
  enlist(id, number(r[1], 0), r[2])
  queue_again(run, open, id, 0)
end
"""
)

# An idempotency key that is known answers with its run. A run that ended in a way that is
# worth another try (503, worker lost) starts again, under its own id and seal. Sent again after a
# broken connection, the script meets its own run, and nothing changes.
_ACCEPT = """
local run, open, queue, idempotency = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, action, seal, message = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local max_queue, ttl, digest, kept = tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
local caller, origin, max_lost, reply = ARGV[9], ARGV[10], ARGV[11], ARGV[12]
if redis.call('EXISTS', run) == 1 then return {'accepted', id} end
if digest ~= '' then
  local known, before = string.match(redis.call('GET', idempotency) or '', '^(%S+) (%S+)$')
  if known and before ~= digest then return {'reused', known} end
  local old = known and 'callboard:run:' .. known
  if old and redis.call('EXISTS', old) == 1 then
    if record(old, 'again')[1] == '1' then
      start_again(old, open, known)
      return {'accepted', known}
    end
    return {'joined', known}
  end
end
local depth = redis.call('LLEN', queue)
if depth >= max_queue then return {'full', queue .. ' ' .. depth} end
local t = now()
local fields = {'action', action, 'queue', queue, 'seal', seal, 'origin', origin,
  'message', message, 'status', 'queued', 'enqueued', t, 'ttl', ttl, 'max_lost', max_lost}
local function add(name, value)
  if value ~= '' then fields[#fields + 1] = name fields[#fields + 1] = value end
end
add('caller', caller)
add('reply', reply)
redis.call('HSET', run, unpack(fields))
enlist(id, t, caller ~= '' and caller)
redis.call('LPUSH', queue, message)
redis.call('ZADD', open, t + patience(depth), id)
if digest ~= '' then redis.call('SET', idempotency, id .. ' ' .. digest, 'PX', kept) end
return {'accepted', id}
"""

# A run that was lost too often, or is to be canceled, is the claimer's to end: unopened, so that a
# run that kills whoever opens it ends too.
_CLAIM = """
local run, open = KEYS[1], KEYS[2]
local id, action, holder, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local r = record(run, 'status', 'action', 'holder', 'lease', 'due', 'seal', 'session',
  'started', 'attempt', 'lost', 'watchers', 'max_lost', 'cancel')
local status, attempt, lost, t = r[1], number(r[9], 0), number(r[10], 0), now()
if not status or r[2] ~= action then return {'gone'} end
if status ~= 'queued' and status ~= 'running' then return {'ended'} end
local resent = r[3] == holder
if status == 'running' and not resent and number(r[4], 0) > t then return {'held'} end
if status == 'queued' and number(r[5], 0) > t then return {'early'} end
if status == 'running' and not resent then
  lost = lost + 1
  count('lost', action)
end
local state = 'claimed'
if r[13] then state = 'canceled' elseif lost >= number(r[12], DEFAULT_LOST) then state = 'lost' end
if state == 'claimed' and not resent then attempt = attempt + 1 end
local started = number(r[8], t)
redis.call('HSET', run, 'status', 'running', 'holder', holder, 'lease', t + lease,
  'attempt', attempt, 'lost', lost, 'started', started)
redis.call('ZADD', open, t + lease, id)
if not resent then wake(r[11], id) end
return {state, state == 'claimed' and r[6] or '', attempt, lost, r[7] or '', t - started}
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
    local open_as = {running = 'taken', queued = 'queued'}
    told[#told + 1] = open_as[record(run, 'status')[1] or ''] or 'ended'
  end
end
return told
"""

_FINISH = """
local run, open = KEYS[1], KEYS[2]
local id, holder, status, result, again, error = unpack(ARGV)
if not held_by(run, holder) then return 0 end
finish(run, open, id, status, result, again, error)
return 1
"""

_REQUEUE = """
local run, open, id, holder, delay = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3])
if not held_by(run, holder) then return 0 end
queue_again(run, open, id, delay)
if delay > 0 then count('retries', record(run, 'action')[1]) end
wake_watchers(run, id)
return 1
"""

# Leaves the run with its holder when it was lost too often: the caller then finishes it.
_LOSE = """
local run, open, id, holder = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if not held_by(run, holder) then return {-1, 0} end
local r = record(run, 'lost', 'max_lost', 'action')
local lost = number(r[1], 0) + 1
redis.call('HSET', run, 'lost', lost)
count('lost', r[3])
if lost >= number(r[2], DEFAULT_LOST) then return {lost, 1} end
queue_again(run, open, id, 0)
return {lost, 0}
"""

_CANCEL = """
local run, open, id, result, error = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local status = record(run, 'status')[1]
if status == 'queued' then finish(run, open, id, 'canceled', result, '0', error) end
if status == 'running' then redis.call('HSETNX', run, 'cancel', now()) end
return status
"""

# The call may come sealed anew, with a later expiry.
_RETRY = """
local run, open, id, seal = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if record(run, 'again')[1] ~= '1' then return 0 end
redis.call('HSET', run, 'seal', seal, 'retried', now())
start_again(run, open, id)
wake_watchers(run, id)
return 1
"""

_EXPIRE = """
local run, open, id, result, error = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local r = record(run, 'status', 'lease')
local lapsed = r[1] == 'running' and number(r[2], 0) < now()
if r[1] ~= 'queued' and not lapsed then return 0 end
finish(run, open, id, 'failed', result, '0', error)
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
local r = record(run, 'status', 'watchers')
if not r[1] then return false end
if not string.find(' ' .. (r[2] or '') .. ' ', ' ' .. channel .. ' ', 1, true) then
  redis.call('HSET', run, 'watchers', (r[2] and r[2] .. ' ' or '') .. channel)
end
return r[1]
"""

# One sweeper at a time, a bounded number of runs at a time: looking for a message in a deep
# queue reads the queue. An older run goes to the queue's front. Answers id and action of each run
# that is to expire: that was queued too long, or has lost what wakes a worker for it.
_SWEEP = """
local open, turn, id_limit, lifetime = KEYS[1], KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2])
if not redis.call('SET', turn, '1', 'NX', 'PX', 200) then return {} end
local t, overdue = now(), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', t, 'LIMIT', 0, id_limit)) do
  local run = 'callboard:run:' .. id
  local r = record(run, 'status', 'queue', 'message', 'enqueued', 'retried', 'action', 'lease')
  if r[1] ~= 'queued' and r[1] ~= 'running' then
    redis.call('ZREM', open, id)
  else
    local again = t + patience(redis.call('ZCARD', open))
    local since = number(r[5], number(r[4], 0))
    local late = r[1] == 'queued' and since + lifetime < t
    local mute = not (r[2] and r[3] and r[6]) and number(r[7], 0) < t
    if late or mute then
      overdue[#overdue + 1] = id
      overdue[#overdue + 1] = r[6] or ''
    elseif r[2] and r[3] and not redis.pcall('LPOS', r[2], r[3], 'RANK', -1) then
      redis.pcall('RPUSH', r[2], r[3])
      again = t + 1000
    end
    redis.call('ZADD', open, again, id)
  end
end
return overdue
"""

SCRIPTS = {
    name: (_COMMON + text).replace("DEFAULT_LOST", str(MAX_LOST))
    for name, text in {
        "accept": _ACCEPT,
        "cancel": _CANCEL,
        "claim": _CLAIM,
        "expire": _EXPIRE,
        "finish": _FINISH,
        "lose": _LOSE,
        "note": _NOTE,
        "renew": _RENEW,
        "requeue": _REQUEUE,
        "retry": _RETRY,
        "sweep": _SWEEP,
        "watch": _WATCH,
    }.items()
}
"""The text of each script by its name."""
