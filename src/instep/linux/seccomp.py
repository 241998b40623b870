"""A filter that leaves this process only the system calls of a program that computes, waits, and talks to its files.

Facts (seccomp(2), bpf(4)): the filter is a classic BPF program over ``struct seccomp_data``: int32 number, u32
architecture, u64 instruction pointer, six u64 arguments. It outlives exec and is inherited by all that is started; it
can only be made tighter. An x86-64 kernel also takes calls of two other conventions: those of i386 (another
architecture) and of x32 (bit 30 of the number). SECCOMP_FILTER_FLAG_TSYNC covers all threads of the process.

What is not in the list fails with EPERM rather than ending the process: the door is shut either way, and a library that
tries something in passing costs no change that waits to be brought over. ``clone3`` cannot be looked into and answers
ENOSYS, upon which C libraries make their threads with ``clone``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct

from instep.linux.libc import failure, libc
from instep.linux.prctl import no_new_privileges

CALLS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "open": (2, None), "openat": (257, 56), "openat2": (437, 437), "close": (3, 57),
    "close_range": (436, 436), "lseek": (8, 62), "stat": (4, None), "fstat": (5, 80), "lstat": (6, None),
    "newfstatat": (262, 79), "statx": (332, 291), "statfs": (137, 43), "fstatfs": (138, 44), "access": (21, None),
    "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None), "readlinkat": (267, 78),
    "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "mkdir": (83, None),
    "mkdirat": (258, 34), "rmdir": (84, None), "unlink": (87, None), "unlinkat": (263, 35), "rename": (82, None),
    "renameat": (264, 38), "renameat2": (316, 276), "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchmodat2": (452, 452), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "utimensat": (280, 88), "truncate": (76, 45), "ftruncate": (77, 46), "fallocate": (285, 47), "fsync": (74, 82),
    "fdatasync": (75, 83), "umask": (95, 166), "flock": (73, 32), "dup": (32, 23), "dup2": (33, None),
    "dup3": (292, 24), "fcntl": (72, 25), "pipe2": (293, 59), "munmap": (11, 215), "mremap": (25, 216),
    "madvise": (28, 233), "brk": (12, 214), "poll": (7, None), "ppoll": (271, 73),
    "select": (23, None), "pselect6": (270, 72), "epoll_create1": (291, 20), "epoll_ctl": (233, 21),
    "epoll_wait": (232, None), "epoll_pwait": (281, 22), "epoll_pwait2": (441, 441), "eventfd2": (290, 19),
    "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242),
    "shutdown": (48, 210), "getsockname": (51, 204), "getpeername": (52, 205), "getsockopt": (55, 209),
    "setsockopt": (54, 208), "sendto": (44, 206), "sendmsg": (46, 211), "recvfrom": (45, 207), "recvmsg": (47, 212),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigtimedwait": (128, 137), "sigaltstack": (131, 132), "restart_syscall": (219, 128), "alarm": (37, None),
    "setitimer": (38, 103), "getitimer": (36, 102), "pause": (34, None), "futex": (202, 98), "futex_waitv": (449, 449),
    "set_robust_list": (273, 99), "get_robust_list": (274, 100), "rseq": (334, 293), "set_tid_address": (218, 96),
    "membarrier": (324, 283), "exit": (60, 93), "exit_group": (231, 94), "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123), "nanosleep": (35, 101), "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None),
    "times": (100, 153), "getrusage": (98, 165), "sysinfo": (99, 179), "uname": (63, 160), "getrandom": (318, 278),
    "getpid": (39, 172), "getppid": (110, 173), "gettid": (186, 178), "getpgrp": (111, None), "getpgid": (121, 155),
    "getsid": (124, 156), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158), "wait4": (61, 260), "waitid": (247, 95),
}  # fmt: skip
"""What is allowed whatever its arguments: the number on x86-64, and in the table that new architectures share."""

_LOOKED_INTO: dict[str, tuple[int, int]] = {
    "mmap": (9, 222), "mprotect": (10, 226), "ioctl": (16, 29), "socket": (41, 198), "socketpair": (53, 199),
    "clone": (56, 220), "clone3": (435, 435), "kill": (62, 129), "tgkill": (234, 131), "prlimit64": (302, 261),
}  # fmt: skip

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""The column of the tables, and AUDIT_ARCH_*."""
_X32 = 0x40000000
_NR_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SECCOMP_SET_MODE_FILTER = 1
_TSYNC = 1
_LOG = 2

_LOAD, _AND, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, ALU|AND|K, JMP|JEQ|K, JGE, RET
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL_PROCESS = 0x80000000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16

_CLONE_THREAD = 0x00010000
_PROT_EXEC = 4
_HARMLESS_IOCTLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""

_INSTRUCTION = struct.Struct("=HBBI")
_Code = list[tuple[int, int, int, int]]


def why_unavailable() -> str | None:
    """Why no filter can be put in place here, or None."""
    machine = os.uname().machine
    if machine not in _ARCHITECTURES:
        return f"the system calls of {machine} are not known here"
    # SECCOMP_SET_MODE_FILTER without a program: EFAULT where it is known.
    if libc().syscall(_NR_SECCOMP[machine], _SECCOMP_SET_MODE_FILTER, 0, None) < 0:
        number = ctypes.get_errno()
        if number != errno.EFAULT:
            return f"seccomp: {os.strerror(number)}"
    return None


def restrict() -> None:
    """Put the filter upon all threads of this process, for good. Signals can then be sent to itself alone.

    Raises:
        OSError: EPERM, EINVAL: the kernel does not take it.
    """
    no_new_privileges()
    machine = os.uname().machine
    code = b"".join(_INSTRUCTION.pack(*each) for each in program(machine, os.getpid()))
    text = ctypes.create_string_buffer(code, len(code))
    handed = struct.pack("@HP", len(code) // _INSTRUCTION.size, ctypes.addressof(text))
    for flags in (_TSYNC | _LOG, _TSYNC):  # kernels before 4.14 do not log
        result: int = libc().syscall(_NR_SECCOMP[machine], _SECCOMP_SET_MODE_FILTER, flags, handed)
        if result == 0:
            return
        if result > 0:
            raise OSError(errno.EBUSY, f"thread {result} has another filter")
        if ctypes.get_errno() != errno.EINVAL:
            break
    raise failure()


def program(machine: str, pid: int) -> _Code:
    """The filter's instructions: code, jump if true, jump if false, value."""
    column, audit = _ARCHITECTURES[machine]
    code: _Code = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL_PROCESS),  # nothing of ours makes such a call
        (_LOAD, 0, 0, _NUMBER),
    ]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), _refused(errno.EPERM)]
    for name, condition in (
        ("socket", _one_of(0, (socket.AF_UNIX,))),
        ("socketpair", _one_of(0, (socket.AF_UNIX,))),
        ("ioctl", _one_of(1, _HARMLESS_IOCTLS)),
        ("kill", _one_of(0, (pid,))),
        ("tgkill", _one_of(0, (pid,))),
        ("prlimit64", _no_pointer(2)),
        ("clone", _with_bits(0, _CLONE_THREAD, _CLONE_THREAD)),
        ("clone3", [_refused(errno.ENOSYS)]),
        ("mmap", _with_bits(2, _PROT_EXEC, 0)),
        ("mprotect", _with_bits(2, _PROT_EXEC, 0)),
    ):
        code += [(_EQUAL, 0, len(condition), _LOOKED_INTO[name][column]), *condition]
    for allowed in CALLS.values():
        number = allowed[column]
        if number is not None:
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    code.append(_refused(errno.EPERM))
    return code


def _refused(number: int) -> tuple[int, int, int, int]:
    return (_RETURN, 0, 0, _ERRNO | number)


def _one_of(argument: int, values: tuple[int, ...]) -> _Code:
    """Allow only these, looking at the low word: the high one of an int means nothing to the kernel."""
    tests: _Code = [(_LOAD, 0, 0, _ARGUMENTS + 8 * argument)]
    tests += [(_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [*tests, _refused(errno.EPERM), (_RETURN, 0, 0, _ALLOW)]


def _with_bits(argument: int, bits: int, value: int) -> _Code:
    """Allow only where the bits of the low word have this value."""
    return [
        (_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
        (_AND, 0, 0, bits),
        (_EQUAL, 1, 0, value),
        _refused(errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _no_pointer(argument: int) -> _Code:
    """Allow only a null pointer."""
    return [
        (_LOAD, 0, 0, _ARGUMENTS + 8 * argument),
        (_EQUAL, 0, 2, 0),
        (_LOAD, 0, 0, _ARGUMENTS + 8 * argument + 4),
        (_EQUAL, 1, 0, 0),
        _refused(errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
