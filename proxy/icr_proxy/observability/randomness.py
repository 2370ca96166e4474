"""Random hexadecimal digits for ids, drawn from the system for many requests at a time.

A draw is a system call, which costs more than all else that an id needs. What was drawn belongs to
one process: it is kept in the module, as a fork copies whatever anybody keeps, and lets the child
forget it.
"""

from __future__ import annotations

import os

DIGITS = 64  # what a request needs at most: the id of a trace, and those of two spans
DRAWN = 4096  # bytes, which are 128 requests' worth

_waiting: list[str] = []
os.register_at_fork(after_in_child=_waiting.clear)


def fresh_digits() -> str:
    """Give 64 random lower-case hexadecimal digits that nobody got before."""
    try:
        return _waiting.pop()
    except IndexError:
        drawn = os.urandom(DRAWN).hex()
        first, *rest = (drawn[at : at + DIGITS] for at in range(0, len(drawn), DIGITS))
        _waiting.extend(rest)
        return first
