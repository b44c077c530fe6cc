local run, open, id, result, error = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local status = record(run, 'status')[1]
if status == 'queued' then finish(run, open, id, 'canceled', result, '0', error) end
if status == 'running' then redis.call('HSETNX', run, 'cancel', now()) end
return status
