"""User and group ids of the calling thread alone.

Facts: the kernel keeps ids for each thread; the C library's functions change them in all threads of a process at once
(nptl(7)), the plain system calls in one. What a thread starts, by fork or vfork, has the ids of that thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence
from typing import NamedTuple

from instep.linux.libc import failure, libc

KEEP = -1
"""In place of an id: leave it."""


class _Numbers(NamedTuple):
    setgroups: int
    setresuid: int
    setresgid: int


_NUMBERS = {"x86_64": _Numbers(116, 117, 119)} | dict.fromkeys(
    ("aarch64", "riscv64", "loongarch64"),
    _Numbers(159, 147, 149),  # the table that new architectures share
)


def set_user(real: int, effective: int, saved: int) -> None:
    """Change the user ids of this thread.

    Raises:
        OSError: EPERM; ENOSYS on an architecture that is not known here.
    """
    _call(_numbers().setresuid, real, effective, saved)


def set_group(real: int, effective: int, saved: int) -> None:
    """Change the group ids of this thread; errors as above."""
    _call(_numbers().setresgid, real, effective, saved)


def set_groups(groups: Sequence[int]) -> None:
    """Change the supplementary groups of this thread; errors as above."""
    _call(_numbers().setgroups, len(groups), (ctypes.c_uint32 * len(groups))(*groups))


def _numbers() -> _Numbers:
    numbers = _NUMBERS.get(os.uname().machine)
    if numbers is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return numbers


def _call(number: int, *values: object) -> None:
    if libc().syscall(number, *values) < 0:
        raise failure()
