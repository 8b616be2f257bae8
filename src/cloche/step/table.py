"""Writes bell's table as C: `python -m cloche.step.table > bell_table.h`. Run at build time; the steps are the only
source."""

from __future__ import annotations

from cloche.step.flat import MAGIC, SLOTS, TABLE, VERSION


def header() -> str:
    """The text of bell_table.h."""
    ops = "".join(f"\tOP_{kind.op} = {number},\n" for number, (kind, *_) in enumerate(TABLE, 1))
    rows = "".join(f"\t[OP_{kind.op}] = {{{integers}, {few}, {many}}},\n" for kind, integers, few, many in TABLE)
    return (
        "/* made by cloche.step.table from the step classes; do not edit */\n"
        f"enum {{ FLAT_MAGIC = {MAGIC:#x}, FLAT_VERSION = {VERSION} }};\n"
        f"enum {{ FLAT_SLOTS = {SLOTS}, FLAT_OPS = {len(TABLE) + 1} }};\n"
        f"enum {{\n{ops}}};\n"
        "static const struct { uint32_t ints, few, many; } flat_table[FLAT_OPS] = {\n"
        f"{rows}}};\n"
    )


if __name__ == "__main__":
    print(header(), end="")
