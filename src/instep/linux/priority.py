"""Stepping back behind everybody else: for work that nobody waits for.

Facts: nice 19 gets a hundredth of a processor that others want, all of one that nobody wants. ioprio_set(2) has no
wrapper in the C library; class 3 (idle) is served when no other process has asked the disk for a while, and needs no
right since Linux 2.6.25. SCHED_IDLE is not taken: on a busy machine it gets a thousandth, and never ends.
"""

from __future__ import annotations

import contextlib
import os

from instep.linux.libc import libc

NICE = 19
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_IDLE = 3 << 13
_NR_IOPRIO_SET = {"x86_64": 251, "i386": 289, "i686": 289, "arm": 314, "ppc64le": 273, "ppc64": 273, "s390x": 282}
_NR_IOPRIO_SET_GENERIC = 30
"""aarch64, riscv64, loongarch64: the table that new architectures share."""


def step_back() -> None:
    """Let this process (its first thread) have processor and disk only while others leave them."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICE)
    machine = os.uname().machine
    number = _NR_IOPRIO_SET.get("arm" if machine.startswith("armv") else machine, _NR_IOPRIO_SET_GENERIC)
    libc().syscall(number, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_IDLE)
