-- The attempt may come with a report: the field, what is in it, and the exception or ''.
local run, open = KEYS[1], KEYS[2]
local id, holder, status, result, again, error, report, content, exception = unpack(ARGV)
local r = record(run, 'watchers', 'reply', 'session', 'cancel', 'group', 'limit', 'action',
  'status', 'holder')
if r[8] ~= 'running' or r[9] ~= holder then return 0 end
if report then redis.call('HSET', run, report, content) end
if report and exception ~= '' then redis.call('HSET', run, 'exception', exception) end
finish(run, open, id, status, result, again, error, r)
return 1
