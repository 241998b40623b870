"""What a process asks the kernel to hold for itself (prctl(2)).

Facts: each setting is the calling thread's alone, but for PR_SET_PDEATHSIG's effect; threads and processes that it
starts afterwards inherit it, save the signal at the parent's death, which a change of ids also clears.
"""

from __future__ import annotations

import ctypes

from instep.linux.libc import failure, libc

PR_SET_PDEATHSIG = 1
PR_CAPBSET_DROP = 24
PR_SET_KEEPCAPS = 8
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47


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
