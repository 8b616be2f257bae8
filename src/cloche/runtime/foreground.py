"""The smallest runtime: make one container from a plan, wait for its end, undo the plan. No keeper, no record on disk.

For tests, examples and tools that own their one container. A caller that is killed leaves the cgroups behind; the
plan's undo
removes them at any time.
"""

from __future__ import annotations

import os

from cloche.runtime.bell import Bell
from cloche.runtime.execution import Execution, StepFailed, explain
from cloche.step.flat import flatten
from cloche.step.stored import stored

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cloche.step.base import Plan


def run(plan: Plan, stdio: tuple[int, int, int] = (0, 1, 2)) -> int:
    """Execute `plan` and wait; returns the exit status as os.waitstatus_to_exitcode does. Raises Error with the failed
    step."""
    bell = Bell()
    try:
        with Execution(stored(plan, flatten(plan), {}), bell, stdio) as making:
            try:
                while making.advance():
                    making.wait()
                pidfd = making.release("pidfd")
                try:
                    status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
                finally:
                    os.close(pidfd)
                assert status is not None
                return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
            except StepFailed as problem:
                raise explain(plan, problem.failure) from None
            finally:
                making.close()
                for pid in (making.stage, making.pid):
                    if pid:
                        _reap(pid)
    finally:
        plan.undo()
        bell.close()


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass
