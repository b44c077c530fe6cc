-- A step's result, before its handler goes on: the record's field number n. Sent again after a
-- broken connection it changes nothing. With the name of a signal it is kept only if that has not
-- come, which then comes too late: its field is there, and empty. Else its content is answered.
local run, holder, n, content, unless = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local r = record(run, 'status', 'holder', 'steps', 'steps_bytes', 'v')
if r[1] ~= 'running' or r[2] ~= holder then return {'taken'} end
local come = unless ~= '' and record(run, 'signal:' .. unless)[1]
if come and come ~= '' then return {'signaled', come} end
local field, bytes = 'step:' .. n, number(r[4], 0)
if redis.call('HEXISTS', run, field) == 0 then bytes = bytes + #content end
if n > MAX_STEPS or bytes > MAX_BYTES then return {'full'} end
redis.call('HSET', run, field, content, 'steps', math.max(n, number(r[3], 0)),
  'steps_bytes', bytes, 'v', math.max(number(r[5], 1), MEMORY_FORMAT))
if unless ~= '' then redis.call('HSET', run, 'signal:' .. unless, '') end
return {'kept'}
