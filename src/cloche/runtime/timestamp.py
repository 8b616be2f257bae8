"""Moments (ns since the epoch) as text: RFC 3339 with nanoseconds out, the shapes of `--since` and `--until` in."""

from __future__ import annotations

import time

from cloche.errors import Invalid

SECOND = 1_000_000_000
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
}
_RANGE = 1 << 63


def format_time(moment: int) -> str:
    """`2024-01-02T03:04:05.123456789Z`, always with nine digits, as `docker logs -t` writes it."""
    seconds, rest = divmod(moment, SECOND)
    t = time.gmtime(seconds)
    return f"{t.tm_year:04}-{t.tm_mon:02}-{t.tm_mday:02}T{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}.{rest:09}Z"


def format_time_short(moment: int) -> str:
    """The same without zeros at its end, as documents have it (Go's RFC3339Nano): who reads and writes one again, as
    skopeo does with an image's configuration, changes nothing, and so not its digest."""
    whole = format_time(moment)[:-1].rstrip("0")
    return whole.removesuffix(".") + "Z"


def parse_time(text: str, now: int) -> int:
    """A moment as `--since` takes it: a Go duration before `now`, RFC 3339 or its first part, or Unix seconds.

    A date without a zone is local time. Raises Invalid.
    """
    try:
        duration = None if text == "0" else parse_duration(text)
        if duration is not None:
            moment = now - duration
        elif "-" in text[1:]:
            moment = _date(text)
        else:
            moment = _unix(text)
        if not -_RANGE <= moment < _RANGE:
            raise ValueError
    except (ValueError, OverflowError):
        hint = "write 10m, 2024-01-02T03:04:05Z, 2024-01-02 or Unix seconds"
        raise Invalid(f"read the time {text}", "no such moment or duration", hint) from None
    return moment


def parse_duration(text: str) -> int | None:
    """Nanoseconds of a Go duration (`1h30m`, `1.5s`, `-3ms`), None when it is none. Source: Go's time.ParseDuration."""
    import re

    sign = -1 if text[:1] == "-" else 1
    body = text[1:] if text[:1] in ("-", "+") else text
    one = r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)"
    if len(body) > 100 or not re.fullmatch(f"(?:{one})+", body):
        return None
    total = 0
    for whole, fraction, unit in re.findall(one, body):
        if not whole and not fraction:
            return None
        total += int(whole or 0) * _UNITS[unit] + int(fraction or 0) * _UNITS[unit] // 10 ** len(fraction)
    return sign * total


def _date(text: str) -> int:
    """`2024-01-02[T03[:04[:05[.123456789]]]][Z|+01:00]`. Raises ValueError."""
    import re
    from calendar import timegm
    from datetime import datetime

    shape = (
        r"([0-9]{4})-([0-9]{2})-([0-9]{2})(?:[Tt]([0-9]{2})(?::([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?)?)?"
        r"([Zz]|[+-][0-9]{2}:[0-9]{2})?"
    )
    found = re.fullmatch(shape, text)
    if not found:
        raise ValueError
    year, month, day, hour, minute, second = (int(field or 0) for field in found.groups()[:6])
    date = datetime(year, month, day, hour, minute, second)  # checks every field's range
    fraction = int((found[7] or "").ljust(9, "0"))
    zone = found[8]
    if zone is None:
        return int(time.mktime((*date.timetuple()[:8], -1))) * SECOND + fraction
    east = 0
    if zone not in "Zz":
        hours, minutes = int(zone[1:3]), int(zone[4:6])
        if hours > 24 or minutes > 59:
            raise ValueError
        east = (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)
    return (timegm(date.timetuple()) - east) * SECOND + fraction


def _unix(text: str) -> int:
    """`1704164645`, `1704164645.25`. Raises ValueError."""
    import re

    found = re.fullmatch(r"(-?)([0-9]{1,19})(?:\.([0-9]{1,9}))?", text)
    if not found:
        raise ValueError
    moment = int(found[2]) * SECOND + int((found[3] or "").ljust(9, "0"))
    return -moment if found[1] else moment
