-- The attempt may come with a report: the field, and what is in it.
local run, open, id, holder, delay = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3])
if not held_by(run, holder) then return 0 end
note_attempt(run, 'requeued')
if ARGV[4] then redis.call('HSET', run, ARGV[4], ARGV[5]) end
queue_again(run, open, id, delay)
if delay > 0 then count('retries', record(run, 'action')[1]) end
wake_watchers(run, id)
return 1
