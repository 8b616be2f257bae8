"""The program: global options, the command, what goes wrong as one line on stderr and in the log.

Exit status: 0; the container's own for `run` and `exec`; 1 when it could not be done, 126 or 127 when a program that
was to be executed at once cannot be or is not there.
"""

from __future__ import annotations

import os
import sys

from cloche.errors import Error, Invalid, Unsupported, said
from cloche.runtime.oci import options
from cloche.runtime.oci.call import Call, Log, default_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "cloche-oci"


def program(words: Sequence[str]) -> None:
    """Does what the words say, and ends the process: nothing of the interpreter's farewell is needed."""
    inherited = _inherited()
    log = Log("", False, False)
    try:
        given, command, rest = options.parse_global(words)
        form = given.text("log-format", "text")
        log = Log(given.text("log"), form == "json", given.flag("debug"))
        if form not in ("json", "text"):
            raise Invalid(f"--log-format {form}", "invalid log-format", "text or json")
        code = _do(given, command, rest, log, inherited)
    except Error as error:
        code = _tell(log, str(error), error.exit_code)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code = _tell(log, f"{where}{said(error)}", 1)
    except KeyboardInterrupt:
        code = 130
    except Exception as error:  # noqa: BLE001 - nobody is told by a traceback; what it was is in the line
        code = _tell(log, f"a fault of cloche-oci's own: {type(error).__name__}: {error}", 1)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _inherited() -> frozenset[int]:
    """The descriptors from 3 on that the caller had open. They are closed in whatever is executed by us: none of them
    is a hook's."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            try:
                os.set_inheritable(int(name), False)
                found.add(int(name))
            except OSError:
                continue  # the listing's own
    return frozenset(found)


def _tell(log: Log, message: str, code: int) -> int:
    log.write("error", message)
    print(f"{NAME}: {message}", file=sys.stderr)
    return code if code in (126, 127) else 1


def _do(given: options.Given, command: str, rest: Sequence[str], log: Log, inherited: frozenset[int]) -> int:
    if given.flag("version"):
        from cloche.runtime.oci.telling import version

        print(version())
        return 0
    if not command or command == "help" or given.flag("help"):
        print(options.help_of(rest[0] if rest and rest[0] in options.COMMANDS else ""))
        return 0
    own = options.parse_command(command, rest)
    if own.flag("help"):
        print(options.help_of(command))
        return 0
    _refuse(given, command)
    if given.text("criu"):
        log.write("warning", "--criu is ignored, as by runc: nothing here executes it")
    environment = dict(os.environ)
    root = given.text("root") or default_root(environment)
    return _call(command, Call(own, os.path.abspath(root), log, environment, inherited))


def _refuse(given: options.Given, command: str) -> None:
    """What is asked for by global options, or by who calls, and is not built. Raises Invalid, Unsupported."""
    rootless = given.text("rootless", "auto")
    if rootless not in ("true", "false", "auto"):
        raise Invalid(f"--rootless {rootless}", "expected true, false or auto")
    if rootless == "true" or (os.geteuid() and command in ("create", "run")):
        raise Unsupported("make a container without root", "it is not built yet", "run as root")
    if given.flag("systemd-cgroup"):
        raise Unsupported("--systemd-cgroup", "groups by systemd are not built yet", "use the cgroupfs manager")


def _call(command: str, call: Call) -> int:
    """Each command imports only what it needs."""
    if command == "create":
        from cloche.runtime.oci.creating import create

        create(call)
    elif command == "start":
        from cloche.runtime.oci.starting import start

        start(call)
    elif command == "run":
        from cloche.runtime.oci.running import run

        return run(call)
    elif command == "exec":
        from cloche.runtime.oci.joining import execute

        return execute(call)
    elif command in ("kill", "delete"):
        from cloche.runtime.oci import ending

        (ending.kill if command == "kill" else ending.delete)(call)
    elif command in ("pause", "resume", "update", "ps", "events"):
        from cloche.runtime.oci import resources

        resources.COMMANDS[command](call)
    elif command in ("checkpoint", "restore"):
        raise Unsupported(f"{command} a container", "it is not built yet", "`features` names what there is")
    else:
        _tell_of(command, call)
    return 0


def _tell_of(command: str, call: Call) -> None:
    from cloche.runtime.oci import telling

    text = ""
    if command == "spec":
        telling.write_spec(call)
    elif command == "features":
        from cloche.runtime.oci.features import features

        text = telling.pretty(features())
    else:
        text = telling.state(call) if command == "state" else telling.list_all(call)
    if text:
        print(text)
