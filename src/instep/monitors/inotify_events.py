"""The inotify monitor for those who act on events: each report says what the kernel called it.

It keeps the same watches in the same way. What differs is the loop over the events: nothing is merged, and order is
kept. Where precision was lost, a plain report says so: a directory that came, with all that may have been made in it
before it was watched; an overflow; another file system mounted. Whoever acts on events looks there for himself.
"""

from __future__ import annotations

from instep.linux.inotify import (
    EVENT,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_ISDIR,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_UNMOUNT,
)
from instep.model import EventReport, Report
from instep.monitors.inotify import InotifyMonitor
from instep.monitors.inotify_tree import Node
from instep.paths import ROOT, RelPath, Scope

_LOST = IN_IGNORED | IN_UNMOUNT | IN_DELETE_SELF | IN_MOVE_SELF
_RARE = _LOST | IN_ISDIR | IN_MOVED_FROM | IN_MOVED_TO
_ENTRY = Scope.ENTRY


class InotifyEvents(InotifyMonitor):
    """Reports are ``EventReport`` wherever the kernel told of one name."""

    def _parse(self, data: bytes, out: list[Report]) -> None:
        """Turn events into reports, one for one; but for the two ends of a rename, which are one."""
        watched = self._watches.tree.watched
        unpack, make = EVENT.unpack_from, tuple.__new__
        pending = self._pending
        offset, end = 0, len(data)
        count = 0
        here = 0  # the descriptor of the event before, and its node's path
        node: Node | None = None
        prefix = b""
        while offset < end:
            wd, mask, cookie, length = unpack(data, offset)
            offset += 16
            count += 1
            if length:
                name = data[offset : data.index(0, offset)]
                offset += length
            else:
                name = b""
            if pending is not None and not (mask & IN_MOVED_TO and cookie == pending[0]):
                self._finish_pending(out)
                pending = None
            if wd != here:
                node = watched.get(wd)
                if node is None:
                    here = 0
                    if self._is_the_last(wd, mask, count, out):
                        return
                    continue
                here = wd
                prefix = node.path()
                if prefix:
                    prefix += b"/"
            if name and not mask & _RARE:
                report = make(EventReport, (prefix + name, _ENTRY, True, False, None))
                report.mask = mask
                out.append(report)
                continue
            # Directories, renames, the watched directory itself. They may change what is known of the tree.
            here = 0
            assert node is not None
            if mask & _LOST:
                self._lost(node, mask, out)
                continue
            if not name:
                self._itself(node, mask, [])
                if node.parent is None:  # Of any other its parent tells the same.
                    out.append(event(ROOT, mask & ~IN_ISDIR, True))
                continue
            path = RelPath(prefix + name)
            is_dir = bool(mask & IN_ISDIR)
            if mask & IN_MOVED_FROM:
                pending = self._pending = (cookie, path, node.kid(name) if is_dir else None, is_dir)
                self._pending_since_s = 0.0
                continue
            old = None if pending is None else pending[1]
            out.append(event(path, mask & ~IN_ISDIR if old is None else IN_MOVED_FROM | IN_MOVED_TO, is_dir, old))
            if is_dir:
                # For the sake of the watches; what it has to say of the directory has been said.
                self._directory(node, name, mask, pending, [])
            pending = self._pending = None
        self._events += count

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
