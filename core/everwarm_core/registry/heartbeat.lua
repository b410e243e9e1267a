-- One heartbeat: everything a pod says, in one atomic step, on this server's clock.
--
-- KEYS  1 pods, 2 pod:<id>, 3 epoch, 4 changes,
--       then ARGV[5] keys where the pod is a member (pods:<name>, and warm:<name>:<language> when it is warm),
--       then keys where it is none (any more).
-- ARGV  1 id, 2 TTL in ms, 3 epoch to set if there is none, 4 length to trim `changes` to,
--       5 number of member keys, then fields and values of the hash.
-- Returns {now in ms, epoch, 1 if the change was announced else 0, names before, languages before}.

local id, ttl, members = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- A key lives as long as its longest lease: a writer with a shorter TTL must not take others' leases with it.
local function lease(key)
  redis.call('ZADD', key, now + ttl, id)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. now)
  if redis.call('PTTL', key) < ttl then
    redis.call('PEXPIRE', key, ttl)
  end
end

lease(KEYS[1])
for i = 5, 4 + members do
  lease(KEYS[i])
end
for i = 5 + members, #KEYS do
  redis.call('ZREM', KEYS[i], id)
end

local before = redis.call('HMGET', KEYS[2], 'state', 'boot', 'names', 'languages')
local record, fields = {}, {}
for i = 6, #ARGV, 2 do
  record[ARGV[i]] = ARGV[i + 1]
  fields[#fields + 1] = ARGV[i]
  fields[#fields + 1] = ARGV[i + 1]
end
redis.call('DEL', KEYS[2]) -- fields of another version must not survive beside ours
redis.call('HSET', KEYS[2], unpack(fields))
redis.call('PEXPIRE', KEYS[2], ttl)

redis.call('SET', KEYS[3], ARGV[3], 'NX')

local announced = 0
if before[1] ~= record['state'] or before[2] ~= record['boot']
  or before[3] ~= record['names'] or before[4] ~= record['languages'] then
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[4], '*', 'pod', id, 'state', record['state'],
    'model', record['model'], 'names', record['names'], 'languages', record['languages'], 'boot', record['boot'])
  announced = 1
end
return {now, redis.call('GET', KEYS[3]), announced, before[3] or '', before[4] or ''}
