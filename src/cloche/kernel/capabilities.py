"""capabilities(7): names and numbers, sets as 64-bit masks, and the sets of a process as /proc/PID/status shows
them."""

from __future__ import annotations

NAMES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
        "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT "
        "SYS_ADMIN "
        "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP "
        "MAC_OVERRIDE "
        "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}

# Docker's default: what a program that believes itself root commonly needs
DEFAULT = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)


def mask(names: tuple[str, ...]) -> int:
    """The names as a bit mask. Raises KeyError for a name that does not exist."""
    bits = 0
    for name in names:
        bits |= 1 << NUMBERS[name]
    return bits


def names(bits: int) -> tuple[str, ...]:
    """The names of a mask's bits, by number; a bit without a name is its number."""
    return tuple(NAMES[n] if n < len(NAMES) else str(n) for n in range(64) if bits >> n & 1)


def of_process(pid: int | str = "self") -> dict[str, int]:
    """The five sets (`inheritable permitted effective bounding ambient`) of a process, proc_pid_status(5). Raises
    OSError."""
    keys = {
        "CapInh": "inheritable",
        "CapPrm": "permitted",
        "CapEff": "effective",
        "CapBnd": "bounding",
        "CapAmb": "ambient",
    }
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        pairs = (line.split(":", 1) for line in status if line[:3] == "Cap")
        return {keys[key]: int(value, 16) for key, value in pairs}
