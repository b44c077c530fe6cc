-- An idempotency key that is known answers with its run. A run that ended in a way that is
-- worth another try (503, worker lost) starts again, under its own id and seal. Sent again after a
-- broken connection, the script meets its own run, and nothing changes.
--
-- A start has more to say (all '' or absent for a plain call): when it is due (in ms), the group
-- that it counts for, the group whose end it waits for, how many runs that group has, and the run
-- that starts it.
-- And a run that a limit counts: the tag of its key, and the limit's numbers, for whom Redis does
-- not know them yet; or no tag, and why the key could not be told. Over the limit it waits, and as
-- many as a queue may hold with it.
local run, open, queue, idempotency = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, action, seal, message = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local max_queue, ttl, digest, kept = tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
local caller, origin, max_lost, reply = ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local start = ARGV[13] and {delay = tonumber(ARGV[13]), group = ARGV[14], join = ARGV[15]}
local limit = ARGV[18]
if redis.call('EXISTS', run) == 1 then return {'accepted', id} end
if digest ~= '' then
  local known, before = string.match(redis.call('GET', idempotency) or '', '^(%S+) (%S+)$')
  if known and before ~= digest then return {'reused', known} end
  local old = known and RUN .. known
  if old and redis.call('EXISTS', old) == 1 then
    if record(old, 'again')[1] == '1' then
      start_again(old, open, known)
      return {'accepted', known}
    end
    return {'joined', known}
  end
end
local t, depth = now(), redis.call('LLEN', queue)
local waits = start and (start.delay > 0 or start.join ~= '')
if depth >= max_queue and not waits then return {'full', queue .. ' ' .. depth} end
local parts = start and (limit or start.group .. start.join ~= '') and waiting_parts(open)
local in_line = false
if limit == '' then return {'keyless', ARGV[19]} end
if limit then
  local name = limit_name(action, limit)
  local line = parts.slots.waiting(name)
  if line >= max_queue and not waits then return {'crowded', action .. ' ' .. line} end
  redis.pcall('HSETNX', LIMITS, action, ARGV[19])
  in_line = not waits and not parts.slots.enter(name, id, t)
end
local fields = {'action', action, 'queue', queue, 'seal', seal, 'origin', origin,
  'message', message, 'status', waits and 'waiting' or 'queued', 'enqueued', t, 'ttl', ttl,
  'v', limit and LIMITED_FORMAT or start and START_FORMAT or PLAIN_FORMAT}
local function add(name, value)
  if value ~= '' then fields[#fields + 1] = name fields[#fields + 1] = value end
end
add('caller', caller)
add('reply', reply)
add('max_lost', max_lost)
add('idempotency', digest ~= '' and idempotency or '')
if start then
  add('due', start.delay > 0 and t + start.delay or '')
  add('group', start.group)
  add('join', start.join)
  add('parent', ARGV[17])
  add('limit', limit or '')
end
redis.call('HSET', run, unpack(fields))
enlist(id, t, caller ~= '' and caller, start and ARGV[17] ~= '' and ARGV[17])
if digest ~= '' then redis.call('SET', idempotency, id .. ' ' .. digest, 'PX', kept) end
if start and start.group ~= '' then parts.know_group(start.group, ARGV[16]) end
if in_line then
  parts.line_up(run, id, t)
elseif not waits then
  redis.call('LPUSH', queue, message)
  redis.call('ZADD', open, t + patience(depth), id)
elseif start.join == '' then
  redis.call('ZADD', DUE, t + start.delay, id)
else
  parts.know_group(start.join, ARGV[16])
  redis.pcall('HSET', GROUP .. start.join, 'join', id)
  redis.call('ZADD', open, t + GROUP_LOOK, id)
  parts.join(start.join)
end
return {'accepted', id}
