-- What the scripts that change a run record share; after guard.lua.
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
  redis.pcall('HINCRBY', COUNTERS, what .. ':' .. (action or ''), 1)
end
local function enlist(id, enqueued, caller, parent)
  redis.call('ZADD', LIVE, enqueued, id)
  if caller then redis.call('ZADD', LIVE .. ':' .. caller, enqueued, id) end
  if parent then redis.call('ZADD', LIVE .. ':' .. parent, enqueued, id) end
end
-- An attempt that was not the run's last; of so many the record knows (`callboard.runs.attempts`).
local function note_attempt(run, how, ended)
  local r = record(run, 'attempt', 'attempted', 'started', 'holder')
  local attempt, told = number(r[1], 0), {r[2] or r[3] or '-', ended or now(), how, r[4] or '-'}
  redis.call('HSET', run, 'attempt:' .. attempt, table.concat(told, ' '))
  redis.call('HDEL', run, 'attempt:' .. attempt - KEPT, 'report:' .. attempt - KEPT)
end
-- For runs that wait, or count for a group or a limit. A table that only those make: whatever
-- stands at the top of a script is made anew by each call of it.
local function waiting_parts(open)
  local parts = {}
  local function push(run, id)
    local r, t = record(run, 'queue', 'message', 'watchers'), now()
    redis.call('HSET', run, 'status', 'queued')
    redis.call('HDEL', run, 'due', 'waiting')
    redis.call('ZREM', DUE, id)
    local depth = r[1] and r[2] and tonumber(redis.pcall('LPUSH', r[1], r[2]))
    redis.call('ZADD', open, depth and t + patience(depth) or t, id)
    wake(r[3], id)
  end
  parts.slots = slots_of(push)
  -- It waits in its limit's line, as long as a call lives: see release.lua.
  function parts.line_up(run, id, t)
    redis.call('HSET', run, 'status', 'waiting', 'waiting', FOR_SLOT)
    redis.call('HDEL', run, 'due')
    redis.call('ZADD', DUE, t + LIFETIME, id)
  end
  -- It is enqueued now: what counts from there, counts from here on. One that has been started
  -- before goes on, or is tried again: its place in lists stays.
  function parts.queue(run, id)
    local r = record(run, 'caller', 'parent', 'action', 'limit', 'watchers', 'parked', 'started')
    local t = now()
    if r[6] or not r[7] then
      redis.call('HSET', run, r[6] and 'woken' or 'enqueued', t)
      if not r[6] then enlist(id, t, r[1], r[2]) end
    end
    if not r[4] or parts.slots.enter(limit_name(r[3], r[4]), id, t) then return push(run, id) end
    parts.line_up(run, id, t)
    wake(r[5], id)
  end
  -- One that a limit counts, that its holder gives back: its slot is its own as long as it is to
  -- run at once. Answers whether there is no more to do.
  function parts.give_back(run, id, name, delay)
    if delay == 0 and parts.slots.has(name, id) then return false end
    redis.call('HDEL', run, 'holder', 'lease')
    redis.call('ZREM', open, id)
    if delay == 0 then
      parts.queue(run, id)
      return true
    end
    redis.call('HSET', run, 'status', 'waiting', 'due', now() + delay)
    redis.call('ZADD', DUE, now() + delay, id)
    parts.slots.leave(name, id, now())
    return true
  end
  function parts.know_group(group, size)
    redis.pcall('HSETNX', GROUP .. group, 'left', size)
    redis.pcall('EXPIRE', GROUP .. group, GROUP_SECONDS)
  end
  -- Starts what waits for the group, if all its runs have ended: then nothing asks for it again.
  function parts.join(group)
    local r = record(GROUP .. group, 'left', 'join')
    if r[1] ~= '0' or not r[2] then return end
    local run = RUN .. r[2]
    if record(run, 'status')[1] == 'waiting' then parts.queue(run, r[2]) end
    redis.call('DEL', GROUP .. group)
  end
  -- A run counts for its group once, however often it ends.
  function parts.count_off(run, group)
    redis.call('HDEL', run, 'group')
    if (tonumber(record(GROUP .. group, 'left')[1]) or 0) < 1 then return end
    redis.pcall('HINCRBY', GROUP .. group, 'left', -1)
    parts.join(group)
  end
  return parts
end
-- Of a run that waits for a group: 'there', or 'gone' where Redis has lost that, or keeps it no
-- longer. Nil for any other.
local function awaited_group(run, id)
  local r = record(run, 'status', 'join', 'started', 'waiting')
  if r[1] ~= 'waiting' or not r[2] or r[3] or r[4] then return nil end
  return record(GROUP .. r[2], 'join')[1] == id and 'there' or 'gone'
end
-- known: these fields of the record, from whoever has read them already.
local function finish(run, open, id, status, result, again, error, known)
  local t = now()
  local r = known or record(run, 'watchers', 'reply', 'session', 'cancel', 'group', 'limit',
    'action')
  redis.call('HSET', run, 'status', status, 'result', result, 'again', again, 'ended', t,
    unpack(error ~= '' and {'error', error} or {}))
  if r[3] or r[4] then redis.call('HDEL', run, 'session', 'cancel') end
  redis.pcall('RPUSH', ENDED, id .. ' ' .. t)
  redis.call('ZREM', open, id)
  if r[2] then redis.call('PUBLISH', r[2], id .. result) end
  wake(r[1], id)
  if r[5] then waiting_parts(open).count_off(run, r[5]) end
  if r[6] then waiting_parts(open).slots.leave(limit_name(r[7], r[6]), id, t) end
end
local function queue_again(run, open, id, delay)
  local r = record(run, 'queue', 'message', 'cancel', 'limit', 'action')
  if r[3] then delay = 0 end
  if r[4] and waiting_parts(open).give_back(run, id, limit_name(r[5], r[4]), delay) then return end
  redis.call('HSET', run, 'status', 'queued', 'due', now() + delay)
  redis.call('HDEL', run, 'holder', 'lease')
  if delay == 0 and r[1] and r[2] then redis.pcall('RPUSH', r[1], r[2]) end
  redis.call('ZADD', open, now() + (delay == 0 and 1000 or delay), id)
end
local function start_again(run, open, id)
  redis.call('PERSIST', run)
  note_attempt(run, 'ended', record(run, 'ended')[1])
  redis.call('HDEL', run, 'result', 'error', 'ended', 'again', 'started', 'attempted', 'progress',
    'spent', 'parked', 'waited', 'waiting', 'exception')
  redis.call('HSET', run, 'lost', 0, 'restarted', 1)
  local r = record(run, 'enqueued', 'caller', 'parent')
  enlist(id, number(r[1], 0), r[2], r[3])
  queue_again(run, open, id, 0)
end
