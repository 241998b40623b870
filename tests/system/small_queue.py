"""instep with a short kernel queue: ``INSTEP_QUEUE=16 python small_queue.py mirror …``; needs root.

``fs.inotify.max_queued_events`` holds for the whole machine, and a queue keeps the length it was made with. So it is
shortened for the moment in which the queue is made, by one process at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator

SETTING = "/proc/sys/fs/inotify/max_queued_events"
LOCK = "/tmp/instep-test-queue.lock"


def _set(value: str) -> None:
    with open(SETTING, "w", encoding="ascii") as setting:
        setting.write(value)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    with open(LOCK, "a" if os.geteuid() == 0 else "r", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def usual() -> int:
    """How long queues are when nobody is making a short one."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):  # Then nobody has ever made one.
            stack.enter_context(_alone())
        with open(SETTING, encoding="ascii") as setting:
            return int(setting.read())


def main() -> int:
    """Run instep."""
    from instep.__main__ import main as instep
    from instep.linux import inotify

    real = inotify.open_queue

    def short() -> int:
        with _alone():
            with open(SETTING, encoding="ascii") as setting:
                usual = setting.read()
            _set(os.environ["INSTEP_QUEUE"])
            try:
                return real()
            finally:
                _set(usual)

    inotify.open_queue = short
    return instep()


if __name__ == "__main__":
    sys.exit(main())
