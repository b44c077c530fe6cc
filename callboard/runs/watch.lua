local run, channel = KEYS[1], ARGV[1]
local r = record(run, 'status', 'watchers')
if not r[1] then return false end
if not string.find(' ' .. (r[2] or '') .. ' ', ' ' .. channel .. ' ', 1, true) then
  redis.call('HSET', run, 'watchers', (r[2] and r[2] .. ' ' or '') .. channel)
end
return r[1]
