-- An idempotency key that is known answers with its run. A run that ended in a way that is
-- worth another try (503, worker lost) starts again, under its own id and seal. Sent again after a
-- broken connection, the script meets its own run, and nothing changes.
local run, open, queue, idempotency = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, action, seal, message = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local max_queue, ttl, digest, kept = tonumber(ARGV[5]), ARGV[6], ARGV[7], ARGV[8]
local caller, origin, max_lost, reply = ARGV[9], ARGV[10], ARGV[11], ARGV[12]
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
local depth = redis.call('LLEN', queue)
if depth >= max_queue then return {'full', queue .. ' ' .. depth} end
local t = now()
local fields = {'action', action, 'queue', queue, 'seal', seal, 'origin', origin,
  'message', message, 'status', 'queued', 'enqueued', t, 'ttl', ttl, 'v', FORMAT}
local function add(name, value)
  if value ~= '' then fields[#fields + 1] = name fields[#fields + 1] = value end
end
add('caller', caller)
add('reply', reply)
add('max_lost', max_lost)
redis.call('HSET', run, unpack(fields))
enlist(id, t, caller ~= '' and caller)
redis.call('LPUSH', queue, message)
redis.call('ZADD', open, t + patience(depth), id)
if digest ~= '' then redis.call('SET', idempotency, id .. ' ' .. digest, 'PX', kept) end
return {'accepted', id}
