-- The rules of a ledger, one call a step. Each call runs alone, by Redis's own clock.
-- KEYS[1]: prefix of all keys, with a hash tag, so that in a cluster they lie in one place.
-- ARGV[1]: the step; ARGV[2]: seconds by which a test sets the clock ahead; then the step's own arguments.
--
-- PREFIX:claims            hash: id -> JSON [accounts, admitted, reserved, bound]; open claims
-- PREFIX:leases            sorted set: id by the second at which its lease runs out
-- PREFIX:settled:ID        what a claim was counted as; for an hour
-- PREFIX:count:ACCOUNT:WINDOW:START   hash: s settled, r reserved, b bound
-- PREFIX:state:NAME        hash: value, version

local prefix = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6 + tonumber(ARGV[2])
local NAMES = {'minute', 'hour', 'day', 'month', 'all'}
local LENGTHS = {minute = 60, hour = 3600, day = 86400}
local KEPT = {minute = 7200, hour = 259200, day = 8035200}
local SWEPT = 1000 -- leases that one call settles at most
local REMEMBERED = 3600

local function whole(number)
  return string.format('%.0f', number)
end

-- Start and end of the month of a day, in days since 1970. Years begin in March, so that a leap day is their last:
-- 153 days are five such months, 146097 days 400 years.
local function month_of(day)
  local shifted = day + 719468
  local era = math.floor(shifted / 146097)
  local of_era = shifted - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524) - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * of_year + 2) / 153)
  local first = day - (of_year - math.floor((153 * month + 2) / 5))
  local length = math.floor((153 * (month + 1) + 2) / 5) - math.floor((153 * month + 2) / 5)
  if month == 11 then -- February
    local civil = year + era * 400 + 1
    local leap = civil % 4 == 0 and (civil % 100 ~= 0 or civil % 400 == 0)
    length = leap and 29 or 28
  end
  return first, first + length
end

local function windows_at(second)
  local found = {}
  for _, name in ipairs(NAMES) do
    if name == 'all' then
      found[name] = {0, math.huge}
    elseif name == 'month' then
      local first, last = month_of(math.floor(second / 86400))
      found[name] = {first * 86400, last * 86400}
    else
      local length = LENGTHS[name]
      local start = math.floor(second / length) * length
      found[name] = {start, start + length}
    end
  end
  return found
end

local function cell(account, name, start)
  return prefix .. ':count:' .. account .. ':' .. name .. ':' .. whole(start)
end

local function numbers(key)
  local found = redis.call('HMGET', key, 's', 'r', 'b')
  return tonumber(found[1]) or 0, tonumber(found[2]) or 0, tonumber(found[3]) or 0
end

local function add(claim, settled, sign)
  local windows = windows_at(claim[2])
  for _, account in ipairs(claim[1]) do
    for _, name in ipairs(NAMES) do
      local key = cell(account, name, windows[name][1])
      if settled > 0 then redis.call('HINCRBY', key, 's', whole(settled)) end
      if claim[3] > 0 then redis.call('HINCRBY', key, 'r', whole(sign * claim[3])) end
      if claim[4] > 0 then redis.call('HINCRBY', key, 'b', whole(sign * claim[4])) end
      -- By Redis's own clock, not a test's. Set once: a read costs less than a write to the append-only file.
      if KEPT[name] and redis.call('TTL', key) < 0 then redis.call('EXPIRE', key, KEPT[name]) end
    end
  end
end

local function close(id, tokens)
  local text = redis.call('HGET', prefix .. ':claims', id)
  if not text then return false end
  local claim = cjson.decode(text)
  add(claim, tokens < 0 and claim[3] or tokens, -1)
  redis.call('HDEL', prefix .. ':claims', id)
  redis.call('ZREM', prefix .. ':leases', id)
  local counted = whole(tokens < 0 and claim[3] or tokens)
  redis.call('SET', prefix .. ':settled:' .. id, counted, 'EX', REMEMBERED)
  return counted
end

local function sweep()
  local ids = redis.call('ZRANGEBYSCORE', prefix .. ':leases', '-inf', string.format('%.6f', now), 'LIMIT', 0, SWEPT)
  for _, id in ipairs(ids) do close(id, -1) end
  return #ids
end

local step = {}

-- id, reserved, bound, lease, then for each account its name and its quotas in the order of NAMES, '' for none
function step.reserve(id, reserved, bound, lease, ...)
  local given = {...}
  reserved, bound, lease = tonumber(reserved), tonumber(bound), tonumber(lease)
  sweep()
  if redis.call('HEXISTS', prefix .. ':claims', id) == 1 then return {'taken'} end -- the reply of a first call was lost
  if redis.call('EXISTS', prefix .. ':settled:' .. id) == 1 then return {'given up'} end
  local windows, accounts = windows_at(now), {}
  local left, worst = math.huge, nil
  for at = 1, #given, 6 do
    local account = given[at]
    accounts[#accounts + 1] = account
    for place, name in ipairs(NAMES) do
      local quota = tonumber(given[at + place])
      if quota then
        local settled, held, most = numbers(cell(account, name, windows[name][1]))
        local room = quota - settled - most
        if room < left then left = room end
        if bound > room then
          local wait = math.huge
          if bound <= quota then
            wait = windows[name][2] - now
            if settled + held + bound <= quota then
              local last = redis.call('ZRANGE', prefix .. ':leases', -1, -1, 'WITHSCORES')
              wait = math.min(wait, (tonumber(last[2]) or now) - now)
            end
          end
          if not worst or wait > worst[1] then worst = {wait, account, name, quota} end
        end
      end
    end
  end
  if worst then
    local wait = worst[1] == math.huge and 'inf' or string.format('%.6f', worst[1])
    return {'full', worst[2], worst[3], whole(worst[4]), whole(math.max(0, left)), wait}
  end
  local claim = {accounts, math.floor(now), reserved, bound} -- JSON would round parts of a second, into another window
  redis.call('HSET', prefix .. ':claims', id, cjson.encode(claim))
  redis.call('ZADD', prefix .. ':leases', string.format('%.6f', now + lease), id)
  add(claim, 0, 1)
  return {'taken'}
end

function step.renew(id, lease)
  if redis.call('HEXISTS', prefix .. ':claims', id) == 0 then return 0 end
  redis.call('ZADD', prefix .. ':leases', 'GT', string.format('%.6f', now + tonumber(lease)), id)
  return 1
end

-- `gives_up` is '1' where the claim may not have come yet, and must not be taken any more.
function step.settle(id, tokens, gives_up)
  local key = prefix .. ':settled:' .. id
  local before = redis.call('GET', key)
  if before then return before end
  local counted = close(id, tonumber(tokens))
  if not counted and gives_up == '1' then redis.call('SET', key, '0', 'EX', REMEMBERED) end
  return counted
end

function step.sweep()
  return sweep()
end

function step.counts(...)
  local windows, found = windows_at(now), {}
  for _, account in ipairs({...}) do
    for _, name in ipairs(NAMES) do
      local start = windows[name][1]
      local settled, held, most = numbers(cell(account, name, start))
      found[#found + 1] = {account, name, whole(start), whole(settled), whole(held), whole(most)}
    end
  end
  return found
end

function step.num_open()
  return redis.call('HLEN', prefix .. ':claims')
end

function step.now()
  return string.format('%.6f', now)
end

function step.state(name)
  local found = redis.call('HMGET', prefix .. ':state:' .. name, 'value', 'version')
  return {found[1] or '{}', found[2] or '0'}
end

function step.swap(name, value, version)
  local key = prefix .. ':state:' .. name
  if (redis.call('HGET', key, 'version') or '0') ~= version then return 0 end
  redis.call('HSET', key, 'value', value, 'version', whole(tonumber(version) + 1))
  return 1
end

return step[ARGV[1]](unpack(ARGV, 3))
