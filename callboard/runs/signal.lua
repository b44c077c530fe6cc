-- The first signal of a name counts. A run that waits for it is queued at once. Answers what came
-- of it: 'kept', 'known' (one came before, or the wait for it is over), 'full', 'newer', or 'ended' (also: no such run).
local run, open, id, name, signal = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3]
local most, most_bytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local r = record(run, 'status', 'waiting', 'signal:' .. name, 'signals', 'signals_bytes', 'v')
local status, count, bytes = r[1], number(r[4], 0) + 1, number(r[5], 0) + #signal
if status ~= 'queued' and status ~= 'waiting' and status ~= 'running' then return 'ended' end
if number(r[6], 1) > FORMAT then return 'newer' end
if r[3] then return 'known' end
if count > most or bytes > most_bytes then return 'full' end
redis.call('HSET', run, 'signal:' .. name, signal, 'signals', count, 'signals_bytes', bytes)
local function is_awaited()
  local readable, waits = pcall(cjson.decode, r[2] or '')
  if not readable or type(waits) ~= 'table' then return false end
  if waits.kind == 'signal' and waits.name == name then return true end
  for _, other in ipairs(type(waits.others) == 'table' and waits.others or {}) do
    if other == name then return true end
  end
  return false
end
if status == 'waiting' and is_awaited() then waiting_parts(open).queue(run, id) end
return 'kept'
