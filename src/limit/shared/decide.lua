-- Decides on one request by all its keys: charges all of them, or none.
--
-- KEYS[i]: a hash with b (end of a ban), p (requests under way), 1..4 (when the bucket of a window is full again).
-- ARGV: now in microseconds (0: the server's clock); then for each key: enforced, cost, want, ban, learns, tells, windows,
-- and for each window interval, depth.
-- Answer: for each key what it was charged, the wait in microseconds, and what stands in the way; then, where the client is
-- told and it was charged, the window with the least room, how many it has left, and microseconds until it is full (until
-- it has room for one, where it has none).
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end
local at, plans, refused = 2, {}, 0
for i, key in ipairs(KEYS) do
  local plan = {
    enforced = ARGV[at] == '1',
    cost = tonumber(ARGV[at + 1]),
    room = tonumber(ARGV[at + 2]),
    ban = tonumber(ARGV[at + 3]),
    learns = ARGV[at + 4] == '1',
    tells = ARGV[at + 5] == '1',
    windows = tonumber(ARGV[at + 6]),
    wait = 0, why = 0, debts = {}, intervals = {}, depths = {},
  }
  at = at + 7
  local state = redis.call('HMGET', key, 'b', 'p', '1', '2', '3', '4')
  local pending = tonumber(state[2] or 0)
  local settled = 0
  plan.banned = math.max(0, tonumber(state[1] or 0) - now)
  for w = 1, plan.windows do
    local interval, depth = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    at = at + 2
    local debt = math.max(0, tonumber(state[w + 2] or 0) - now)
    local short = debt + (plan.cost - depth) * interval
    plan.wait = math.max(plan.wait, short)
    settled = math.max(settled, short - pending * interval)
    plan.room = math.min(plan.room, math.floor(depth - debt / interval))
    plan.debts[w], plan.intervals[w], plan.depths[w] = debt, interval, depth
  end
  if plan.banned > 0 then
    plan.why = 4
    plan.wait = math.max(plan.wait, plan.banned)
  elseif plan.wait > 0 then
    if pending > 0 and settled <= 0 then
      plan.why = 2 -- requests under way are no proof of guilt
    elseif plan.ban > 0 then
      plan.why = 3
    else
      plan.why = 1
    end
  end
  if plan.why > 0 and plan.enforced and refused == 0 then
    refused = i
  end
  plans[i] = plan
end
local answer = {}
for i, key in ipairs(KEYS) do
  local plan = plans[i]
  local charged = 0
  local window, count, full_in = 0, 0, 0
  if plan.why == 3 and (refused == 0 or i <= refused) then
    plan.wait = math.max(plan.wait, plan.ban)
    redis.call('HSET', key, 'b', string.format('%.0f', now + plan.ban))
    local longest = plan.ban
    for w = 1, plan.windows do
      longest = math.max(longest, plan.debts[w])
    end
    redis.call('PEXPIRE', key, math.ceil(longest / 1000) + 1000)
  elseif plan.why == 0 and refused == 0 then
    charged = math.max(plan.cost, plan.room)
    local longest = plan.banned
    for w = 1, plan.windows do
      local debt = plan.debts[w] + charged * plan.intervals[w]
      longest = math.max(longest, debt)
      redis.call('HSET', key, w, string.format('%.0f', now + debt))
      if plan.tells then
        local room = math.max(0, math.floor(plan.depths[w] - debt / plan.intervals[w]))
        local left_in = debt
        if room == 0 then
          left_in = debt + (1 - plan.depths[w]) * plan.intervals[w]
        end
        if full_in == 0 or room < count or (room == count and left_in > full_in) then
          window, count, full_in = w - 1, room, left_in
        end
      end
    end
    if plan.learns then
      redis.call('HINCRBY', key, 'p', plan.cost)
    end
    redis.call('PEXPIRE', key, math.ceil(longest / 1000) + 1000)
  end
  answer[6 * i - 5], answer[6 * i - 4], answer[6 * i - 3] = charged, plan.wait, plan.why
  answer[6 * i - 2], answer[6 * i - 1], answer[6 * i] = window, count, full_in
end
return answer
