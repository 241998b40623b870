"""Capabilities of the calling thread (capabilities(7)).

Facts: capget(2) and capset(2) serve one thread; the C library does not spread them to others. Version 3 of their
header has two words for each set. When a thread's effective user changes from 0, its effective set is emptied; when
none of its three user ids is 0 any more, the permitted one too, unless PR_SET_KEEPCAPS says otherwise, and the ambient
one in any case. Whoever executes a program as user 0 gets all of the bounding set, another user just the ambient set,
which may hold only what is both permitted and inheritable.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterable
from typing import NamedTuple

from instep.linux.libc import failure, libc
from instep.linux.prctl import PR_CAP_AMBIENT, PR_CAPBSET_DROP, PR_SET_KEEPCAPS, prctl

NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
    "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
    "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
"""In the order of their numbers."""

_NUMBERS = {name: number for number, name in enumerate(NAMES)}
_HEADER = struct.pack("=Ii", 0x20080522, 0)  # version 3, the calling thread
_SETS = struct.Struct("=6I")
_LOW = 0xFFFFFFFF
_AMBIENT_RAISE = 2
_AMBIENT_CLEAR_ALL = 4


class Capabilities(NamedTuple):
    """Three sets as bit masks: bit N stands for ``NAMES[N]``."""

    effective: int
    permitted: int
    inheritable: int


def mask(names: Iterable[str]) -> int:
    """The bit mask of these names.

    Raises:
        KeyError: a name that the kernel does not have.
    """
    return sum(1 << _NUMBERS[name] for name in set(names))


def read() -> Capabilities:
    """What this thread has.

    Raises:
        OSError: there are no capabilities here.
    """
    data = ctypes.create_string_buffer(_SETS.size)
    if libc().capget(ctypes.create_string_buffer(_HEADER), data) < 0:
        raise failure()
    e0, p0, i0, e1, p1, i1 = _SETS.unpack(data.raw)
    return Capabilities(e0 | e1 << 32, p0 | p1 << 32, i0 | i1 << 32)


def write(wanted: Capabilities) -> None:
    """Have just these, in this thread.

    Raises:
        OSError: EPERM, more is asked for than is permitted.
    """
    effective, permitted, inheritable = wanted
    data = _SETS.pack(
        effective & _LOW, permitted & _LOW, inheritable & _LOW, effective >> 32, permitted >> 32, inheritable >> 32
    )
    if libc().capset(ctypes.create_string_buffer(_HEADER), data) < 0:
        raise failure()


def keep_over_change_of_ids() -> None:
    """Let the permitted set outlive a change to other ids; holds until the next exec."""
    prctl(PR_SET_KEEPCAPS, 1)


def set_ambient(wanted: int) -> None:
    """Let what this thread executes have these, whoever it is executed as.

    Raises:
        OSError: EPERM, one of them is not both permitted and inheritable.
    """
    prctl(PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    for number in range(len(NAMES)):
        if wanted >> number & 1:
            prctl(PR_CAP_AMBIENT, _AMBIENT_RAISE, number)


def drop_bounding() -> None:
    """Nothing that this thread executes can get any capability from now on; needs CAP_SETPCAP."""
    number = 0
    while True:  # kernels older and newer than the list have other ends
        try:
            prctl(PR_CAPBSET_DROP, number)
        except OSError:
            if number == 0:
                raise
            return
        number += 1
