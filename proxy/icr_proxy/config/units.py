"""Durations and sizes as people write them.

Inside, a duration is a float in seconds and a size an int in bytes; only here are they text.
Units are few and exact on purpose: `m` is minutes and never months, `KiB` is 1024 bytes, and `KB`,
over whose meaning people disagree, is refused.
"""

from __future__ import annotations

import math
import re

DURATION_PATTERN = r"(0|[1-9][0-9]*)(\.[0-9]+)?(ms|s|m|h)?"
SIZE_PATTERN = r"(0|[1-9][0-9]*)(B|KiB|MiB|GiB)?"

# No leading zeros: YAML 1.1 reads 010 as eight, people read ten.
_DURATION = re.compile(DURATION_PATTERN)
_SIZE = re.compile(SIZE_PATTERN)

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_BYTES = {"": 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}

_DIGITS = 20  # more is a slip of the keyboard; also bounds the work of `int`


def read_duration(raw: object) -> float:
    """Give seconds; raise ValueError for everything that is not a duration."""
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        return _seconds(float(raw))
    match = _DURATION.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if match is None or len(match[0]) > _DIGITS:
        raise ValueError("not a duration")
    number, unit = float(match[1] + (match[2] or "")), match[3] or "s"
    # Dividing is exact where multiplying by 0.001 is not.
    return number / 1000 if unit == "ms" else number * _SECONDS[unit]


def _seconds(number: float) -> float:
    if not math.isfinite(number) or number < 0:
        raise ValueError("not a length of time")
    return number


def write_duration(seconds: float) -> str:
    """Write seconds the short way that `read_duration` understands, exact to the nanosecond."""
    if seconds and seconds % 3600 == 0:
        return f"{seconds / 3600:.0f}h"
    if seconds and seconds % 60 == 0:
        return f"{seconds / 60:.0f}m"
    milliseconds = round(seconds * 1000)
    if seconds < 1 and milliseconds and milliseconds / 1000 == seconds:
        return f"{milliseconds}ms"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def read_size(raw: object) -> int:
    """Give bytes; raise ValueError for everything that is not a size."""
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return raw
    match = _SIZE.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if match is None or len(match[0]) > _DIGITS:
        raise ValueError("not a size")
    return int(match[1]) * _BYTES[match[2] or ""]


def write_size(size: int) -> str:
    """Write bytes in the largest unit that says them exactly."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"
