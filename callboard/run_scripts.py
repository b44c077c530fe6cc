"""The scripts that change a run record.

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
``retry``    a retryable end -> queued               the owner, who starts it again
``sweep``    (re-sends wake-ups that went missing)   any worker's keeper
===========  ======================================  ==========================================

Keys: ``callboard:run:<id>`` (a hash), ``callboard:open`` (every run that has not ended, scored
by when to look at it again), the queue's list, ``callboard:live`` (every run that is not in the
history yet, scored by when it was enqueued; see `callboard.live`), ``callboard:ended`` (what the
history is to take; see `callboard.ended`, which also lets the record expire then), and
``callboard:counters`` (see `callboard.counters`).

A run that has not ended is always in ``callboard:open``, so a lost message costs a few seconds
and never a run: `sweep` sends the wake-up again, for a queued run and for one whose claim lapsed.
What was sent to the queue's front is looked at a second later. A run that waits in the queue is
looked at the more seldom the more there are, so that a lapsed claim never waits behind them.
"""

from __future__ import annotations

__all__ = ["OPEN", "SCRIPTS"]

OPEN = "callboard:open"

_COMMON = """
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function patience(waiting)
  return 5000 + 15 * waiting
end
local function held_by(run, holder)
  local r = redis.call('HMGET', run, 'status', 'holder')
  return r[1] == 'running' and r[2] and string.sub(r[2], 1, #holder) == holder
end
local function wake(watchers, id)
  for channel in string.gmatch(watchers or '', '%S+') do redis.call('PUBLISH', channel, id) end
end
local function wake_watchers(run, id)
  wake(redis.call('HGET', run, 'watchers'), id)
end
local function count(what, action)
  redis.call('HINCRBY', 'callboard:counters', what .. ':' .. action, 1)
end
local function finish(run, open, id, status, result, again, reply)
  local t = now()
  local r = redis.call('HMGET', run, 'watchers', 'session', 'cancel')
  redis.call('HSET', run, 'status', status, 'result', result, 'again', again, 'ended', t)
  if r[2] or r[3] then redis.call('HDEL', run, 'session', 'cancel') end
  redis.call('RPUSH', 'callboard:ended', id .. ' ' .. t)
  redis.call('ZREM', open, id)
  if reply ~= '' then redis.call('PUBLISH', reply, id .. result) end
  wake(r[1], id)
end
local function queue_again(run, open, id, delay)
  local r = redis.call('HMGET', run, 'queue', 'message')
  redis.call('HSET', run, 'status', 'queued', 'due', now() + delay)
  redis.call('HDEL', run, 'holder', 'lease', 'cancel')
  if delay == 0 then redis.call('RPUSH', r[1], r[2]) end
  redis.call('ZADD', open, now() + (delay == 0 and 1000 or delay), id)
end
local function enlist(id, enqueued, caller)
  redis.call('ZADD', 'callboard:live', enqueued, id)
  if caller then redis.call('ZADD', 'callboard:live:' .. caller, enqueued, id) end
end
local function start_again(run, open, id)
  redis.call('PERSIST', run)
  redis.call('HDEL', run, 'result', 'ended', 'again', 'started', 'progress')
  redis.call('HSET', run, 'lost', 0, 'restarted', 1)
  local r = redis.call('HMGET', run, 'enqueued', 'caller')
  enlist(id, r[1], r[2])
  queue_again(run, open, id, 0)
end
"""

# An idempotency key that is known answers with its run. A run that ended in a way that is
# worth another try (503, worker lost) starts again, under its own id and seal.
_ACCEPT = """
local run, open, queue, idempotency = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, action, seal, message = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local max_queue, ttl, digest, kept = tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
local caller = ARGV[9]
if digest ~= '' then
  local known, before = string.match(redis.call('GET', idempotency) or '', '^(%S+) (%S+)$')
  if known and before ~= digest then return {'reused', known} end
  local old = known and 'callboard:run:' .. known
  if old and redis.call('EXISTS', old) == 1 then
    if redis.call('HGET', old, 'again') == '1' then
      start_again(old, open, known)
      return {'accepted', known}
    end
    return {'joined', known}
  end
end
if redis.call('EXISTS', run) == 1 then return {'accepted', id} end
local depth = redis.call('LLEN', queue)
if depth >= max_queue then return {'full', queue .. ' ' .. depth} end
local t = now()
redis.call('HSET', run, 'action', action, 'queue', queue, 'seal', seal, 'message', message,
  'status', 'queued', 'enqueued', t, 'ttl', ttl, unpack(caller ~= '' and {'caller', caller} or {}))
enlist(id, t, caller ~= '' and caller)
redis.call('LPUSH', queue, message)
redis.call('ZADD', open, t + patience(depth), id)
if digest ~= '' then redis.call('SET', idempotency, id .. ' ' .. digest, 'PX', kept) end
return {'accepted', id}
"""

_CLAIM = """
local run, open = KEYS[1], KEYS[2]
local id, action, holder, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local r = redis.call('HMGET', run, 'status', 'action', 'holder', 'lease', 'due', 'seal', 'session',
  'started', 'attempt', 'lost', 'watchers')
local status, attempt, lost, t = r[1], tonumber(r[9] or 0), tonumber(r[10] or 0), now()
if not status or r[2] ~= action then return {'gone'} end
if status ~= 'queued' and status ~= 'running' then return {'ended'} end
local resent = r[3] == holder
if status == 'running' and not resent and tonumber(r[4]) > t then return {'held'} end
if status == 'queued' and tonumber(r[5] or 0) > t then return {'early'} end
if not resent then
  attempt = attempt + 1
  if status == 'running' then
    lost = lost + 1
    count('lost', action)
  end
end
redis.call('HSET', run, 'status', 'running', 'holder', holder, 'lease', t + lease,
  'attempt', attempt, 'lost', lost, 'started', r[8] or t)
redis.call('ZADD', open, t + lease, id)
if not resent then wake(r[11], id) end
return {'claimed', r[6], attempt, lost, r[7] or '', t - (r[8] or t)}
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
    local open_as = {running = 'taken', queued = 'queued'}
    told[#told + 1] = open_as[status] or 'ended'
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
if delay > 0 then count('retries', redis.call('HGET', run, 'action')) end
wake_watchers(run, id)
return 1
"""

# Leaves the run with its holder when it was lost too often: the caller then finishes it.
_LOSE = """
local run, open, id, holder, limit = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3])
if not held_by(run, holder) then return -1 end
local lost = redis.call('HINCRBY', run, 'lost', 1)
count('lost', redis.call('HGET', run, 'action'))
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

# The call may come sealed anew, with a later expiry.
_RETRY = """
local run, open, id, seal = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if redis.call('HGET', run, 'again') ~= '1' then return 0 end
redis.call('HSET', run, 'seal', seal, 'retried', now())
start_again(run, open, id)
wake_watchers(run, id)
return 1
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
  local r = redis.call('HMGET', run, 'status', 'queue', 'message', 'enqueued', 'retried')
  if r[1] ~= 'queued' and r[1] ~= 'running' then
    redis.call('ZREM', open, id)
  else
    local again = t + patience(redis.call('ZCARD', open))
    if r[1] == 'queued' and tonumber(r[5] or r[4]) + lifetime < t then
      overdue[#overdue + 1] = id
    elseif not redis.call('LPOS', r[2], r[3], 'RANK', -1) then
      redis.call('RPUSH', r[2], r[3])
      again = t + 1000
    end
    redis.call('ZADD', open, again, id)
  end
end
return overdue
"""

SCRIPTS = {
    name: _COMMON + text
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
