-- The handler waits, without a process: its next start is the same attempt, and lives by the call
-- that comes sealed anew; perhaps with a report: the field, and what is in it. What it waits for may
-- have come meanwhile: then it is queued at once.
local run, open, id, holder = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local seal, due, waiting, signals = ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
local spent, kept = ARGV[7], tonumber(ARGV[8])
if not held_by(run, holder) then return 0 end
local t, r = now(), record(run, 'cancel', 'idempotency', 'group', 'limit', 'action', 'v')
local wait = math.max(due - t, 0)
redis.call('HSET', run, 'status', 'waiting', 'waiting', waiting, 'due', due,
  'parked', t, 'spent', spent, 'seal', seal, 'v', math.max(number(r[6], 1), MEMORY_FORMAT))
if ARGV[9] then redis.call('HSET', run, ARGV[9], ARGV[10]) end
redis.call('HDEL', run, 'holder', 'lease')
redis.call('ZREM', open, id)
redis.call('ZADD', DUE, due, id)
if r[2] then redis.pcall('PEXPIRE', r[2], wait + kept) end
if r[3] then
  redis.pcall('EXPIRE', GROUP .. r[3], GROUP_SECONDS + math.ceil(wait / 1000), 'GT')
end
local come = false
for name in string.gmatch(signals, '%S+') do
  come = come or redis.call('HEXISTS', run, 'signal:' .. name) == 1
end
if r[1] or come or wait == 0 then
  waiting_parts(open).queue(run, id)
else
  if r[4] then waiting_parts(open).slots.leave(limit_name(r[5], r[4]), id, t) end
  wake_watchers(run, id)
end
return 1
