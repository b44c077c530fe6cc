local run, open = KEYS[1], KEYS[2]
local id, holder, status, result, again, error = unpack(ARGV)
local r = record(run, 'watchers', 'reply', 'session', 'cancel', 'group', 'limit', 'action',
  'status', 'holder')
if r[8] ~= 'running' or r[9] ~= holder then return 0 end
finish(run, open, id, status, result, again, error, r)
return 1
