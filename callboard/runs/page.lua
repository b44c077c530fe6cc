-- A run whose record is gone is forgotten. Answers the places that match, and where to go on.
local live, action, status = KEYS[1], ARGV[1], ARGV[2]
local from, id_from, limit, most = ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local found, position = {}, {}
local near = redis.call('ZREVRANGEBYSCORE', live, from, '-inf', 'WITHSCORES', 'LIMIT', 0, most)
for i = 1, #near, 2 do
  local id, enqueued = near[i], near[i + 1]
  if enqueued ~= from or id < id_from then
    local r = record(RUN .. id, 'status', 'action')
    if not r[1] or not number(enqueued) then
      redis.call('ZREM', live, id)
    elseif (action == '' or r[2] == action) and (status == '' or r[1] == status) then
      found[#found + 1] = {enqueued, id}
    end
  end
  position = {enqueued, id}
  if #found == limit then return {found, {}} end
end
return {found, #near == 2 * most and position or {}}
