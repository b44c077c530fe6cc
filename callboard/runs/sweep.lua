-- One sweeper at a time, a bounded number of runs at a time: looking for a message in a deep
-- queue reads the queue. An older run goes to the queue's front. Answers id and action of each run
-- that is to expire: that was queued too long, has lost what wakes a worker for it, or waits for a
-- group that is gone.
local open, turn, id_limit, lifetime = KEYS[1], KEYS[2], tonumber(ARGV[1]), tonumber(ARGV[2])
if not redis.call('SET', turn, '1', 'NX', 'PX', 200) then return {} end
local t, overdue = now(), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', t, 'LIMIT', 0, id_limit)) do
  local run = RUN .. id
  local r = record(run, 'status', 'queue', 'message', 'enqueued', 'retried', 'action', 'lease',
    'v', 'woken')
  local group = r[1] == 'waiting' and awaited_group(run, id)
  if group then
    if group == 'gone' and number(r[8], 1) <= FORMAT then
      overdue[#overdue + 1] = id
      overdue[#overdue + 1] = r[6] or ''
    end
    redis.call('ZADD', open, t + GROUP_LOOK + patience(redis.call('ZCARD', open)), id)
  elseif r[1] ~= 'queued' and r[1] ~= 'running' then
    redis.call('ZREM', open, id)
  else
    local again = t + patience(redis.call('ZCARD', open))
    local since = math.max(number(r[5], number(r[4], 0)), number(r[9], 0))
    local late = r[1] == 'queued' and since + lifetime < t
    local mute = not (r[2] and r[3] and r[6]) and number(r[7], 0) < t
    if (late or mute) and number(r[8], 1) <= FORMAT then
      overdue[#overdue + 1] = id
      overdue[#overdue + 1] = r[6] or ''
    elseif r[2] and r[3] and not redis.pcall('LPOS', r[2], r[3], 'RANK', -1) then
      redis.pcall('RPUSH', r[2], r[3])
      again = t + 1000
    end
    redis.call('ZADD', open, again, id)
  end
end
return overdue
