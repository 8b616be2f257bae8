"""Go's printf for templates: %s %v %q %d %t %c %x %X %o %b %f %e %g %U %%, with flags, width, precision and `*`."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would cost a start 8 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_WIDEST = 10_000


def sprintf(form: str, values: Sequence[Any]) -> str:
    """`form` with the values in it; what does not fit is said in the text, as Go does: `%!d(string=x)`."""
    from cloche.cli.rendering import show

    out: list[str] = []
    used = at = 0
    while at < len(form):
        percent = form.find("%", at)
        out.append(show_form(form[at : percent if percent >= 0 else len(form)], form))
        if percent < 0:
            break
        at = percent + 1
        flags = form[at : at + len(form[at:]) - len(form[at:].lstrip("+-# 0"))]
        at += len(flags)
        width, at, used = _amount(form, at, values, used)
        precision = None
        if form[at : at + 1] == ".":
            precision, at, used = _amount(form, at + 1, values, used)
            precision = precision or 0
        verb = form[at : at + 1]
        at += 1
        if verb == "%":
            out.append("%")
        elif not verb:
            out.append("%!(NOVERB)")
        elif used >= len(values):
            out.append(f"%!{verb}(MISSING)")
        else:
            out.append(_padded(_one(verb, values[used], flags, precision), flags, width, values[used]))
            used += 1
    if used < len(values):
        out.append(f"%!(EXTRA {', '.join(f'{_type(v)}={show(v)}' for v in values[used:])})")
    return "".join(out)


def show_form(part: str, form: str) -> str:
    """Part of the format, escaped if the format itself is data."""
    from cloche.cli.rendering import show
    from cloche.cli.template import Text

    return part if isinstance(form, Text) else show(part)


def _amount(form: str, at: int, values: Sequence[Any], used: int) -> tuple[int | None, int, int]:
    """A width or precision: digits, or `*` for the next value."""
    if form[at : at + 1] == "*":
        value = values[used] if used < len(values) else None
        return (max(-_WIDEST, min(value, _WIDEST)) if isinstance(value, int) else None), at + 1, used + 1
    end = at
    while form[end : end + 1] and form[end] in "0123456789":
        end += 1
    return (min(int(form[at:end][:6]), _WIDEST) if end > at else None), end, used


def _type(value: Any) -> str:
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float64"), (str, "string"), (dict, "map")):
        if isinstance(value, kind):
            return name
    return "<nil>" if value is None else "slice"


def _one(verb: str, value: Any, flags: str, precision: int | None) -> str:
    from cloche.cli.rendering import quoted, show

    if isinstance(value, (list, tuple)) and verb not in "vT":
        return f"[{' '.join(_one(verb, v, flags, precision) for v in value)}]"
    if verb == "v":
        return show(value) if precision is None or not isinstance(value, str) else show(value)[:precision]
    if verb == "T":
        return _type(value)
    if isinstance(value, str):
        text = value if precision is None else value[:precision]
        if verb == "s":
            return show(type(value)(text))
        if verb == "q":
            return quoted(text)
        if verb in "xX":
            digits = text.encode("utf-8", "surrogatepass").hex()
            return digits if verb == "x" else digits.upper()
    elif isinstance(value, bool):
        if verb == "t":
            return "true" if value else "false"
    elif isinstance(value, int):
        return _whole(verb, value, flags)
    elif isinstance(value, float) and verb in "eEfFgG":
        sign = "+" if "+" in flags else ""
        return format(
            value,
            f"{sign}.{6 if precision is None and verb not in 'gG' else precision or 0}{verb}"
            if precision is not None or verb not in "gG"
            else f"{sign}{verb}",
        )
    return f"%!{verb}({_type(value)}={show(value)})"


def _whole(verb: str, value: int, flags: str) -> str:
    from cloche.cli.rendering import quoted, show

    sign = "+" if "+" in flags else " " if " " in flags else "-"
    if verb in "dxXob":
        return format(value, f"{sign}{'#' if '#' in flags and verb != 'd' else ''}{verb}")
    if verb in "cqU" and 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000:
        if verb == "U":
            return f"U+{value:04X}"
        return show(chr(value)) if verb == "c" else "'" + quoted(chr(value))[1:-1] + "'"
    return f"%!{verb}(int={value})"


def _padded(text: str, flags: str, width: int | None, value: Any) -> str:
    if not width or len(text) >= abs(width):
        return text
    if "-" in flags or width < 0:
        return text.ljust(abs(width))
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return text.zfill(width) if "0" in flags and number else text.rjust(width)
