"""What the scenarios of faults share: processes below a daemon, trees with whole contents, waiting for a log line."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from instep.paths import is_temporary
from tests.system.daemon_process import DaemonProcess, Event, wait_until

ENGINES = ["native", "rsync"]
MONITORS = {
    "fanotify": ["--monitor=fanotify"],
    "inotify": ["--monitor=inotify"],
    "poll": ["--monitor=poll", "--poll-interval=0.1"],
}
MEMORY_LIMITS = (
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),  # version 1
    ("/sys/fs/cgroup", "memory.max"),
)


def below(pid: int) -> dict[int, str]:
    """All processes that this one started, directly or not, with their names."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                head, _, tail = file.read().rpartition(")")
                parents[int(entry)] = (int(tail.split()[1]), head.partition("(")[2])
    found: dict[int, str] = {}
    todo = [pid]
    while todo:
        above = todo.pop()
        for child, (parent, name) in parents.items():
            if parent == above and child not in found:
                found[child] = name
                todo.append(child)
    return found


def named(daemon: DaemonProcess, name: str) -> list[int]:
    """The processes of this name that a daemon started."""
    return [pid for pid, each in below(daemon.pid).items() if each.startswith(name)]


def started(daemon: DaemonProcess, name: str) -> list[int]:
    """The same, once there is one."""
    found: list[int] = []

    def there() -> bool:
        found[:] = named(daemon, name)
        return bool(found)

    wait_until(there, f"a process {name}")
    return found


def state(pid: int) -> str:
    """The letter of a process's state; X when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    return state(pid) in "ZX"


def signalled(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to those that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def caught(find: Callable[[], list[int]], provoke: Callable[[], object]) -> list[int]:
    """Processes of a daemon, stopped amid the work that ``provoke`` makes: anew as often as they are too quick."""
    found: list[int] = []
    provoked_s = -1.0

    def stopped() -> bool:
        nonlocal provoked_s
        if time.monotonic() > provoked_s + 1.0:
            provoke()
            provoked_s = time.monotonic()
        found[:] = find()
        signalled(found, signal.SIGSTOP)
        wait_until(lambda: all(state(pid) in "TZX" for pid in found), "all stopped, or gone")
        return any(state(pid) == "T" for pid in found)

    wait_until(stopped, "a process caught at work")
    return found


def written(path: Path, text: str, size_bytes: int = 0) -> None:
    """A file of which every version is different from every other, all the way through."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unit = f"{path.name} {text} {random.random()}\n".encode()
    path.write_bytes(unit * (size_bytes // len(unit) + 1))


def contents(*roots: Path) -> Iterator[tuple[Path, bytes]]:
    """Every regular file that stands under a real name, while an rsync that was left alone may still be at work."""
    for root in roots:
        for here, directories, names in os.walk(root):
            directories[:] = [name for name in directories if not is_temporary(os.fsencode(name))]
            for name in names:
                path = Path(here, name)
                if name.startswith(".") or is_temporary(os.fsencode(name)):  # rsync's begin with a dot as well.
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if stat.S_ISREG(path.lstat().st_mode):
                        yield path, path.read_bytes()


def leftovers(root: Path) -> list[str]:
    """Temporary names that were left behind."""
    return [
        os.path.join(here, name)
        for here, directories, names in os.walk(root)
        for name in (*directories, *names)
        if is_temporary(os.fsencode(name)) or name.startswith(".~tmp~")
    ]


def status(daemon: DaemonProcess, target: Path | str) -> Event:
    """What the daemon says of a target now."""
    before = len(daemon.events("status-target", target=str(target)))
    daemon.tell(signal.SIGUSR1)
    return daemon.wait_event("status-target", target=str(target), count=before + 1)


def reported_anew(*paths: Path) -> None:
    """Let the kernel tell of these names once more.

    Where a retry alone would not help the second try comes at once and the third after five minutes: whether that has
    been so when the cause is mended is a matter of luck, so nobody may wait for a retry then.
    """
    for path in paths:
        there = path.exists()
        path.touch()
        if not there:
            path.unlink()


def rests(daemon: DaemonProcess, target: Path | str) -> None:
    """Wait until nothing is pending for a target."""
    wait_until(lambda: status(daemon, target)["pending"] == 0, f"nothing pending for {target}")
