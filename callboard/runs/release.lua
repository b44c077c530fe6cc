-- What is due has its place in the queue, the earliest first. A queue that is full keeps what is
-- for it waiting a second more, and holds no other up. What has waited for a slot as long as a call
-- lives is the sweep's to expire. Answers how many were looked at.
local open, most, max_queue, t = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), now()
local parts = waiting_parts(open)
local due, depths = redis.call('ZRANGEBYSCORE', DUE, '-inf', t, 'LIMIT', 0, most), {}
for _, id in ipairs(due) do
  local run = RUN .. id
  local r = record(run, 'status', 'queue', 'v', 'waiting')
  local queue = r[2] or ''
  if r[1] ~= 'waiting' then
    redis.call('ZREM', DUE, id)
  elseif number(r[3], 1) > FORMAT then
    redis.call('ZADD', DUE, t + 1000, id)
  elseif r[4] == FOR_SLOT then
    redis.call('HSET', run, 'status', 'queued')
    redis.call('HDEL', run, 'waiting')
    redis.call('ZREM', DUE, id)
    redis.call('ZADD', open, t, id)
  else
    depths[queue] = depths[queue] or tonumber(redis.pcall('LLEN', queue)) or 0
    if depths[queue] >= max_queue then
      redis.call('ZADD', DUE, t + 1000, id)
    else
      parts.queue(run, id)
      depths[queue] = depths[queue] + 1
    end
  end
end
return #due
