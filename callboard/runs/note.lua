local run, id, holder, name, value = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if not held_by(run, holder) then return 0 end
redis.call('HSET', run, name, value)
if name == 'progress' then wake_watchers(run, id) end
return 1
