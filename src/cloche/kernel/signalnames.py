"""Signals by name and number, signal(7) for x86 and ARM; `SIGRTMIN+3` and the like as the C library counts them."""

from __future__ import annotations

from cloche.errors import Invalid

_NAMES = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT "
    "CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
).split()
_ALIASES = {"IOT": 6, "CLD": 17, "POLL": 29, "UNUSED": 31}
_RTMIN, _RTMAX = 34, 64


def signal_number(text: str) -> int:
    """The number of `SIGTERM`, `term`, `15`, `RTMIN+3`. Raises Invalid."""
    if text.isascii() and text.isdigit() and 1 <= int(text[:4]) <= _RTMAX:
        return int(text[:4])
    name = text.upper().removeprefix("SIG")
    if name in _NAMES:
        return _NAMES.index(name) + 1
    if name in _ALIASES:
        return _ALIASES[name]
    start, sign, offset = name[:5], name[5:6], name[6:]
    if start in ("RTMIN", "RTMAX") and (not sign or (offset.isascii() and offset.isdigit() and len(offset) < 3)):
        number = (_RTMIN if start == "RTMIN" else _RTMAX) + int((sign + offset) or 0) if sign in ("", "+", "-") else 0
        if _RTMIN <= number <= _RTMAX:
            return number
    raise Invalid("invalid signal", text or "''", "such as SIGTERM, TERM or 15; see signal(7)")


def signal_name(number: int) -> str:
    """`SIGTERM` for 15; realtime signals as `SIGRTMIN+3`."""
    if 1 <= number <= len(_NAMES):
        return "SIG" + _NAMES[number - 1]
    return (
        "SIGRTMIN" + (f"+{number - _RTMIN}" if number > _RTMIN else "") if _RTMIN <= number <= _RTMAX else str(number)
    )
