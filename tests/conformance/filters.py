"""Seccomp filters for tests: profiles, and calls that a shell can make to see what comes of them.

`kill -N 1` by the container's first process, to itself, has no effect whatever N is: the kernel keeps the first process
of a namespace from its own signals. So kill(2) is a call with two arguments to experiment on.
"""

from __future__ import annotations

from typing import Any

from conformance.harness import Bundle

# What busybox needs, and a runtime between its filter and the program; kill(2) and mkdir(2) are not there.
USUAL = """
access alarm arch_prctl brk capget capset chdir chmod chown clock_gettime clock_nanosleep clone clone3 close
close_range dup dup2 dup3 epoll_create1 epoll_ctl epoll_pwait eventfd2 execve execveat exit exit_group faccessat
faccessat2 fadvise64 fchdir fchmod fchown fcntl fstat fstatfs ftruncate futex getcwd getdents64 getegid geteuid getgid
getgroups getpgrp getpid getppid getrandom getresgid getresuid getrlimit getsockopt gettid getuid ioctl lseek lstat
madvise mmap mprotect mremap munmap nanosleep newfstatat open openat openat2 pause pipe pipe2 poll ppoll prctl pread64
prlimit64 pwrite64 read readlink readlinkat recvmsg restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn
rt_sigsuspend sched_getaffinity sched_yield seccomp select sendmsg sendto set_robust_list set_tid_address setgid
setgroups setpgid setresgid setresuid setsid setuid sigaltstack socket stat statfs statx sysinfo tgkill umask uname
vfork wait4 waitid write writev
"""


def rule(names: str, action: str, *args: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"names": names.split(), "action": action, **({"args": list(args)} if args else {}), **more}


def argument(index: int, op: str, value: int, second: int | None = None) -> dict[str, Any]:
    return {"index": index, "op": op, "value": value, **({} if second is None else {"valueTwo": second})}


def profile(bundle: Bundle, *rules: dict[str, Any], default: str = "SCMP_ACT_ALLOW", **more: Any) -> None:
    """Gives the container a filter."""
    bundle.linux["seccomp"] = {"defaultAction": default, "syscalls": list(rules), **more}


def killed(*numbers: int) -> str:
    """A script that says of each signal whether it could be sent, or why not."""
    tries = (f"kill -{number} 1 2>&1 && echo sent" for number in numbers)
    return "; ".join(tries) + "; true"


def outcomes(bundle: Bundle, *numbers: int) -> list[str]:
    """`sent` or the error's text for each signal that the container's shell has sent to itself."""
    return [line.rpartition(": ")[2] for line in bundle.says(killed(*numbers)).splitlines()]
