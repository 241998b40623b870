"""What a killed daemon left at work on a target: it would go on writing beside the next daemon, old over new.

A program that writes for a daemon inherits the target's locks (``TargetLocks.held``), so they stand until the last of
its processes has ended, and whoever comes next knows of them. Our workers are not among them: the kernel ends those.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Sequence

from instep.linux.flock import heirs
from instep.logs import fields

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""So long they may clear up, rsync removes its temporary files, before they are killed."""


def end_orphans(fd: int, target: bytes) -> bool:
    """End the processes that hold this lock for somebody who is gone; whether there were any, and it is free now.

    Blocks until they have ended: some milliseconds, twice ``PATIENCE_S`` at most.
    """
    pids = heirs(fd)
    if not pids:
        return False
    log.warning(
        "orphans-ended",
        extra=fields(
            target=target,
            processes=pids,
            reason="an instep that was killed left them at work on this target",
            now="they are ended first, lest they bring over what is out of date",
        ),
    )
    with contextlib.ExitStack() as opened:
        running = []
        for pid in pids:
            with contextlib.suppress(OSError):  # It has ended, or the kernel is too old: then it is let be.
                running.append(os.pidfd_open(pid))
                opened.callback(os.close, running[-1])
        # One that was stopped ends no sooner than it goes on.
        for numbers in ((signal.SIGTERM, signal.SIGCONT), (signal.SIGKILL,)):
            for each in running:
                for number in numbers:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(each, number)
            running = _still(running)
            if not running:
                break
    return not heirs(fd)


def _still(running: Sequence[int]) -> list[int]:
    """Those that have not ended after a while."""
    left = set(running)
    poll = select.poll()
    for each in running:
        poll.register(each, select.POLLIN)
    until_s = time.monotonic() + PATIENCE_S
    while left and (wait_s := until_s - time.monotonic()) > 0:
        for each, _ in poll.poll(wait_s * 1000):
            poll.unregister(each)
            left.discard(each)
    return sorted(left)
