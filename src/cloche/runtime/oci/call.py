"""One call of the command line: where the states are, where errors and warnings go, the caller's environment."""

from __future__ import annotations

import os
import sys
from time import time_ns

from cloche.document import dumps
from cloche.errors import Error
from cloche.runtime.timestamp import format_time_short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.runtime.oci.options import Given


class Log:
    """--log: a line an event, appended; JSON or text. Engines show the last error's `msg` to their users."""

    def __init__(self, path: str, json: bool, debug: bool) -> None:
        """Raises Error when the file cannot be written to."""
        self._path, self._json, self.debug = path, json, debug
        if path:
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644))
            except OSError as error:
                raise Error(f"open the log {path}", error.errno or 5) from error

    def write(self, level: str, message: str) -> None:
        """To the file, where there is one; what cannot be logged is said on stderr."""
        if level == "debug" and not self.debug:
            return
        moment = format_time_short(time_ns())
        if self._json:
            line = dumps({"level": level, "msg": message, "time": moment})
        else:
            line = f'time="{moment}" level={level} msg={dumps(message)}'
        if not self._path:
            if level != "error":  # that is told on stderr in any case
                print(line, file=sys.stderr)
            return
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.write(fd, line.encode() + b"\n")
            finally:
                os.close(fd)
        except OSError as error:
            print(f"cloche-oci: write the log {self._path}: {os.strerror(error.errno or 5)}", file=sys.stderr)


class Call:
    """What all commands need to know. given: the command's own options and arguments. inherited: the
    descriptors from 3 on that the caller had open."""

    def __init__(
        self, given: Given, root: str, log: Log, environment: dict[str, str], inherited: frozenset[int]
    ) -> None:
        self.given, self.root, self.log, self.inherited = given, root, log, inherited
        self.environment = environment

    @property
    def id(self) -> str:
        """The container's."""
        return self.given.arguments[0]

    def warn(self, message: str) -> None:
        self.log.write("warning", message)


def default_root(environment: dict[str, str]) -> str:
    """/run/cloche-oci for root, a user's own runtime directory else."""
    if os.geteuid() == 0:
        return "/run/cloche-oci"
    return (environment.get("XDG_RUNTIME_DIR") or f"/tmp/cloche-oci-{os.geteuid()}") + "/cloche-oci"
