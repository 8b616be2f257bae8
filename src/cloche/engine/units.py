"""Sizes, CPU counts, durations and moments as people write and read them; Docker's spelling both ways.

Everything that depends on the time of day takes `now`. Source of the spelling: docker/go-units, docker/cli opts.
"""

from __future__ import annotations

from cloche.errors import Invalid

_BINARY = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_POWERS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_MOST = (1 << 63) - 1
_DIGITS = frozenset("0123456789")


def is_number(text: str) -> bool:
    """ASCII digits only; int() and str.isdigit() take more than people mean."""
    return bool(text) and _DIGITS.issuperset(text)


def whole_number(text: str) -> int:
    """A decimal integer of 64 bits, with a sign or without. Raises Invalid."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not is_number(digits) or len(digits) > 19 or not -_MOST - 1 <= int(text) <= _MOST:
        raise Invalid("invalid number", f"'{text}'")
    return int(text)


def size(text: str) -> int:
    """`64m`, `1.5G`, `512 KiB`, `1024`: bytes, in powers of 1024. Raises Invalid."""
    number = text.lower()
    for ending in ("ib", "b", "i"):
        if number.endswith(ending):
            number = number[: -len(ending)]
            break
    unit = number[-1:] if number[-1:] in ("k", "m", "g", "t", "p") else ""
    number = number[: len(number) - len(unit)]
    if number[-1:] == " ":
        number = number[:-1]
    whole, point, part = number.partition(".")
    if not is_number(whole) or (point and not is_number(part)) or len(number) > 40:
        raise Invalid("invalid size", f"'{text}'")
    scaled: int = (int(whole + part) << _BINARY[unit]) // 10 ** len(part)
    if scaled > _MOST:
        raise Invalid("invalid size", f"'{text}' is more than 8 EiB")
    return scaled


def cpus(text: str) -> int:
    """`0.5`, `2`, `1.25`: billionths of a CPU. Raises Invalid."""
    whole, point, part = text.partition(".")
    if not is_number(whole + part) or len(text) > 30 or (point and not part):
        raise Invalid(f"failed to parse {text} as a rational number")
    part = part.rstrip("0")
    if len(part) > 9:
        raise Invalid("value is too precise", "a billionth of a CPU is the least")
    nano = int(whole or "0") * 10**9 + int(part.ljust(9, "0"))
    if nano > _MOST:
        raise Invalid("invalid CPU count", f"'{text}'")
    return nano


def seconds(text: str) -> float:
    """`42m`, `1h30m`, `1.5s`, `250ms`, `0`: a duration in seconds. Raises Invalid."""
    total = 0.0
    rest = text
    if rest == "0":
        return 0.0
    while rest:
        end = next((i for i, c in enumerate(rest) if c not in _DIGITS and c != "."), len(rest))
        number, rest = rest[:end], rest[end:]
        end = next((i for i, c in enumerate(rest) if c in _DIGITS or c == "."), len(rest))
        unit, rest = rest[:end], rest[end:]
        if number.count(".") > 1 or not is_number(number.replace(".", "")) or len(number) > 20 or unit not in _SECONDS:
            raise Invalid("invalid duration", f"'{text}'", "such as 42m or 1h30m")
        total += float(number) * _SECONDS[unit]
    if not text:
        raise Invalid("invalid duration", "''", "such as 42m or 1h30m")
    return total


def moment(text: str, now: float) -> int:
    """A time in nanoseconds since 1970: seconds since then, a date and time (local if it names no zone), or a duration
    before `now` (seconds). Raises Invalid.
    """
    whole, point, part = text.partition(".")
    if is_number(whole) and (not point or is_number(part)) and len(whole) < 12:
        return int(whole) * 10**9 + int(part[:9].ljust(9, "0") or "0")
    if len(text) >= 10 and text[4] == "-":
        return _date(text)
    return int((now - seconds(text)) * 1e9)


def _date(text: str) -> int:
    from datetime import datetime

    body, point, rest = text.partition(".")
    end = next((i for i, c in enumerate(rest) if c not in _DIGITS), len(rest))
    nano, zone = rest[:end], rest[end:]
    if point and not nano:
        raise Invalid("invalid date", f"'{text}'")
    if len(body) == 13 and body[10] == "T":
        body += ":00"
    try:
        return int(datetime.fromisoformat(body + zone).timestamp()) * 10**9 + int(nano[:9].ljust(9, "0"))
    except (ValueError, OverflowError, OSError):
        raise Invalid("invalid date", f"'{text}'", "such as 2013-01-02T13:23:37Z, 2013-01-02 or 42m") from None


def human_size(count: float, precision: int = 3) -> str:
    """`1.23MB`: bytes in powers of 1000."""
    unit = 0
    while count >= 1000 and unit < len(_DECIMAL) - 1:
        count /= 1000
        unit += 1
    return f"{count:.{precision}g}{_DECIMAL[unit]}"


def binary_size(count: float) -> str:
    """`1.234MiB`: bytes in powers of 1024."""
    unit = 0
    while count >= 1024 and unit < len(_POWERS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.4g}{_POWERS[unit]}"


def human_duration(span: float) -> str:
    """`About a minute`, `3 days`: a span of seconds."""
    whole = int(span)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    minutes = whole // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(span / 3600 + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for days, unit, most in ((1, "days", 14), (7, "weeks", 60), (30, "months", 730)):
        if hours < 24 * most:
            return f"{hours // 24 // days} {unit}"
    return f"{whole // 3600 // 24 // 365} years"


def status(
    state: str,
    started: float = 0,
    finished: float = 0,
    *,
    now: float,
    code: int | None = 0,
    out_of_memory: bool = False,
    health: str = "",
) -> str:
    """`Up 3 seconds`, `Exited (0) 2 minutes ago`: what `ps` says of a container.

    Times in seconds since 1970; a code that nobody could learn is None.
    """
    if state == "running":
        said = f" ({'health: ' * (health == 'starting')}{health})" if health else ""
        return f"Up {human_duration(now - started)}{said}"
    if state == "paused":
        return f"Up {human_duration(now - started)} (Paused)"
    if state == "restarting":
        return f"Restarting ({'unknown' if code is None else code}) {human_duration(now - finished)} ago"
    if state == "exited":
        ending = " (out of memory)" if out_of_memory else ""
        return f"Exited ({'unknown' if code is None else code}) {human_duration(now - finished)} ago{ending}"
    return {"removing": "Removal In Progress"}.get(state, state.capitalize())
