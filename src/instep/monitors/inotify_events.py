"""The inotify monitor for those who act on events: each report says what the kernel called it.

It keeps the same watches in the same way. What differs is the loop over the events: nothing is merged, and order is
kept. Where precision was lost, a plain report says so: a directory that came, with all that may have been made in it
before it was watched; an overflow; another file system mounted. Whoever acts on events looks there for himself.
"""

from __future__ import annotations

import os

from instep.linux.inotify import (
    EVENT,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_ISDIR,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
)
from instep.model import EventReport, Report
from instep.monitors.inotify import InotifyMonitor
from instep.paths import ROOT, RelPath, Scope

_LOST = IN_IGNORED | IN_UNMOUNT | IN_DELETE_SELF | IN_MOVE_SELF


class InotifyEvents(InotifyMonitor):
    """Reports are ``EventReport`` wherever the kernel told of one name."""

    def _parse(self, data: bytes, out: list[Report]) -> None:
        """Turn events into reports, one for one; but for the two ends of a rename, which are one."""
        watched = self._watches.tree.watched
        offset, end = 0, len(data)
        while offset < end:
            wd, mask, cookie, length = EVENT.unpack_from(data, offset)
            offset += 16
            name = data[offset : data.index(0, offset)] if length else b""
            offset += length
            self._events += 1
            pending = self._pending
            if pending is not None and not (mask & IN_MOVED_TO and cookie == pending[0]):
                self._finish_pending(out)
                pending = None
            node = watched.get(wd)
            if node is None:
                if mask & IN_Q_OVERFLOW:
                    self._overflow()
                    return
                if wd == self._above and mask & IN_DELETE and os.fstat(self._root_fd).st_nlink == 0:
                    self._root_gone(IN_DELETE_SELF, out)
                continue
            if mask & _LOST:
                self._lost(node, mask, out)
                continue
            if not name:
                self._itself(node, mask, [])
                if node.parent is None:  # Of any other its parent tells the same.
                    out.append(event(ROOT, mask & ~IN_ISDIR, True))
                continue
            prefix = node.path()
            path = RelPath(prefix + b"/" + name if prefix else name)
            is_dir = bool(mask & IN_ISDIR)
            if mask & IN_MOVED_FROM:
                self._pending = (cookie, path, node.kid(name) if is_dir else None, is_dir)
                self._pending_since_s = 0.0
                continue
            old = None if pending is None else pending[1]
            out.append(event(path, mask & ~IN_ISDIR if old is None else IN_MOVED_FROM | IN_MOVED_TO, is_dir, old))
            if is_dir:
                # For the sake of the watches; what it has to say of the directory has been said.
                self._directory(node, name, mask, pending, [])
            self._pending = None

    def _finish_pending(self, out: list[Report]) -> None:
        """The other end of a rename did not come."""
        if self._pending is None:
            return
        _, path, node, is_dir = self._pending
        self._pending = None
        out.append(event(path, IN_MOVED_FROM, is_dir))
        if node is not None:
            self._left(node)


def event(path: RelPath, mask: int, is_dir: bool, moved_from: RelPath | None = None) -> EventReport:  # noqa: FBT001  # called per event
    """A report with the kernel's bits."""
    report = EventReport(path, Scope.ENTRY, is_dir=is_dir, moved_from=moved_from)
    report.mask = mask
    return report
