"""Health checks: a command that is executed in a container now and then, and what its exits say of the container.

Pure: what is checked, settled from request and image; when it is due; what one result changes. Times and durations are
nanoseconds. Not its business: executing (health). Source: Dockerfile reference, HEALTHCHECK; docker run, --health-*.
"""

from __future__ import annotations

from cloche.engine.request import ON_FAILURE, Health
from cloche.errors import Invalid
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SECOND = 10**9
INTERVAL = TIMEOUT = 30 * SECOND
START_INTERVAL = 5 * SECOND
RETRIES = 3
KEPT = 5  # results
OUTPUT = 4096  # bytes of one that are kept
STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
NONE = ("NONE",)

_FIELDS = (  # Docker's name, ours
    ("Interval", "interval"),
    ("Timeout", "timeout"),
    ("StartPeriod", "start_period"),
    ("StartInterval", "start_interval"),
    ("Retries", "retries"),
)


class Result(Value):
    """One check: when it began and ended, its exit code (-1: it was not executed to its end), what it wrote."""

    start: int
    end: int
    code: int
    output: str


class State(Value):
    """What is known: the status, how often in a row it has failed, the newest results, oldest first."""

    status: str = STARTING
    streak: int = 0
    log: tuple[Result, ...] = ()


def check(asked: Health) -> None:
    """What a user asks for. Raises Invalid."""
    test, what = asked.test, "check the container's health"
    if test == NONE and asked != Health(NONE):
        raise Invalid("--no-healthcheck conflicts with --health-* options")
    if test and test != NONE and (test[0] not in ("CMD", "CMD-SHELL") or len(test) < 2):
        raise Invalid(what, f"invalid test {' '.join(test)}", "CMD and words, or CMD-SHELL and a command")
    if test[:1] == ("CMD-SHELL",) and len(test) > 2:
        raise Invalid(what, "CMD-SHELL takes one text", "CMD and words")
    for name in ("interval", "timeout", "start_period", "start_interval"):
        value = getattr(asked, name)
        if value and not 10**6 <= value < 1 << 63:
            raise Invalid(what, f"{name.replace('_', ' ')} cannot be less than 1ms", "such as 30s; 0 is the default")
    if not 0 <= asked.retries < 1 << 31:
        raise Invalid(what, f"retries cannot be {asked.retries}", "how often in a row it may fail, such as 3")
    if asked.on_failure and asked.on_failure not in ON_FAILURE:
        raise Invalid(what, f"there is no action {asked.on_failure}", f"one of {', '.join(ON_FAILURE)}")


def settle(asked: Health, image: str) -> Health:
    """What was asked for, and where nothing was the image's (JSON text of Docker's Healthcheck). Raises Invalid."""
    own = _read(image) if image else Health()
    if asked.test == NONE or (not asked.test and own.test == NONE):
        made = Health(NONE, on_failure=asked.on_failure)
    else:
        given = {name: value for name, value in asked.fields().items() if value}
        made = own.replace(**given)
    if asked not in (Health(), Health(NONE)) and made.test in ((), NONE):
        raise Invalid("check the container's health", "neither the request nor the image has a command", "--health-cmd")
    check(made)  # an image's numbers are a stranger's
    return made


def _read(text: str) -> Health:
    from cloche.oci.document import parse_object

    document = parse_object(text, "read the image's health check")
    test = document.texts("Test")
    numbers = {ours: document.number(name) for name, ours in _FIELDS if document.has(name)}
    if test and test != NONE and (test[0] not in ("CMD", "CMD-SHELL") or len(test) < 2):
        raise Invalid("read the image's health check", f"invalid test {test}", "leave it out: --no-healthcheck")
    return Health(test).replace(**numbers)


def is_on(health: Health) -> bool:
    """Whether anything is checked."""
    return health.test not in ((), NONE)


def command(health: Health, shell: tuple[str, ...]) -> tuple[str, ...]:
    """What is executed; `shell`: the image's."""
    if health.test[0] == "CMD":
        return health.test[1:]
    return (*(shell or ("/bin/sh", "-c")), health.test[1])


def document(health: Health) -> dict[str, Any] | None:
    """As Docker's inspect has it; None where neither image nor request says anything."""
    if health == Health():
        return None
    numbers = {name: getattr(health, ours) for name, ours in _FIELDS}
    return {"Test": list(health.test), **{name: number for name, number in numbers.items() if number}}


def filled(health: Health) -> Health:
    """The same with the defaults."""
    return health.replace(
        interval=health.interval or INTERVAL,
        timeout=health.timeout or TIMEOUT,
        start_interval=health.start_interval or START_INTERVAL,
        retries=health.retries or RETRIES,
    )


def due(check: Health, state: State, started: int, now: int) -> int:
    """When the next one is to be executed, after the last one or the start of the container."""
    pause = check.interval
    if state.status == STARTING and now - started < check.start_period:
        pause = check.start_interval
    return (state.log[-1].end if state.log else started) + pause


def after(check: Health, state: State, result: Result, started: int) -> State:
    """What is known with one more result. In the start period a failure says nothing of one that was never healthy."""
    log = (*state.log, result)[-KEPT:]
    if result.code == 0:
        return State(HEALTHY, 0, log)
    if state.status == STARTING and result.start - started < check.start_period:
        return state.replace(log=log)
    streak = state.streak + 1
    return State(UNHEALTHY if streak >= check.retries else state.status, streak, log)


def written(data: bytes) -> str:
    """What a check wrote, as it is kept and shown."""
    return data[:OUTPUT].decode("utf-8", "replace") + "..." * (len(data) > OUTPUT)
