"""linux.seccomp of the runtime spec, and Docker's profiles resolved to it: which system calls may do what.

Not its business: compiling (kernel.seccomp), what is allowed by default (plan.seccomp). Pure.
"""

from __future__ import annotations

from cloche.errors import Invalid
from cloche.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

ACTIONS = ("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY")
OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
FLAGS = {"TSYNC": 1, "LOG": 2, "SPEC_ALLOW": 4, "WAIT_KILLABLE_RECV": 32}
EPERM, ENOSYS = 1, 38
ERRNO_MAX = 4095  # the kernel's MAX_ERRNO
ARCHITECTURES = tuple(
    "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X "
    "PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB".split()
)

# Docker's names of architectures, by the kernel's and by libseccomp's
DOCKER_ARCH = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "i686": "x86",
    "armv7l": "arm",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
SUB_ARCHITECTURES = {"x86_64": ("X86_64", "X86", "X32"), "aarch64": ("AARCH64", "ARM")}


class Arg(Value):
    """One condition on an argument: `value` compared by `op`; for MASKED_EQ `value` is the mask, `value_two` the
    result."""

    index: int
    value: int
    value_two: int = 0
    op: str = "EQ"


class Rule(Value):
    """What happens to calls of these names when all conditions hold. `errno`: of ERRNO and TRACE, None: EPERM."""

    names: tuple[str, ...]
    action: str
    errno: int | None = None
    args: tuple[Arg, ...] = ()


class Seccomp(Value):
    """A profile. Action, architecture and flag names are libseccomp's and the kernel's without their prefixes.

    listener: the socket of the program that answers NOTIFY, and what it is told besides the container's state."""

    default_action: str
    default_errno: int = EPERM
    architectures: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()
    listener_path: str = ""
    listener_metadata: str = ""


def _wrong(path: str, cause: str) -> Invalid:
    return Invalid(f"read the seccomp profile: {path}", cause)


def _text(value: Any, path: str) -> str:
    """A name. All of them are ASCII; a zero byte would cut one short in libseccomp, so that it named another call."""
    if not isinstance(value, str):
        raise _wrong(path, "expected a string")
    if not (value.isascii() and value.isprintable()):
        raise _wrong(path, "expected printable ASCII")
    return value


def _free_text(value: Any, path: str) -> str:
    """A path or what a listener is told: any characters that a C string and UTF-8 can hold."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _wrong(path, "expected a string")
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise _wrong(path, "expected no zero byte and no half of a surrogate pair")
    return value


def _number(value: Any, path: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise _wrong(path, "expected a number from 0 to 2^64 - 1")
    return value


def _errno(value: Any, path: str) -> int:
    """An errno. The kernel keeps it in the action's lower half: a larger one would be another action."""
    if _number(value, path) > ERRNO_MAX:
        raise _wrong(path, f"an errno is at most {ERRNO_MAX}")
    return int(value)


def _list(value: Any, path: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(path, "expected an array")
    return value


def _texts(value: Any, path: str) -> list[str]:
    return [_text(v, f"{path}[{i}]") for i, v in enumerate(_list(value, path))]


def _object(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(path, "expected an object")
    return value


def _name(value: Any, prefix: str, known: Collection[str], path: str) -> str:
    name = _text(value, path).removeprefix(prefix)
    if name not in known:
        raise _wrong(path, f"there is no {value}")
    return name


def _names(value: Any, prefix: str, known: Collection[str], path: str) -> tuple[str, ...]:
    return tuple(_name(v, prefix, known, f"{path}[{i}]") for i, v in enumerate(_list(value, path)))


def _arg(value: Any, path: str) -> Arg:
    given = _object(value, path)
    index = _number(given.get("index"), path + ".index")
    if index > 5:
        raise _wrong(path + ".index", "a system call has six arguments, 0 to 5")
    return Arg(
        index,
        _number(given.get("value"), path + ".value"),
        _number(given.get("valueTwo") or 0, path + ".valueTwo"),
        _name(given.get("op"), "SCMP_CMP_", OPERATORS, path + ".op"),
    )


def _rule(given: dict[str, Any], path: str) -> Rule:
    names = _texts(given.get("names"), path + ".names")
    if given.get("name"):
        if names:
            raise _wrong(path + ".name", "there is names already; use either")
        names = [_text(given["name"], path + ".name")]
    if not names:
        raise _wrong(path + ".names", "it names no call")
    errno = None if given.get("errnoRet") is None else _errno(given["errnoRet"], path + ".errnoRet")
    args = tuple(_arg(a, f"{path}.args[{i}]") for i, a in enumerate(_list(given.get("args"), path + ".args")))
    action = _name(given.get("action"), "SCMP_ACT_", ACTIONS, path + ".action")
    _check_errno(errno, action, path + ".errnoRet")
    return Rule(tuple(names), action, errno, args)


def _check_errno(errno: int | None, action: str, path: str) -> None:
    """config-linux.md, Seccomp: an action that does not support returning an error and is given one is refused."""
    if errno is not None and action not in ("ERRNO", "TRACE"):
        raise _wrong(path, f"SCMP_ACT_{action} returns no error")


def parse(document: Any, path: str = "linux.seccomp") -> Seccomp:
    """The spec's object. Raises Invalid with the path of the wrong member."""
    given = _object(document, path)
    rules = tuple(
        _rule(_object(rule, f"{path}.syscalls[{i}]"), f"{path}.syscalls[{i}]")
        for i, rule in enumerate(_list(given.get("syscalls"), path + ".syscalls"))
    )
    listener = _free_text(given.get("listenerPath"), path + ".listenerPath")
    metadata = _free_text(given.get("listenerMetadata"), path + ".listenerMetadata")
    if metadata and not listener:
        raise _wrong(path + ".listenerMetadata", "there is no listenerPath")
    default = _name(given.get("defaultAction"), "SCMP_ACT_", ACTIONS, path + ".defaultAction")
    errno = None
    if given.get("defaultErrnoRet") is not None:
        errno = _errno(given["defaultErrnoRet"], path + ".defaultErrnoRet")
        _check_errno(errno, default, path + ".defaultErrnoRet")
    return Seccomp(
        default,
        EPERM if errno is None else errno,
        _names(given.get("architectures"), "SCMP_ARCH_", ARCHITECTURES, path + ".architectures"),
        _names(given.get("flags"), "SECCOMP_FILTER_FLAG_", FLAGS, path + ".flags"),
        rules,
        listener,
        metadata,
    )


def _kernel_at_least(text: Any, kernel: tuple[int, int], path: str) -> bool:
    major, _, minor = _text(text, path).partition(".")
    if not (major.isdecimal() and minor.isdecimal() and len(major) < 5 and len(minor) < 5):
        raise _wrong(path, "expected a version such as 4.8")
    return kernel >= (int(major), int(minor))


def _applies(
    rule: dict[str, Any], capabilities: Collection[str], arch: str, kernel: tuple[int, int], path: str
) -> bool:
    """Docker's includes (all must hold) and excludes (none may)."""
    wanted, unwanted = (
        _object(rule.get("includes") or {}, path + ".includes"),
        _object(rule.get("excludes") or {}, path + ".excludes"),
    )
    arches = _texts(wanted.get("arches"), path + ".includes.arches")
    if arches and arch not in arches:
        return False
    if any(c not in capabilities for c in _texts(wanted.get("caps"), path + ".includes.caps")):
        return False
    if wanted.get("minKernel") and not _kernel_at_least(wanted["minKernel"], kernel, path + ".includes.minKernel"):
        return False
    if arch in _texts(unwanted.get("arches"), path + ".excludes.arches"):
        return False
    if any(c in capabilities for c in _texts(unwanted.get("caps"), path + ".excludes.caps")):
        return False
    return not (
        unwanted.get("minKernel") and _kernel_at_least(unwanted["minKernel"], kernel, path + ".excludes.minKernel")
    )


def resolve_profile(document: Any, capabilities: Collection[str], machine: str, kernel: tuple[int, int]) -> Seccomp:
    """A profile in Docker's form, or the spec's, for a container with these capabilities on this machine. Raises
    Invalid."""
    path = "profile"
    given = dict(_object(document, path))
    arch = DOCKER_ARCH.get(machine, machine)
    kept = []
    for i, rule in enumerate(_list(given.get("syscalls"), path + ".syscalls")):
        where = f"{path}.syscalls[{i}]"
        if _applies(_object(rule, where), capabilities, arch, kernel, where):
            kept.append(rule)
    if given.get("architectures") and given.get("archMap"):
        raise _wrong(path + ".archMap", "there is architectures already; use either")
    native = SUB_ARCHITECTURES.get(machine, ())[:1]
    for i, entry in enumerate(_list(given.get("archMap"), path + ".archMap")):
        where = f"{path}.archMap[{i}]"
        if (
            _text(_object(entry, where).get("architecture"), where + ".architecture").removeprefix("SCMP_ARCH_")
            in native
        ):
            given["architectures"] = [
                entry["architecture"],
                *_list(entry.get("subArchitectures"), where + ".subArchitectures"),
            ]
    given["syscalls"] = kept
    return parse(given, path)


def profile_key(profile: Seccomp, machine: str, kernel: tuple[int, int], library: str = "") -> str:
    """A name for what this version of cloche compiles the profile to here: sha256 of a canonical form. `library`:
    libseccomp's version, for a newer one knows more calls and writes other programs."""
    from cloche.version import VERSION

    try:
        from _sha256 import sha256  # type: ignore[import-not-found]  # without OpenSSL around it: 3 ms less
    except ImportError:
        from hashlib import sha256

    named: str = sha256(repr((VERSION, profile, machine, kernel, library)).encode()).hexdigest()
    return named
