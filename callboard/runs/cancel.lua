-- `only_new`: a run that has started goes on.
local run, open, id, result, error = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local only_new = ARGV[4] == '1'
local r = record(run, 'status', 'started')
local status = r[1]
if only_new and r[2] then return status end
if status == 'waiting' then redis.call('ZREM', DUE, id) end
if status == 'queued' or status == 'waiting' then
  finish(run, open, id, 'canceled', result, '0', error)
end
if status == 'running' then redis.call('HSETNX', run, 'cancel', now()) end
return status
