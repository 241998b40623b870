"""The text of lsyncd's status file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from instep.frontends.lsyncd.queue import Entry, Queue
from instep.frontends.lsyncd.selection import Selection


@dataclass(frozen=True, slots=True)
class Facts:
    """What is told besides the syncs. Times are seconds since the epoch."""

    at_s: float
    children: Sequence[tuple[int, float]]
    """Of each program that runs its sync's number, and when it was started."""
    tunnels: Sequence[tuple[bytes, bool]] = ()
    """Of each its name, and whether it is up."""


def report(syncs: Iterable[tuple[bytes, bytes, Queue, Selection]], facts: Facts) -> bytes:
    """All of it.

    Args:
        syncs: name, source, queue and selection of each.
        facts: the rest.
    """
    lines = [b"Lsyncd status report at " + _date(facts.at_s), b""]
    for name, source, queue, selection in syncs:
        lines += [name + b" source=" + source, b"There are %d delays" % len(queue)]
        lines += [_line(entry) for entry in queue]
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
    return entry.status.value.ljust(7) + entry.kind.value + b" " + entry.path + end
