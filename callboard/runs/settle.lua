-- Each entry comes with the least time (ms) that its record is kept. How long a run waited counts
-- from its first start only: a run that was started again had ended in between. How long it ran is
-- without what its handler waited for. What a run was
-- called with, token and all, leaves with it, unless it may start again.
local list, live, counters = KEYS[1], KEYS[2], KEYS[3]
local settled, counted = 0, {}
local NOW = redis.call('TIME')[1] * 1000
local function add(field, number)
  counted[field] = (counted[field] or 0) + number
end
local function observe(what, ms)
  local le = 'Inf'
  for _, bound in ipairs(BOUNDS) do
    if ms <= bound then le = bound break end
  end
  add(what .. ':' .. le, 1)
  add(what .. ':sum', ms)
end
local function settle(id, run, ended, least)
  local r = record(run, 'ended', 'ttl', 'caller', 'action', 'status', 'enqueued', 'started',
    'restarted', 'again', 'parent', 'waited')
  if not r[1] or r[1] ~= ended then return end
  if r[9] ~= '1' then redis.call('HDEL', run, 'seal', 'message') end
  local ended, enqueued, started = number(ended, NOW), number(r[6]), number(r[7])
  redis.pcall('PEXPIREAT', run, math.min(ended, NOW) + math.max(number(r[2], 0), least))
  redis.pcall('ZREM', live, id)
  if r[3] then redis.pcall('ZREM', live .. ':' .. r[3], id) end
  if r[10] then redis.pcall('ZREM', live .. ':' .. r[10], id) end
  if not (r[4] and r[5]) then return end
  add('runs:' .. r[4] .. ':' .. r[5], 1)
  if started then observe('run:' .. r[4], ended - started - number(r[11], 0)) end
  if started and enqueued and not r[8] then observe('wait:' .. r[4], started - enqueued) end
end
for i = 1, #ARGV, 2 do
  local entry = ARGV[i]
  if redis.call('LINDEX', list, 0) ~= entry then break end
  redis.call('LPOP', list)
  local id, ended = string.match(entry, '^(%S+) (%S+)$')
  if id then settle(id, RUN .. id, ended, tonumber(ARGV[i + 1])) end
  settled = settled + 1
end
for field, number in pairs(counted) do redis.pcall('HINCRBY', counters, field, number) end
return settled
