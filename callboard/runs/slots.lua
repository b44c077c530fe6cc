-- The slots of limits: a limit and a key of it, together `<action>:<tag>`, have a name. Whoever is
-- in SLOTS has been admitted: scored 0 it stands in its queue, where a key has one run at most, so
-- that whoever has many delays the others by one; else it is, or was, in its handler, scored by
-- when that started. STARTS: the starts that count for the rate. LINE: who waits, in order.
-- LIMITED: the names with such, by when to look at them again, whatever happens.
local function limit_name(action, tag)
  return (action or '') .. ':' .. tag
end
-- push(run, id): puts an admitted run into its queue.
local function slots_of(push)
  local slots = {}
  local function size(...)
    return tonumber(redis.pcall(...)) or 0
  end
  local function numbers(name)
    local text = redis.pcall('HGET', LIMITS, string.match(name, '^[^:]*'))
    local most, rate, window =
      string.match(type(text) == 'string' and text or '', '^(%d+) (%d+) (%d+)$')
    return tonumber(most) or 0, tonumber(rate) or 0, tonumber(window) or 0
  end
  local function look_again(name, t, at)
    redis.pcall('ZADD', LIMITED, 'NX', t + LOOK_AGAIN, name)
    if at and at < t + LOOK_AGAIN then redis.pcall('ZADD', LIMITED, at, name) end
  end
  -- Whether one more may enter; if it is a matter of time, when.
  local function is_free(name, t)
    local most, rate, window = numbers(name)
    local queued, has_key = size('ZCOUNT', SLOTS .. name, 0, 0), string.sub(name, -2) ~= ':-'
    if queued > 0 and has_key then return false end
    if most > 0 and size('ZCARD', SLOTS .. name) >= most then return false end
    if rate == 0 then return true end
    redis.pcall('ZREMRANGEBYSCORE', STARTS .. name, '-inf', t - window)
    local over = size('ZCARD', STARTS .. name) + queued - rate
    if over < 0 then return true end
    local first = redis.pcall('ZRANGE', STARTS .. name, over, over, 'WITHSCORES')[2]
    return false, first and number(first, t) + window
  end
  function slots.waiting(name)
    return size('ZCARD', LINE .. name)
  end
  function slots.has(name, id)
    return tonumber(redis.pcall('ZSCORE', SLOTS .. name, id)) ~= nil
  end
  -- Whether the run is admitted; it waits otherwise, behind those that do.
  function slots.enter(name, id, t)
    if slots.has(name, id) then return true end
    local free, at = is_free(name, t)
    if not free or slots.waiting(name) > 0 then
      local last = redis.pcall('ZREVRANGE', LINE .. name, 0, 0, 'WITHSCORES')
      local place = math.max(t, (tonumber(last[2]) or 0) + 1)
      if tonumber(redis.pcall('ZADD', LINE .. name, place, id)) then
        look_again(name, t, free and t or at)
        return false
      end
    end
    redis.pcall('ZADD', SLOTS .. name, 0, id)
    return true
  end
  -- Admits the first that wait, if there is a slot for each.
  function slots.admit(name, t)
    for _ = 1, ADMITTED do
      if slots.waiting(name) == 0 then
        redis.pcall('ZREM', LIMITED, name)
        return
      end
      local free, at = is_free(name, t)
      if not free then return look_again(name, t, at) end
      local id = redis.pcall('ZRANGE', LINE .. name, 0, 0)[1]
      redis.pcall('ZREM', LINE .. name, id)
      if record(RUN .. id, 'status')[1] == 'waiting' then
        redis.pcall('ZADD', SLOTS .. name, 0, id)
        push(RUN .. id, id)
      end
    end
    look_again(name, t, t)
  end
  function slots.leave(name, id, t)
    if size('ZREM', SLOTS .. name, id) == 0 then redis.pcall('ZREM', LINE .. name, id) end
    slots.admit(name, t)
  end
  -- Its handler starts: every start counts for the rate, and the queue is free for the next.
  function slots.start(name, id, t)
    local _, rate, window = numbers(name)
    redis.pcall('ZADD', SLOTS .. name, t, id)
    if rate > 0 then
      redis.pcall('ZADD', STARTS .. name, t, id .. ':' .. t)
      redis.pcall('PEXPIRE', STARTS .. name, window)
    end
    slots.admit(name, t)
  end
  -- Whatever went wrong comes right here: a run without a record, one that a program of an earlier
  -- version has ended, a limit that was changed.
  function slots.look(name, t)
    for _, id in ipairs(redis.pcall('ZRANDMEMBER', SLOTS .. name, LOOKED_AT)) do
      local status = record(RUN .. id, 'status')[1]
      if status ~= 'queued' and status ~= 'running' then
        redis.pcall('ZREM', SLOTS .. name, id)
      end
    end
    redis.pcall('ZADD', LIMITED, t + LOOK_AGAIN, name)
    slots.admit(name, t)
  end
  return slots
end
