"""version: of cloche and what it stands on."""

from __future__ import annotations

import os
import platform

from cloche.cli.rendering import shown
from cloche.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.cli.arguments import Parsed


def main(parsed: Parsed) -> int:
    """See `cloche version --help`."""
    uname = os.uname()
    facts = {
        "Version": VERSION,
        "Python": platform.python_version(),
        "Kernel": uname.release,
        "Os": "linux",
        "Arch": uname.machine,
    }
    form = parsed.text("format")
    if form:
        print(shown(form, {"Client": facts, "Server": facts}))
        return 0
    for key, value in facts.items():
        print(f"{key + ':':10}{value}")
    return 0
