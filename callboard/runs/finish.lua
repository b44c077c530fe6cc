local run, open = KEYS[1], KEYS[2]
local id, holder, status, result, again, error = unpack(ARGV)
local r = record(run, 'watchers', 'reply', 'session', 'cancel', 'group', 'status', 'holder')
if r[6] ~= 'running' or r[7] ~= holder then return 0 end
finish(run, open, id, status, result, again, error, r)
return 1
