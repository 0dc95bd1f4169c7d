-- Ends the wait for the outcome of a request that was charged when it was let through.
--
-- KEYS[1]: as in decide.lua. ARGV: outcome (0 released, 1 failed, 2 forgiven), cost, microseconds passed since, learns,
-- then for each window its interval.
local key = KEYS[1]
if redis.call('EXISTS', key) == 0 then
  return { 0 }
end
local outcome, cost, passed = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
if ARGV[4] == '1' then
  local left = tonumber(redis.call('HGET', key, 'p') or 0) - cost
  redis.call('HSET', key, 'p', math.max(0, left))
end
if outcome == '2' then
  redis.call('HDEL', key, 'b', '1', '2', '3', '4')
elseif outcome == '0' then
  for w = 1, #ARGV - 4 do
    local full_at = redis.call('HGET', key, w)
    if full_at then
      -- What trickled in meanwhile is not given twice.
      local back = math.max(0, cost * tonumber(ARGV[w + 4]) - passed)
      redis.call('HSET', key, w, string.format('%.0f', tonumber(full_at) - back))
    end
  end
end
return { 1 }
