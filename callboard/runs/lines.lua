-- How many runs wait for a slot, of each action that has a limit. Looks at the keys that are to be
-- looked at next, ARGV[1] at most: more would keep others waiting.
local waiting, answer = {}, {}
for _, action in ipairs(redis.pcall('HKEYS', LIMITS)) do waiting[action] = 0 end
for _, name in ipairs(redis.pcall('ZRANGE', LIMITED, 0, tonumber(ARGV[1]) - 1)) do
  local action = string.match(name, '^[^:]*')
  local length = tonumber(redis.pcall('ZCARD', LINE .. name)) or 0
  waiting[action] = (waiting[action] or 0) + length
end
for action, length in pairs(waiting) do
  answer[#answer + 1] = action
  answer[#answer + 1] = length
end
return answer
