"""The system calls of the default profile, by purpose. Names as libseccomp knows them, of all architectures together.

What is in no group is refused with EPERM; what is newer than this table with ENOSYS, so that programs fall back.
More than Docker's: file_getattr, file_setattr (what ioctl(2) on a file does anyway), open_tree_attr beside open_tree.
"""

from __future__ import annotations

ALWAYS: dict[str, str] = {
    "open, make and close files": (
        "access chdir chmod chown chown32 close close_range creat dup dup2 dup3 faccessat faccessat2 fchdir fchmod "
        "fchmodat fchmodat2 fchown fchown32 fchownat getcwd lchown lchown32 link linkat mkdir mkdirat mknod mknodat "
        "open openat openat2 readlink readlinkat rename renameat renameat2 rmdir symlink symlinkat truncate "
        "truncate64 ftruncate ftruncate64 umask unlink unlinkat name_to_handle_at"
    ),
    "read and write": (
        "_llseek copy_file_range fadvise64 fadvise64_64 fallocate fdatasync flock fsync getdents getdents64 lseek "
        "pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice sync "
        "sync_file_range syncfs tee vmsplice write writev cachestat"
    ),
    "look at files": (
        "fstat fstat64 fstatat64 newfstatat lstat lstat64 stat stat64 statfs statfs64 fstatfs fstatfs64 statx "
        "statmount listmount file_getattr file_setattr futimesat utime utimes utimensat utimensat_time64"
    ),
    "extended attributes": (
        "fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr lsetxattr "
        "removexattr setxattr getxattrat listxattrat removexattrat setxattrat"
    ),
    "wait for events": (
        "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait "
        "epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 "
        "inotify_rm_watch poll ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4 timerfd_create "
        "timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64"
    ),
    "asynchronous reading and writing": (
        "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit"
    ),
    "descriptors and pipes": "fcntl fcntl64 ioctl pipe pipe2 pidfd_open pidfd_send_signal",
    "memory": (
        "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 "
        "mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease "
        "remap_file_pages"
    ),
    "processes and threads": (
        "capget capset execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv "
        "futex_wake get_robust_list get_thread_area getcpu gettid prctl prlimit64 restart_syscall rseq "
        "set_robust_list set_thread_area set_tid_address seccomp tgkill tkill vfork wait4 waitid waitpid "
        "landlock_add_rule landlock_create_ruleset landlock_restrict_self"
    ),
    "who one is": (
        "getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid "
        "getresgid getresgid32 getresuid getresuid32 getsid getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 "
        "setgid setgid32 setgroups setgroups32 setpgid setregid setregid32 setresgid setresgid32 setresuid "
        "setresuid32 setreuid setreuid32 setsid setuid setuid32"
    ),
    "signals": (
        "alarm kill pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend "
        "rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn"
    ),
    "limits, priorities, scheduling": (
        "getpriority getrlimit getrusage ioprio_get ioprio_set sched_get_priority_max sched_get_priority_min "
        "sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval "
        "sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield "
        "setpriority setrlimit ugetrlimit"
    ),
    "time": (
        "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 "
        "clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create "
        "timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 times"
    ),
    "network": (
        "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg "
        "recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair"
    ),
    "System V and POSIX IPC": (
        "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend "
        "mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 "
        "shmat shmctl shmdt shmget"
    ),
    "about the machine": "getrandom sysinfo uname",
}
# what only makes sense, or is only safe, with a capability, capabilities(7)
WITH: dict[str, str] = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": (
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr "
        "lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr perf_event_open "
        "quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare"
    ),
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}
# since Linux 4.8 a tracer cannot change what the filter has seen (seccomp(2), NOTES on ptrace)
WITH_LINUX_4_8 = "process_vm_readv process_vm_writev ptrace"
BY_ARCH: dict[str, str] = {
    # the kernel itself makes a process call uretprobe, when a probe watches it (Linux 6.11)
    "x86_64": "arch_prctl modify_ldt uretprobe",
    "aarch64": "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2",
    "riscv64": "riscv_flush_icache riscv_hwprobe",
}
