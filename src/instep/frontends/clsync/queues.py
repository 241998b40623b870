"""What waits to be told to the handler, and when: four queues with one rule for their flushing.

Facts (observed): a run happens when a queue's first entry has waited for the queue's delay, and the last run began at
least ``delay-sync`` ago. Then all queues that are due are flushed together, and take along what the others hold of the
same paths. Continuous writing puts nothing off. clsync looks at most once a second, and so is late by up to that.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from instep.frontends.clsync.entries import Entry
from instep.frontends.clsync.settings import Settings
from instep.paths import ROOT, RelPath


class Queue(enum.IntEnum):
    """By the numbers that the dump has for them."""

    NORMAL = 0
    BIG = 1
    INSTANT = 2
    LOCKWAIT = 3
    """Paths that a run under way has already; looked at again when one has ended."""


@dataclass(frozen=True, slots=True)
class Delays:
    """All in seconds."""

    collect_s: float
    big_s: float
    sync_s: float

    @classmethod
    def of(cls, settings: Settings) -> Delays:
        """Those that are set."""
        return cls(settings.delay_collect_s, settings.delay_collect_bigfile_s, settings.delay_sync_s)


class Queues:
    """Entries by path, one for each path and queue. What lies below an entry for a whole directory is part of that."""

    def __init__(self) -> None:
        self._waiting: dict[Queue, dict[RelPath, Entry]] = {queue: {} for queue in Queue}
        self._first_s: dict[Queue, float] = dict.fromkeys(Queue, math.inf)
        self._trees: set[RelPath] = set()
        self._last_run_s = -math.inf

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def entries(self, queue: Queue) -> Sequence[Entry]:
        """What one queue holds, in the order it came."""
        return list(self._waiting[queue].values())

    def add(self, queue: Queue, entry: Entry, now_s: float) -> None:
        """Note one entry; it becomes one with what is known of its path in this queue."""
        waiting = self._waiting[queue]
        if self.covers(entry.path):
            return
        known = waiting.get(entry.path)
        if known is None:
            waiting[entry.path] = entry
            self._first_s[queue] = min(self._first_s[queue], now_s)
        else:
            merge(known, entry)
        if entry.recursive:
            self._trees.add(entry.path)

    def covers(self, path: RelPath) -> bool:
        """Whether an entry for a whole directory stands for this path."""
        return bool(self._trees) and _is_below(path, self._trees)

    def ran(self, now_s: float) -> None:
        """A run begins: ``delay-sync`` counts from here."""
        self._last_run_s = now_s

    def due_s(self, delays: Delays) -> float:
        """When the next run is to begin; infinity when nothing waits, minus infinity when it is at once."""
        if self._waiting[Queue.INSTANT]:
            return -math.inf
        first_s = min(self._first_s[Queue.NORMAL] + delays.collect_s, self._first_s[Queue.BIG] + delays.big_s)
        return max(first_s, self._last_run_s + delays.sync_s)

    def take(self, now_s: float, delays: Delays) -> list[Entry]:
        """Flush the queues that are due."""
        waits_s = {Queue.INSTANT: 0.0, Queue.NORMAL: delays.collect_s, Queue.BIG: delays.big_s}
        return self._flush([queue for queue, wait_s in waits_s.items() if self._first_s[queue] + wait_s <= now_s])

    def take_all(self) -> list[Entry]:
        """Flush everything."""
        return self._flush(list(Queue))

    def release(self) -> None:
        """What waited for another run may be tried again."""
        held = self._waiting[Queue.LOCKWAIT]
        if held:
            self._waiting[Queue.LOCKWAIT] = {}
            for entry in held.values():
                self.add(Queue.INSTANT, entry, -math.inf)

    def clear(self) -> None:
        """Forget everything: a whole comparison is coming."""
        self.take_all()

    def _flush(self, queues: Iterable[Queue]) -> list[Entry]:
        flushed: dict[RelPath, Entry] = {}
        for queue in queues:
            for path, entry in self._waiting[queue].items():
                known = flushed.setdefault(path, entry)
                if known is not entry:
                    merge(known, entry)
            self._waiting[queue] = {}
            self._first_s[queue] = math.inf
        for queue, waiting in self._waiting.items():
            for path in waiting.keys() & flushed.keys() if flushed else ():
                merge(flushed[path], waiting.pop(path))
            if not waiting:
                self._first_s[queue] = math.inf
        if self._trees:
            # A directory may have come after what is below it.
            taken = {path for path, entry in flushed.items() if entry.recursive}
            flushed = {path: entry for path, entry in flushed.items() if not _is_below(path, taken)}
            self._trees -= taken
        return list(flushed.values())


def merge(known: Entry, later: Entry) -> None:
    """Let one entry stand for two of the same path."""
    known.mask |= later.mask
    known.recursive |= later.recursive
    known.new = later.new


def _is_below(path: RelPath, trees: set[RelPath]) -> bool:
    """Whether the path lies below one of these; being one of them is not enough."""
    above: bytes = path
    while above:
        above = above.rpartition(b"/")[0]
        if above in trees:
            return True
    return False


def overlap(entries: Iterable[Entry], others: dict[RelPath, Entry]) -> set[RelPath]:
    """The paths of the first that touch one of the others: the same, or one stands for a directory above the other."""
    trees = {path for path, entry in others.items() if entry.recursive}
    above = {parent for path in others for parent in _parents(path)}
    return {
        entry.path
        for entry in entries
        if entry.path in others or _is_below(entry.path, trees) or (entry.recursive and entry.path in above)
    }


def _parents(path: RelPath) -> list[RelPath]:
    found = []
    while path != ROOT:
        path = RelPath(path.rpartition(b"/")[0])
        found.append(path)
    return found
