-- The fields of a record, and a number among them, whatever somebody has put there.
local function record(run, ...)
  local r = redis.pcall('HMGET', run, ...)
  return r.err and {} or r
end
local function number(text, otherwise)
  return text and #text < 16 and string.find(text, '^%d+$') and tonumber(text) or otherwise
end
