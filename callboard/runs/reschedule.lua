-- The call comes sealed anew, with its new expiry. Answers the status, and whether it was done:
-- not to a run that has been started, whose handler waits or that is to be tried again, nor to one
-- that waits for a slot.
local run, id, seal, delay, kept = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local due = now() + delay
local r = record(run, 'status', 'join', 'idempotency', 'started', 'waiting')
if r[1] ~= 'waiting' or r[2] or r[4] or r[5] then return {r[1] or '', 0} end
redis.call('HSET', run, 'seal', seal, 'due', due)
redis.call('ZADD', DUE, due, id)
if r[3] then redis.pcall('PEXPIRE', r[3], kept) end
wake_watchers(run, id)
return {r[1], 1}
