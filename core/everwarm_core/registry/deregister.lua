-- A pod leaves: everything it wrote goes, and `changes` says so.
--
-- KEYS  1 pod:<id>, 2 changes, then every ZSET the pod may be a member of.
-- ARGV  1 id, 2 boot, 3 length to trim `changes` to, 4 model, 5 names, 6 languages.
-- Returns 1; 0 when the entry is gone already or belongs to a newer process of the same pod, which is left alone.

local boot = redis.call('HGET', KEYS[1], 'boot')
if boot and boot ~= ARGV[2] then
  return 0
end
local removed = redis.call('DEL', KEYS[1])
for i = 3, #KEYS do
  removed = removed + redis.call('ZREM', KEYS[i], ARGV[1])
end
if removed == 0 then
  return 0
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], '*', 'pod', ARGV[1], 'state', 'gone',
  'model', ARGV[4], 'names', ARGV[5], 'languages', ARGV[6], 'boot', ARGV[2])
return 1
