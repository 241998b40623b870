"""The text of lsyncd's status file."""

from __future__ import annotations

import time
from collections.abc import Iterable

from instep.frontends.lsyncd.queue import Entry, Queue
from instep.frontends.lsyncd.selection import Selection


def report(syncs: Iterable[tuple[bytes, bytes, Queue, Selection]], *, at: float, processes: int) -> bytes:
    """All of it.

    Args:
        syncs: name, source, queue and selection of each.
        at: seconds since the epoch.
        processes: how many programs run.
    """
    lines = [b"Lsyncd status report at " + time.strftime("%a %b %e %H:%M:%S %Y", time.localtime(at)).encode(), b""]
    for name, source, queue, selection in syncs:
        lines += [name + b" source=" + source, b"There are %d delays" % len(queue)]
        lines += [_line(entry) for entry in queue]
        lines += [b"Filtering:", *([b"  " + line for line in selection.lines] or [b"  nothing."])]
        if selection.patterns:
            lines += [b"Excluding:", *(b"  " + pattern for pattern in selection.patterns)]
        lines.append(b"")
    lines += [b"Running processes: %d" % processes, b""]
    return b"\n".join(lines)


def _line(entry: Entry) -> bytes:
    end = b"" if entry.path2 is None else b" -> " + entry.path2
    return entry.status.value.ljust(7) + entry.kind.value + b" " + entry.path + end
