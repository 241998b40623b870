"""The text of lsyncd's status file."""

from __future__ import annotations

import heapq
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from instep.frontends.lsyncd.queue import Entry, Kind, Status
from instep.frontends.lsyncd.selection import Selection
from instep.frontends.lsyncd.syncs import Sync

PATHS_MAX: Final = 1000
"""Of a mirror; lsyncd lists all of a queue. Told within milliseconds."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is told besides the syncs. Times are seconds since the epoch."""

    at_s: float
    children: Sequence[tuple[int, float]]
    """Of each program that runs its sync's number, and when it was started."""
    tunnels: Sequence[tuple[bytes, bool]] = ()
    """Of each its name, and whether it is up."""


@dataclass(frozen=True, slots=True)
class About:
    """What is told of one sync."""

    number: int
    name: bytes
    source: bytes
    selection: Selection
    waiting: int
    """How many changes."""
    lines: Sequence[bytes]
    """One for each, or for as many as are listed."""


def of_steps(sync: Sync) -> About:
    """Of a sync with a queue."""
    lines = [_line(entry) for entry in sync.queue]
    return About(sync.number, sync.name, sync.source, sync.selection, len(lines), lines)


def of_mirror(sync: Sync, paths: Collection[bytes], covering: Collection[bytes]) -> About:
    """Of a sync that is left to a mirror: its paths that are not in step, the empty one for all of it.

    A mirror knows where something changed, but not what: all of it is told as modified.
    """
    lines = [
        _told(Status.WAIT, Kind.MODIFY, b"/" + path + (b"/" if path in covering else b""))
        if path
        else _told(Status.ACTIVE, Kind.INIT, b"")
        for path in heapq.nsmallest(PATHS_MAX, paths)
    ]
    return About(sync.number, sync.name, sync.source, sync.selection, len(paths), lines)


def report(syncs: Iterable[About], facts: Facts) -> bytes:
    """All of it, in the order of the syncs' numbers."""
    lines = [b"Lsyncd status report at " + _date(facts.at_s), b""]
    for about in sorted(syncs, key=lambda about: about.number):
        selection = about.selection
        lines += [about.name + b" source=" + about.source, b"There are %d delays" % about.waiting, *about.lines]
        lines += [b"Filtering:", *([b"  " + line for line in selection.lines] or [b"  nothing."])]
        if selection.patterns:
            lines += [b"Excluding:", *(b"  " + pattern for pattern in selection.patterns)]
        lines.append(b"")
    lines += [b"Tunnel: name=%s status=%s" % (name, b"UP" if is_up else b"DOWN") for name, is_up in facts.tunnels]
    lines.append(b"Running processes: %d" % len(facts.children))
    lines += [b"  sync=%d started=%s" % (number, _date(began_s)) for number, began_s in facts.children]
    lines.append(b"")
    return b"\n".join(lines)


def _date(at_s: float) -> bytes:
    return time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(at_s)).encode()


def _line(entry: Entry) -> bytes:
    end = b"" if entry.path2 is None else b" -> " + entry.path2
    return _told(entry.status, entry.kind, entry.path + end)


def _told(status: Status, kind: Kind, what: bytes) -> bytes:
    return status.value.ljust(7) + kind.value + b" " + what
