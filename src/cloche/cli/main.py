"""The `cloche` command: reads the arguments, calls the verb's module, turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys

from cloche.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# verbs whose engine errors are Docker's 125, 126, 127; the others' are 1
RUNNING = ("run", "create", "exec", "start", "plan")
INTERRUPTED, BROKEN_PIPE = 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. No traceback reaches a user but with CLOCHE_DEBUG=1 or --debug."""
    verb = ""
    try:
        from cloche.cli.arguments import parse

        parsed = parse(sys.argv[1:] if argv is None else argv)
        verb = parsed.verb
        if parsed.debug:
            os.environ["CLOCHE_DEBUG"] = "1"
        if parsed.help or not verb:
            from cloche.cli.usage import usage

            print(usage(verb))
            return 0
        module = __import__("cloche.cli.verbs." + verb, fromlist=["main"])
        code: int = module.main(parsed)
        sys.stdout.flush()
        return code
    except Error as error:
        return _complain(error, verb)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)  # what is still buffered has nobody to go to
        return BROKEN_PIPE
    except Exception as error:
        if os.environ.get("CLOCHE_DEBUG"):
            raise
        line = f"{type(error).__name__}: {error}"
        return _complain(Error(f"cloche {verb}", f"internal error: {line}", "CLOCHE_DEBUG=1 shows where"), "run")


def _complain(error: Error, verb: str) -> int:
    if os.environ.get("CLOCHE_DEBUG"):
        import traceback

        traceback.print_exception(error)
    sys.stdout.flush()
    print(f"cloche: {error}", file=sys.stderr)
    return error.exit_code if error.exit_code != 125 or not verb or verb in RUNNING else 1
