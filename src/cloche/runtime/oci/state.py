"""A container's directory, ROOT/ID (0700): what outlives the command that made it, and the status that follows.

    config.json   as it was at `create`: later changes of the bundle's have no effect (runtime.md, Lifecycle)
    record        JSON: what `state` tells besides status and pid, and where the control groups are
    process       "PID START_TIME\\n", from when there is a process
    undo          the plan's host steps, for taking back what they made; written before the first is done
    filter        the seccomp program, for exec: flags (4 bytes), instructions
    told          what `state` tells besides id, status and pid, as the quick form of the command prints it: the
                  version, a line end, the rest of the document
    groups        the control groups, a path a line, where they are all that is to be taken back
    freezer       the group that is frozen by `pause`
    hooks         an empty file, where a start or a deletion has hooks to run
    made          an empty file, when all that create does is done
    reports       what a start that failed has been told, until it is explained
    start         fifo(7): the container waits at it; whoever can open it for writing knows that it still does
    status        fifo(7): what the container's side reports behind that gate; its end-of-file is exec's success

Status is never stored: it follows from the process, its freezer and the fifo, and so is what the kernel says.
"""

from __future__ import annotations

import os
from errno import EEXIST, ENOSPC, ENXIO

from cloche.document import dumps, loads
from cloche.errors import Conflict, Error, Invalid, NotFound
from cloche.kernel import processes
from cloche.value import Value, decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    from cloche.step.stored import StoredPlan

SPEC_VERSION = "1.3.0"  # of the runtime specification that states comply with
CREATING, CREATED, RUNNING, PAUSED, STOPPED = "creating", "created", "running", "paused", "stopped"
FILTERS = ".filters"  # beside the containers' directories: compiled seccomp programs
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_ID_MOST = 255  # bytes of a file name


class Record(Value):
    """What is known of a container from its creation on. bundle, rootfs: absolute. created: RFC 3339, UTC."""

    version: str
    id: str
    bundle: str
    rootfs: str
    created: str
    owner: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
    cgroups_path: str = ""
    namespaces: tuple[str, ...] = ()
    hooks: bool = False  # whether a start or a deletion has hooks to run


def check_id(name: str) -> None:
    """Letters, digits, `_+-.`; no way out of the root directory. Raises Invalid."""
    if not name or name in (".", "..", FILTERS) or len(name) > _ID_MOST or not _ID_CHARACTERS.issuperset(name):
        raise Invalid(f"container id {name!r}", "invalid ID format", "letters, digits and _+-. are allowed")


class Directory:
    """One container's directory, with a lock while it is entered. Who creates it holds it until all is made."""

    def __init__(self, root: str, name: str) -> None:
        """Raises Invalid."""
        check_id(name)
        self.id, self.path = name, f"{root}/{name}"
        self._lock = -1

    def at(self, name: str) -> str:
        return f"{self.path}/{name}"

    # -- entering: the lock

    @classmethod
    def create(cls, root: str, name: str) -> Self:
        """A new one, entered. Raises Conflict when there is one of this name, Error."""
        made = cls(root, name)
        try:
            os.makedirs(root, 0o711, exist_ok=True)
            os.mkdir(made.path, 0o700)
        except OSError as error:
            if error.errno == EEXIST:
                raise Conflict(f"create container {name}", "container with given ID already exists") from None
            raise Error(f"make the directory {made.path}", error.errno or 5) from error
        return made.__enter__()

    def __enter__(self) -> Self:
        """Wait until nobody else changes the container. Raises NotFound."""
        import fcntl

        if self._lock >= 0:  # who made it has it
            return self
        try:
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self.missing() from None
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        if not self._is_the_one():  # deleted while we waited, and perhaps another made
            self.__exit__(None, None, None)
            return self.__enter__()
        return self

    def _is_the_one(self) -> bool:
        """Whether what is locked is what is there."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        locked = os.fstat(self._lock)
        return (there.st_dev, there.st_ino) == (locked.st_dev, locked.st_ino)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def missing(self) -> NotFound:
        """The error in the words that callers look for."""
        return NotFound(f"container {self.id}", "container does not exist")

    # -- files

    def write(self, name: str, content: bytes) -> None:
        """All of a file or nothing of it. Raises OSError."""
        draft = self.at("." + name)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if os.write(fd, content) < len(content):  # a full file system takes what it can
                raise OSError(ENOSPC, os.strerror(ENOSPC), self.at(name))
        finally:
            os.close(fd)
        os.rename(draft, self.at(name))

    def read(self, name: str) -> bytes:
        """Raises NotFound when there is no such container, or it is no longer or not yet there."""
        try:
            with open(self.at(name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            raise self.missing() from None

    def keep(self, record: Record, freezer: str) -> None:
        """Write the record, in both forms. freezer: the group that is frozen, where there is one."""
        from cloche.runtime.oci.telling import pretty

        self.write("record", dumps(encode(record)).encode())
        self.write("told", f"{record.version}\n{pretty(self._told(record))[2:]}".encode())
        if freezer:
            self.write("freezer", freezer.encode())
        if record.hooks:
            self.write("hooks", b"")

    def record(self) -> Record:
        """What was kept. Raises NotFound, Error when it is damaged."""
        content = self.read("record")
        try:
            kept: Record = decode(loads(content), {"Record": Record})
        except (ValueError, KeyError, TypeError) as error:
            raise Error(f"read the record of container {self.id}", f"it is damaged ({error})") from error
        return kept

    def undo_plan(self) -> StoredPlan | None:
        """What takes back what the host's steps made; None where nothing was begun."""
        from cloche.step.stored import load

        try:
            return load(self.read("undo"))
        except NotFound:
            return None

    def filter(self) -> tuple[bytes, int]:
        """The seccomp program and its flags; empty for none."""
        try:
            content = self.read("filter")
        except NotFound:
            return b"", 0
        return content[4:], int.from_bytes(content[:4], "little")

    def process(self) -> tuple[int, int]:
        """Pid and start time of the first process; 0, 0 when there has been none yet."""
        try:
            pid, started = self.read("process").split()
        except NotFound:
            return 0, 0
        return int(pid), int(started)

    # -- what the kernel says

    def status(self) -> str:
        """One of the spec's: creating, created, running, stopped; and paused, as runc has it. Raises NotFound."""
        pid, started = self.process()
        if not pid:
            if not os.path.exists(self.path):
                raise self.missing()
            return CREATING if self._being_made() else STOPPED
        if not processes.lives(pid, started):
            return STOPPED
        if self._is_frozen():
            return PAUSED
        if not self.waits():
            return RUNNING
        return CREATED if os.path.exists(self.at("made")) else CREATING

    def waits(self) -> bool:
        """Whether somebody stands at the gate."""
        try:
            os.close(os.open(self.at("start"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError as error:
            if error.errno not in (ENXIO, 2):
                raise
            return False
        return True

    def _being_made(self) -> bool:
        """Who creates it holds the lock."""
        import fcntl

        if self._lock >= 0:
            return True
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def freezer(self) -> str:
        """The group that is frozen; "" where there is none."""
        try:
            return self.read("freezer").decode()
        except NotFound:
            return ""

    def _is_frozen(self) -> bool:
        from cloche.kernel.freezer import is_frozen

        place = self.freezer()
        return bool(place) and is_frozen(place)

    def state(self) -> dict[str, Any]:
        """The state as the spec has it (runtime.md, State), with what runc adds. Raises NotFound."""
        record, status = self.record(), self.status()
        pid = self.process()[0] if status != STOPPED else 0
        told: dict[str, Any] = {"ociVersion": record.version, "id": self.id, "status": status, "pid": pid}
        return told | self._told(record)

    def _told(self, record: Record) -> dict[str, Any]:
        told: dict[str, Any] = {"bundle": record.bundle, "rootfs": record.rootfs}
        told |= {"created": record.created, "owner": record.owner}
        if record.annotations:
            told["annotations"] = dict(record.annotations)
        return told

    def remove(self) -> None:
        """The directory and all that is in it; nothing of it is a mount. Raises OSError."""
        for name in os.listdir(self.path):
            os.unlink(self.at(name))
        os.rmdir(self.path)


def around_pid(record: Record, status: str) -> tuple[str, str]:
    """The state as JSON before and after the number of the process, for hooks."""
    before = {"ociVersion": record.version, "id": record.id, "status": status}
    after: dict[str, Any] = {"bundle": record.bundle}
    if record.annotations:
        after["annotations"] = dict(record.annotations)
    return dumps(before)[:-1] + ',"pid":', "," + dumps(after)[1:]


def names(root: str) -> list[str]:
    """The ids of all containers of a root directory. Raises OSError."""
    try:
        return sorted(name for name in os.listdir(root) if name != FILTERS and os.path.isdir(f"{root}/{name}"))
    except FileNotFoundError:
        return []
