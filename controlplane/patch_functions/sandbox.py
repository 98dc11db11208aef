"""The limits of the child, and of the calls in it. All of it is enforced by the kernel, for a process without privileges.

| limit | by | on |
|---|---|---|
| memory | RLIMIT_AS: 256 MiB of addresses, with Python and Envoy's types | every Unix; macOS does not keep it |
| CPU time of a call | RLIMIT_CPU: 1 s | every Unix |
| time of a call | the child kills it after 10 s on the clock | every Unix |
| files: none is written | RLIMIT_FSIZE: 0 bytes | every Unix |
| no network, no new program, while a plug-in is imported and called | seccomp | Linux on x86-64 and arm64 |
| a call opens no file, no socket, starts and signals no process, does not sleep, gets no random numbers | seccomp | the same |

seccomp needs no privilege, because the process first gives up ever getting one (PR_SET_NO_NEW_PRIVS). The filter cannot be
removed, and is inherited. A plug-in is code that the operator installs: this protects from its mistakes, and makes its results
the same everywhere. It is no place for code that nobody trusts.
"""

from __future__ import annotations

import ctypes
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Mapping

MEMORY = 256 << 20
CPU_SECONDS = 1
CLOCK_SECONDS = 10.0

_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER = 38, 22, 2
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # _REFUSE: the call fails with EPERM
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
# By machine: the number of its architecture in filters.
_ARCHITECTURES: Mapping[str, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# Numbers from here are those of 32-bit programs on x86-64, by which a filter could be passed.
_X32 = 0x40000000

# By name: the numbers on x86-64 and on arm64.
_NETWORK = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_writev": (311, 271),
    "io_uring_setup": (425, 425),
}
_CALL = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "exit_group": (231, 94),
}


def unenforced() -> str:
    """Return what this machine can't enforce; "" if it can enforce everything."""
    if sys.platform != "linux":
        return f"{sys.platform} has no seccomp: nothing stops a function from using the network and files"
    if platform.machine() not in _ARCHITECTURES:
        return f"seccomp is not used on {platform.machine()}: nothing stops a function from using the network and files"
    return ""


def limit_child() -> None:
    """Limit this process, and all that it starts: memory, no files written, no network, no other program."""
    _limit(resource.RLIMIT_AS, MEMORY)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    if not unenforced():
        _filter(_NETWORK.values(), listed=_REFUSE, others=_ALLOW)


def limit_call() -> None:
    """Limit this process, which makes one call: CPU time, and only system calls that a pure function needs."""
    _limit(resource.RLIMIT_CPU, CPU_SECONDS)
    if not unenforced():
        _filter(_CALL.values(), listed=_ALLOW, others=_REFUSE)


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (most, most))


def _filter(numbers: Iterable[tuple[int, int]], *, listed: int, others: int) -> None:
    """Install a filter of system calls. Errors: OSError if the kernel refuses it."""
    machine = platform.machine()
    column = list(_ARCHITECTURES).index(machine)
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        program += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE)]
    for number in numbers:
        program += [(_EQUAL, 0, 1, number[column]), (_RETURN, 0, 0, listed)]
    program.append((_RETURN, 0, 0, others))
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program), ctypes.addressof(code)))
    libc = ctypes.CDLL(None, use_errno=True)
    prctl = libc.prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    for arguments in ((_NO_NEW_PRIVS, 1, 0, 0, 0), (_SET_SECCOMP, _FILTER, ctypes.addressof(header), 0, 0)):
        if prctl(*arguments):
            raise OSError(ctypes.get_errno(), "the kernel refuses the filter of system calls (seccomp)")
