"""Waiting for a state of the target: what the stop watch looks at."""

from __future__ import annotations

import ctypes
import filecmp
import os
import select
import statistics
import time
from collections.abc import Callable
from typing import Self

NEVER = float("inf")
"""The figure of a tool that did not get there within the bound."""

_IN_CLOSE_WRITE = 0x008
_IN_MOVED_TO = 0x080


def wait_until(reached: Callable[[], bool], limit_s: float, pause_s: float = 0.002) -> float:
    """The time on the monotonic clock when the condition held, or NEVER."""
    end_s = time.monotonic() + limit_s
    while True:
        if reached():
            return time.monotonic()
        if time.monotonic() > end_s:
            return NEVER
        time.sleep(pause_s)


class Arrivals:
    """Wakes when a file is put in its place in one directory, and at nothing else.

    Each wake-up of the watcher is made by whoever writes there, in the middle of its work (some 20 us on a virtual
    machine, more than the write itself): a temporary file, seen or not, must not cost one.
    """

    def __init__(self, directory: str, *, in_place: bool = False) -> None:
        """``in_place``: by a tool that writes under the final name; all others rename."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        mask = _IN_CLOSE_WRITE | _IN_MOVED_TO if in_place else _IN_MOVED_TO
        if self._fd < 0 or libc.inotify_add_watch(self._fd, os.fsencode(directory), mask) < 0:
            raise OSError(ctypes.get_errno(), "cannot watch the target", directory)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def wait(self, reached: Callable[[], bool], limit_s: float) -> float:
        """When that arrived which made the condition hold; or NEVER.

        The condition is looked at after each arrival. What the look takes does not count, but where more has arrived
        meanwhile: then it may be that which was seen.
        """
        at_s = time.monotonic()
        end_s = at_s + limit_s
        while not reached():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return NEVER
            # 50 ms: a tool may set the last attribute after its last event.
            woken = self._poll.poll(min(left_s, 0.05) * 1000)
            at_s = time.monotonic()
            if woken:
                os.read(self._fd, 65536)
        return time.monotonic() if self._poll.poll(0) else at_s


def holds(path: str, content: bytes) -> bool:
    """Whether the file is there with just this content."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(len(content) + 1) == content
    except OSError:
        return False


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of the values lies; no interpolation: a figure that was really seen."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median(values: list[float]) -> float:
    """The middle one; NEVER counts as the longest."""
    return statistics.median_high(values)


class Names:
    """Waits until every directory of the target lists what the source's does.

    Each directory is looked at until it is complete and then never again, so that waiting costs one listing of the tree
    however long it takes.
    """

    def __init__(self, source: str, target: str) -> None:
        self._target = target
        self._open = [(os.path.relpath(here, source), sorted(dirs + files)) for here, dirs, files in os.walk(source)]

    def complete(self) -> bool:
        while self._open:
            below, names = self._open[-1]
            try:
                if sorted(os.listdir(os.path.join(self._target, below))) != names:
                    return False
            except OSError:
                return False
            self._open.pop()
        return True


class Sizes:
    """Waits until every file of the target has the size of the source's; each is looked at until it has, once."""

    def __init__(self, source: str, target: str) -> None:
        self._open = [
            (os.path.join(target, os.path.relpath(here, source), name), os.stat(os.path.join(here, name)).st_size)
            for here, _, files in os.walk(source)
            for name in files
        ]

    def complete(self) -> bool:
        while self._open:
            path, size = self._open[-1]
            try:
                if os.stat(path).st_size != size:
                    return False
            except OSError:
                return False
            self._open.pop()
        return True


def differences(source: str, target: str, *, content: bool = True, most: int = 5) -> list[str]:
    """Paths that differ in name, type, size, mode, or content; ``most`` of them at the most. Not timed."""
    found: list[str] = []
    for here, dirs, files in os.walk(source):
        there = os.path.join(target, os.path.relpath(here, source))
        try:
            extra = set(os.listdir(there)).symmetric_difference(dirs + files)
        except OSError:
            extra = {"."}
        found += [os.path.join(here, name) for name in extra]
        for name in files:
            if name not in extra and not _same(f"{here}/{name}", f"{there}/{name}", content=content):
                found.append(f"{here}/{name}")
        if len(found) >= most:
            break
    return found[:most]


def _same(ours: str, theirs: str, *, content: bool) -> bool:
    try:
        a, b = os.lstat(ours), os.lstat(theirs)
        if (a.st_mode, a.st_size) != (b.st_mode, b.st_size):
            return False
        return not content or filecmp.cmp(ours, theirs, shallow=False)
    except OSError:
        return False


def wait_equal(source: str, target: str, limit_s: float, *, content: bool = True) -> float:
    """The time when the target equals the source (which rests), or NEVER."""
    end_s = time.monotonic() + limit_s
    at_s = wait_until(Names(source, target).complete, limit_s)
    if at_s == NEVER or not differences(source, target, content=content, most=1):
        filecmp.clear_cache()
        return at_s
    filecmp.clear_cache()
    return wait_until(lambda: not differences(source, target, content=content, most=1), end_s - time.monotonic(), 0.02)
