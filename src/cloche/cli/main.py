"""The `cloche` command: reads the arguments, calls the verb's module, turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys

from cloche.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn, TextIO

# verbs whose engine errors are Docker's 125, 126, 127; the others' are 1
RUNNING = ("run", "create", "exec", "start", "plan")
INTERRUPTED, BROKEN_PIPE = 130, 141


def program() -> NoReturn:
    """The whole life of the command's process. Python's own farewell is left out: it takes down, object by object, what
    the kernel takes down at once, and nothing here waits to be told (4 ms)."""
    import gc

    gc.set_threshold(50_000)  # what a start imports stays; a long `logs -f` is still looked after
    os._exit(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. No traceback reaches a user but with CLOCHE_DEBUG=1 or --debug."""
    _open_standard_streams()
    verb = ""
    try:
        words = sys.argv[1:] if argv is None else argv
        if words[:1] == ["__complete"]:
            from cloche.cli.completing import complete

            print("".join(line + "\n" for line in complete(words[1:])), end="")
            return _written(0)
        from cloche.cli.arguments import parse

        parsed = parse(words)
        verb = parsed.verb
        if parsed.debug:
            os.environ["CLOCHE_DEBUG"] = "1"
        if parsed.help or not verb:
            from cloche.cli.usage import usage

            print(usage(verb))
            return _written(0)
        module = __import__("cloche.cli.verbs." + verb.partition(" ")[0], fromlist=["main"])
        code: int = module.main(parsed)
        return _written(code)
    except Error as error:
        return _complain(error, verb)
    except KeyboardInterrupt:
        return _written(INTERRUPTED)
    except BrokenPipeError:
        return _written(BROKEN_PIPE)
    except OSError as error:
        if code := _written(0):
            return code  # what was raised is that our output cannot be written
        if os.environ.get("CLOCHE_DEBUG"):
            raise
        what = f"cloche {verb} {error.filename or ''}".rstrip()
        return _complain(Error(what, error.errno or str(error)), verb)
    except Exception as error:
        if os.environ.get("CLOCHE_DEBUG"):
            raise
        line = f"{type(error).__name__}: {error}"
        return _complain(Error(f"cloche {verb}", f"internal error: {line}", "CLOCHE_DEBUG=1 shows where"), "run")


def _complain(error: Error, verb: str) -> int:
    if os.environ.get("CLOCHE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    code = error.exit_code if error.exit_code != 125 or not verb or verb in RUNNING else 1
    _written(0)  # what was said before comes before
    _say(error)
    return code


def _say(error: Error) -> None:
    try:
        print(f"cloche: {error}", file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr)  # there is nobody to tell


def _open_standard_streams() -> None:
    """Where a caller has closed one, no file of ours may get its number: what is printed would be written there."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one
            if getattr(sys, name) is None:
                setattr(sys, name, open(null, mode, encoding="utf-8", errors="replace", closefd=False))  # noqa: SIM115


def _written(code: int) -> int:
    """`code` when all that was printed is written; else what says that it is not."""
    try:
        sys.stderr.flush()
    except OSError:
        _drop(sys.stderr)  # there is nobody to tell
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _drop(sys.stdout)
        return BROKEN_PIPE
    except OSError as error:
        _drop(sys.stdout)
        _say(Error("write to standard output", error.errno or 5))
        return code or 1
    return code


def _drop(stream: TextIO) -> None:
    """What is still buffered has nobody to go to; at its end, Python would complain about it."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
