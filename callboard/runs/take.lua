-- A run that was started again since then is not what the entry tells: its entry is empty. Signals,
-- and steps that are large, stay behind.
local list, turn = KEYS[1], KEYS[2]
local me, seconds, count, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if redis.call('SET', turn, me, 'NX', 'EX', seconds) == false then
  if redis.call('GET', turn) ~= me then return {} end
  redis.call('EXPIRE', turn, seconds)
end
local function fields_of(run, memory, steps_bytes)
  if not memory then return redis.call('HGETALL', run) end
  local large, fields = number(steps_bytes, 0) > most / 8, {}
  for _, name in ipairs(redis.call('HKEYS', run)) do
    if not (large and string.find(name, '^step:')) and not string.find(name, '^signal:') then
      fields[#fields + 1] = name
      fields[#fields + 1] = redis.call('HGET', run, name)
    end
  end
  return fields
end
local taken, bytes = {}, 0
for _, entry in ipairs(redis.call('LRANGE', list, 0, count - 1)) do
  local id, ended = string.match(entry, '^(%S+) (%S+)$')
  local run = RUN .. (id or '')
  local r = record(run, 'ended', 'steps', 'signals', 'steps_bytes')
  if not ended or r[1] ~= ended then
    taken[#taken + 1] = {entry, {}}
  else
    local fields = fields_of(run, r[2] or r[3], r[4])
    for _, text in ipairs(fields) do bytes = bytes + #text end
    if bytes > most and #taken > 0 then return taken end
    taken[#taken + 1] = {entry, fields}
  end
end
return taken
