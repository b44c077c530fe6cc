local open, lease, t = KEYS[1], tonumber(ARGV[1]), now()
local told = {}
for i = 2, #ARGV, 2 do
  local id, holder = ARGV[i], ARGV[i + 1]
  local run = RUN .. id
  if held_by(run, holder) then
    redis.call('HSET', run, 'lease', t + lease)
    redis.call('ZADD', open, t + lease, id)
    told[#told + 1] = redis.call('HEXISTS', run, 'cancel') == 1 and 'cancel' or 'held'
  else
    local open_as = {running = 'taken', queued = 'queued', waiting = 'queued'}
    told[#told + 1] = open_as[record(run, 'status')[1] or ''] or 'ended'
  end
end
return told
