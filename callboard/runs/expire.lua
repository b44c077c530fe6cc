local run, open, id, result, error = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local r = record(run, 'status', 'lease')
local lapsed = r[1] == 'running' and number(r[2], 0) < now()
if r[1] ~= 'queued' and not lapsed and awaited_group(run, id) ~= 'gone' then return 0 end
finish(run, open, id, 'failed', result, '0', error)
return 1
