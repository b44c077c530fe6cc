-- Leaves the run with its holder when it was lost too often: the caller then finishes it.
local run, open, id, holder = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
if not held_by(run, holder) then return {-1, 0} end
local r = record(run, 'lost', 'max_lost', 'action')
local lost = number(r[1], 0) + 1
redis.call('HSET', run, 'lost', lost)
count('lost', r[3])
if lost >= number(r[2], DEFAULT_LOST) then return {lost, 1} end
note_attempt(run, 'lost')
queue_again(run, open, id, 0)
return {lost, 0}
