"""Lua scripts for Redis: each runs as one step, so that no other replica comes between.

KEYS are always those of one token: entry, lease, epoch (`entries.RedisKeys`).
"""

from __future__ import annotations

FAILED = b"failed"
"""Stands in place of a lease for a moment after a failed mint; each replica then mints alone."""

# ARGV: owner of a lease to take if it is free, or nothing; milliseconds that it lasts.
LOOK = """
if ARGV[1] ~= '' then redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) end
return {redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1]),
        redis.call('GET', KEYS[2]), redis.call('GET', KEYS[3])}
"""

# ARGV: owner, epoch when the mint began, entry, milliseconds that it lives.
PUT = """
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[2]) end
if (redis.call('GET', KEYS[3]) or '') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4])
return 1
"""

# ARGV: owner, milliseconds for which the failure stands; 0 frees the lease.
GIVE_UP = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then redis.call('DEL', KEYS[2])
else redis.call('SET', KEYS[2], 'failed', 'PX', ARGV[2]) end
return 1
"""

# ARGV: fingerprint of the only token to drop, or nothing; new epoch, its milliseconds; channel,
# notice. One that was refused leaves the mint of its successor alone.
DROP = """
if ARGV[1] == '' then
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
elseif string.sub(redis.call('GET', KEYS[1]) or '', 2, 13) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
"""

# KEYS: any name. Whoever may not write, or finds no memory, is told so here.
PROBE = """
redis.call('SET', KEYS[1], '1', 'PX', 1000)
redis.call('DEL', KEYS[1])
return 1
"""
