"""What plans must know of the machine, probed once: a value, so that a plan for another machine can be made and
compared."""

from __future__ import annotations

from cloche.kernel.cgroups import Layout
from cloche.value import Value


class Host(Value):
    """The machine's facts. `permitted` is the mask of capabilities that this process may use."""

    kernel: tuple[int, int]
    arch: str
    cgroups: Layout
    permitted: int
    swap_accounting: bool = True


def probe(all_controllers: bool = False) -> Host:
    """Read the facts from the kernel, of the controllers that cloche uses or of all. Raises OSError."""
    import os

    from cloche.kernel.capabilities import of_process
    from cloche.kernel.cgroups import probe_layout

    uname = os.uname()
    release = uname.release.split("-")[0].split(".")
    layout = probe_layout(all_controllers)
    memory = next((h for h in layout.hierarchies if "memory" in h.controllers), None)
    swap = memory is None or layout.version == 2 or os.path.exists(memory.path + "/memory.memsw.limit_in_bytes")
    return Host((int(release[0]), int(release[1])), uname.machine, layout, of_process()["permitted"], swap)
