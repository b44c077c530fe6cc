local run, open = KEYS[1], KEYS[2]
local id, holder, status, result, again, error = unpack(ARGV)
if not held_by(run, holder) then return 0 end
finish(run, open, id, status, result, again, error)
return 1
