-- Looks at names with runs that wait for a slot: a rate's window goes on, a limit was changed.
-- Answers how many were looked at.
local open, most, t = KEYS[1], tonumber(ARGV[1]), now()
local slots = waiting_parts(open).slots
local names = redis.call('ZRANGEBYSCORE', LIMITED, '-inf', t, 'LIMIT', 0, most)
for _, name in ipairs(names) do slots.look(name, t) end
return #names
