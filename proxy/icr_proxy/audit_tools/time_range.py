"""Time specifications of `--since` and `--until`: dates, words, how long ago. UTC by default."""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta

EXAMPLES = (
    'write 2026-10-01, "2026-10-01 10:00" (UTC), 2026-10-01T10:00+02:00, 90m, 2h30m, 7d,'
    ' "3 days ago", "last week", yesterday, today or now'
)
UNITS = {
    "s": "seconds", "sec": "seconds", "second": "seconds",
    "m": "minutes", "min": "minutes", "minute": "minutes",
    "h": "hours", "hr": "hours", "hour": "hours",
    "d": "days", "day": "days",
    "w": "weeks", "wk": "weeks", "week": "weeks",
    "month": "months", "mon": "months",
    "y": "years", "yr": "years", "year": "years",
}  # fmt: skip
COUNTS = {"a": 1, "an": 1, "one": 1, "last": 1, "past": 1}
DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1}
WEEKDAYS = tuple(name.lower() for name in calendar.day_name)
PART = re.compile(
    r"([0-9]{1,9}(?:\.[0-9]{1,3})?|(?:an|a|one|last|past)(?= )) ?([a-z]+),? ?(?:and )?"
)
CLOCK = re.compile(r"(?:at\s+)?([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")
EPOCH = re.compile(r"@?([0-9]{10})(?:\.[0-9]{1,9})?")
MONTH = re.compile(r"([0-9]{4})-([0-9]{2})")


def read_moment(text: str, *, now: float) -> str:
    """Read a time specification; `now` is in seconds since the epoch.

    Gives it as records write it, so that text can be compared.

    Raises:
        ValueError: with the rest of a sentence that begins with the text.
    """
    words = " ".join(text.lower().split())
    try:
        today = datetime.fromtimestamp(now, UTC)
        found = _named_day(words, today) or _relative(words, today) or _absolute(words)
        return found.astimezone(UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError):
        raise ValueError(f"is no time; {EXAMPLES}") from None


def _named_day(words: str, now: datetime) -> datetime | None:
    """Read `now`, and a day by its name, perhaps with a time of day."""
    if words == "now":
        return now
    name, _, time = words.removeprefix("last ").partition(" ")
    if name in DAYS and not words.startswith("last "):
        days = DAYS[name]
    elif name in WEEKDAYS:
        days = -((now.weekday() - WEEKDAYS.index(name) - 1) % 7 + 1)  # the last one before today
    else:
        return None
    hour, minute, second = _time_of_day(time)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight + timedelta(days=days)).replace(hour=hour, minute=minute, second=second)


def _time_of_day(text: str) -> tuple[int, int, int]:
    if not text:
        return 0, 0, 0
    found = CLOCK.fullmatch(text.removesuffix(" utc"))
    if found is None:
        raise ValueError
    hour, minute, second = (int(each or 0) for each in found.groups())
    return hour, minute, second


def _relative(words: str, now: datetime) -> datetime | None:
    """Read `2h30m`, `3 days ago`, `last week`; `ago` may be left out."""
    rest = re.sub(r"^(?:-|(?:last|past) (?=[0-9]))", "", words.removesuffix(" ago"))
    parts = list(PART.finditer(rest))
    if not parts or "".join(part[0] for part in parts) != rest:
        return None
    for count, name in (part.groups() for part in parts):
        unit = UNITS.get(name) or UNITS.get(name.removesuffix("s"))
        if unit is None:
            raise ValueError
        number = COUNTS.get(count) or float(count)
        if unit in ("months", "years"):
            now = _months_before(now, number * (12 if unit == "years" else 1))
        else:
            now -= timedelta(**{unit: number})
    return now


def _months_before(moment: datetime, number: float) -> datetime:
    """Go back by whole months; the 31st becomes the last day of a shorter month."""
    if number != int(number):
        raise ValueError
    year, month = divmod(moment.year * 12 + moment.month - 1 - int(number), 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)


def _absolute(words: str) -> datetime:
    """Read ISO 8601, a month (its first day), or seconds since the epoch."""
    epoch, month = EPOCH.fullmatch(words), MONTH.fullmatch(words)
    if epoch is not None:
        return datetime.fromtimestamp(float(words.removeprefix("@")), UTC)
    if month is not None:
        return datetime(int(month[1]), int(month[2]), 1, tzinfo=UTC)
    zoned = re.sub(r" ?(?:utc|gmt|z)$", "Z", words.upper(), flags=re.IGNORECASE)
    moment = datetime.fromisoformat(zoned)
    return moment.replace(tzinfo=moment.tzinfo or UTC)
