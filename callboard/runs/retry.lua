-- The call may come sealed anew, with a later expiry.
local run, open, id, seal = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if record(run, 'again')[1] ~= '1' then return 0 end
redis.call('HSET', run, 'seal', seal, 'retried', now())
start_again(run, open, id)
wake_watchers(run, id)
return 1
