-- A run that was lost too often, or is to be canceled, is the claimer's to end: unopened, so that a
-- run that kills whoever opens it ends too. One whose handler waited goes on with its attempt.
local run, open = KEYS[1], KEYS[2]
local id, action, holder, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local r = record(run, 'status', 'action', 'holder', 'lease', 'due', 'seal', 'session',
  'started', 'attempt', 'lost', 'watchers', 'max_lost', 'cancel', 'v', 'limit')
local status, attempt, lost, t = r[1], number(r[9], 0), number(r[10], 0), now()
if not status or r[2] ~= action then return {'gone'} end
if status ~= 'queued' and status ~= 'running' then
  return {status == 'waiting' and 'early' or 'ended'}
end
local version = number(r[14], 1)
if version > FORMAT then return {'newer'} end
local resent = r[3] == holder
if status == 'running' and not resent and number(r[4], 0) > t then return {'held'} end
if status == 'queued' and number(r[5], 0) > t then return {'early'} end
local limit = r[15] and limit_name(action, r[15])
local parts = limit and waiting_parts(open)
if limit and status == 'queued' and not parts.slots.has(limit, id)
    and not parts.slots.enter(limit, id, t) then
  redis.call('ZREM', open, id)
  parts.line_up(run, id, t)
  return {'early'}
end
if status == 'running' and not resent then
  lost = lost + 1
  count('lost', action)
  note_attempt(run, 'lost')
end
local state, started = 'claimed', number(r[8], t)
if r[13] then state = 'canceled' elseif lost >= number(r[12], DEFAULT_LOST) then state = 'lost' end
local memory, parked = {}, nil
if version >= MEMORY_FORMAT then
  local m = record(run, 'steps', 'spent', 'waited', 'parked')
  local spent, waited = number(m[2], 0), number(m[3], 0)
  parked = number(m[4])
  if parked then
    waited = waited + math.max(t - parked, 0)
    redis.call('HSET', run, 'waited', waited)
    redis.call('HDEL', run, 'parked')
  elseif not resent then -- another attempt, with all its time
    spent = 0
    if m[2] then redis.call('HDEL', run, 'spent') end
  end
  memory = {number(m[1], 0), spent, waited}
end
if state == 'claimed' and not resent and not parked then attempt = attempt + 1 end
redis.call('HSET', run, 'status', 'running', 'holder', holder, 'lease', t + lease,
  'attempt', attempt, 'lost', lost, 'started', started)
if r[8] and not parked then redis.call('HSET', run, 'attempted', t) end
redis.call('ZADD', open, t + lease, id)
if not resent then wake(r[11], id) end
if limit and state == 'claimed' and not resent then parts.slots.start(limit, id, t) end
return {state, state == 'claimed' and r[6] or '', attempt, lost, r[7] or '', t - started,
  unpack(memory)}
