"""top: a container's processes as the host's ps(1) shows them. Who belongs to it is what its control group says."""

from __future__ import annotations

from cloche.engine.database import RUNNING
from cloche.errors import Conflict, Error, Invalid, NotFound
from cloche.kernel.cgroups import processes
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.engine.containers import Container, Engine

_PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Listing(Value):
    """Titles of columns, and a row a process; the last cell may have blanks in it."""

    titles: tuple[str, ...]
    processes: tuple[tuple[str, ...], ...]


def pids(engine: Engine, container: Container) -> list[int]:
    """The processes of a running container, as the host counts; its first one alone on a host without cgroups."""
    hierarchies = engine.host.cgroups.hierarchies
    if not hierarchies:
        return [container.pid]
    return sorted(
        set(processes(hierarchies[0].path + engine.store.cgroup(container.id, container.config.request.cgroup_parent)))
    )


def top(engine: Engine, container: Container, options: tuple[str, ...] = ()) -> Listing:
    """List its processes; without options as `ps -ef`. Raises Conflict when it does not run, NotFound, Invalid."""
    what = f"list the processes of container {container.name}"
    if container.status != RUNNING:
        raise Conflict(what, "it is not running", f"start it with: cloche start {container.name}")
    text = _ps(what, options or ("-ef",))
    wanted = {str(pid) for pid in pids(engine, container)}
    return select(what, text, wanted)


def select(what: str, text: str, wanted: set[str]) -> Listing:
    """The rows of those pids out of what ps(1) printed. Raises Invalid when it prints no PIDs."""
    lines = text.splitlines()
    titles = tuple(lines[0].split()) if lines else ()
    if "PID" not in titles:
        raise Invalid(what, "Couldn't find PID field in ps output", "such as -o pid,args")
    column = titles.index("PID")
    rows = [tuple(line.split(None, len(titles) - 1)) for line in lines[1:]]
    return Listing(titles, tuple(row for row in rows if len(row) > column and row[column] in wanted))


def _ps(what: str, options: tuple[str, ...]) -> str:
    import shutil
    import subprocess

    program = shutil.which("ps", path=_PATH)
    if not program:
        raise NotFound(what, "this host has no ps(1)", "install procps")
    environ = {"PATH": _PATH, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            [program, *options], env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise Error(what, str(error)) from None
    if done.returncode:
        cause = done.stderr.decode("utf-8", "backslashreplace").strip().partition("\n")[0]
        raise Invalid(f"{what}: ps {' '.join(options)}", cause or f"exit code {done.returncode}")
    return done.stdout.decode("utf-8", "backslashreplace")
