"""What a process asks the kernel to hold for itself (prctl(2)).

Facts: each setting is the calling thread's alone, but for PR_SET_PDEATHSIG's effect; threads and processes that it
starts afterwards inherit it, save the signal at the parent's death, which a change of ids also clears.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence

from instep.linux.libc import failure, libc

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_KEEPCAPS = 8
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47

_ENDS_WITH_PARENT = (
    b"import ctypes, os, sys\n"
    b"ctypes.CDLL(None).prctl(1, 15, 0, 0, 0)\n"
    b"if os.getppid() == int(sys.argv[1]): os.execvp(sys.argv[2], sys.argv[2:])\n"
)


def prctl(option: int, *values: int) -> int:
    """Ask for one thing; arguments that are not given are 0, as the kernel demands of most.

    Raises:
        OSError: EINVAL, the kernel does not know it; EPERM.
    """
    words = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    result: int = libc().prctl(option, *words)
    if result < 0:
        raise failure()
    return result


def no_new_privileges() -> None:
    """Whatever this thread executes from now on gains nothing by set-user-ID bits or file capabilities; for good."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def die_with_parent(signal: int) -> None:
    """Get this signal when the thread that forked this process ends. Look at ``os.getppid`` after: it may have."""
    prctl(PR_SET_PDEATHSIG, signal)


def ending_with_us(words: Sequence[bytes]) -> tuple[bytes, ...]:
    """The words of a program that gets SIGTERM when this process ends, whatever ends it.

    The setting outlives execve(2), not fork(2), so a Python of its own makes it and becomes the program.
    """
    return (os.fsencode(sys.executable), b"-I", b"-S", b"-c", _ENDS_WITH_PARENT, b"%d" % os.getpid(), *words)
