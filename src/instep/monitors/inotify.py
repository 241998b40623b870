"""The inotify monitor: reads the kernel queue of one source tree, turns events into reports.

Facts (inotify(7); measured on Linux 6.18):

- The queue holds ``fs.inotify.max_queued_events`` (16384), fixed when the instance is made; then one IN_Q_OVERFLOW, and
  everything else is dropped until there is room.
- The two ends of a rename stand next to each other in the queue with one cookie, unless other writers come between.
  A directory that moves keeps all watches at and below it. One that leaves the tree goes on reporting.
- A directory that somebody holds open gives nothing of its own when it is removed. We hold the root open: only its
  parent tells.
- A removed directory gives IN_DELETE_SELF and IN_IGNORED under its own descriptor, then IN_DELETE in its parent.
- After IN_IGNORED or inotify_rm_watch older events of that descriptor may still be queued: unknown ones are skipped.
- Changes through mmap show as IN_CLOSE_WRITE when the mapping goes; a hard link is reported only under the name written
  through; changes made by other machines (NFS, FUSE servers) never.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence

from instep.errors import SourceError, ToolMissing
from instep.linux import inotify
from instep.linux.inotify import (
    EVENT,
    EVENT_BYTES_MAX,
    IN_ATTRIB,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_ISDIR,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_ONLYDIR,
    IN_Q_OVERFLOW,
    IN_UNMOUNT,
)
from instep.linux.libc import lacks
from instep.linux.mount_watch import MountWatch
from instep.linux.openat import DIRECTORY, still_names
from instep.logs import fields
from instep.model import MonitorStatus, Report
from instep.monitors.inotify_tree import BLIND, Node, below
from instep.monitors.inotify_watches import Watches
from instep.paths import ROOT, RelPath, Scope

log = logging.getLogger(__name__)

BUFFER_BYTES = 1 << 16
"""Measured: reading costs the same per event from 4 KiB to 1 MiB; this is taken from the heap without a mmap."""
BUFFERS_MAX = 2
"""Looked at in one reading: some 4,000 events, 10 ms with all that follows; a writer can fill the queue in 25."""
AHEAD_MAX = 256
"""So many buffers are taken out of the kernel queue before they are looked at: 16 MiB, some 500,000 events."""
SLICE_S = 0.005
PARTNER_WAIT_S = 0.002
"""How long one end of a rename waits for the other when the queue ends with it. The kernel queues both at once."""
OVERFLOW_CALM_S = 10.0

_LAST_BYTES = BUFFER_BYTES - EVENT_BYTES_MAX
"""A buffer with room for one more event was the end of the queue."""
_SELF = IN_DELETE_SELF | IN_MOVE_SELF
_LOST = IN_Q_OVERFLOW | IN_IGNORED | IN_UNMOUNT | _SELF
_NAMES = IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE
_MOVED = IN_MOVED_FROM | IN_MOVED_TO
_UNMOUNTED = "was unmounted"
_ENTRY = Scope.ENTRY
_TREE = Scope.TREE

_Pending = tuple[int, RelPath, Node | None, bool]  # cookie, old path, its node, whether a directory


def why_unavailable(root: bytes) -> str | None:  # noqa: ARG001  # one signature for all monitors
    """Why this monitor cannot run on this source, or None."""
    if not sys.platform.startswith("linux"):
        return "inotify is a facility of Linux"
    if lacks("inotify_init1"):
        return "the C library has no inotify_init1"
    try:
        os.close(inotify.open_queue())
    except OSError as error:
        return f"inotify_init1: {error.strerror}"
    return None


class InotifyMonitor:
    """One watch on every directory. Needs no rights but to read; costs a walk at start, and 0.5 KiB for each."""

    name = "inotify"
    backoff_s: Sequence[float] = (0.0, 1.0, 2.0, 4.0)
    """Wait before a new queue is made, after one overflow, two in a row …"""

    def __init__(
        self,
        root: bytes,
        *,
        one_file_system: bool = False,
        ignore: Callable[[RelPath, bool], bool] | None = None,
        rescan_s: float = 60.0,
    ) -> None:
        self.drained = False
        self._root = root
        self._one_file_system = one_file_system
        self._ignore = ignore
        self._rescan_s = rescan_s
        self._root_fd = -1
        self._queue = -1
        self._above = 0  # watch descriptor of the directory that holds the root
        self._epoll: select.epoll | None = None
        self._mounts: MountWatch | None = None
        self._backlog: deque[bytes] = deque()
        self._out: list[Report] = []
        self._pending: _Pending | None = None
        self._pending_since_s = 0.0
        self._due: list[RelPath] = []
        self._events = 0
        self._overflows = 0
        self._overflows_in_row = 0
        self._restart_at_s = 0.0
        self._restarted_s = -OVERFLOW_CALM_S
        self._root_lost = ""

    def start(self) -> None:
        """Watch every directory below the root, then return.

        Raises:
            ToolMissing: the user's limit of inotify instances is reached, or there is no inotify.
            SourceError: the root cannot be opened.
        """
        reason = None if sys.platform.startswith("linux") else why_unavailable(self._root)
        if reason is not None:
            raise ToolMissing("inotify-unavailable", f"cannot watch with inotify: {reason}")
        try:
            self._root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(
                "source-unreadable",
                f"cannot open the source {os.fsdecode(self._root)!r}: {error.strerror}",
                fix="check that it is a directory and may be read",
            ) from error
        try:
            self._queue = inotify.open_queue()
        except OSError as error:
            self.close()
            raise ToolMissing(
                "inotify-unavailable",
                f"cannot make an inotify instance: {error.strerror}",
                fix="raise fs.inotify.max_user_instances" if error.errno == errno.EMFILE else "",
            ) from error
        # The queue is replaced after an overflow; callers go on waiting for the same descriptor.
        self._epoll = select.epoll()
        self._epoll.register(self._queue, select.EPOLLIN)
        self._watch_mounts()
        self._watches = Watches(
            self._root_fd, one_file_system=self._one_file_system, ignore=self._ignore, rescan_s=self._rescan_s
        )
        self._watches.reset(self._queue)
        self._watch_above()
        self._watches.attach_root()
        while self._watches.todo:
            self._watches.work(self._out, time.monotonic() + SLICE_S)
            # Only put aside: what happened is told after the report for the root.
            while data := self._take():
                self._backlog.append(data)

    def fileno(self) -> int:
        """A descriptor that is readable when the queue is not empty; the same for the life of the monitor."""
        assert self._epoll is not None
        return self._epoll.fileno()

    def read(self) -> Sequence[Report]:
        """What is new. Looks at up to 128 KiB of events and attaches for up to 5 ms."""
        self.drained = False
        out, self._out = self._out, []
        watches = self._watches
        if self._queue < 0 and not self._restart():
            return out
        if self._mounts is not None:
            for path in self._mounts.changed():
                self._remount(path)
        if self._backlog:
            self._read_ahead()
        empty = worked = False
        for _ in range(BUFFERS_MAX):
            data = self._next()
            if data:
                self._parse(data, out)
                if self._queue < 0:
                    return out
                empty = not self._backlog and len(data) <= _LAST_BYTES
                if not empty or self._pending is not None:
                    continue
            else:
                empty = True
                if self._pending is not None:
                    now_s = time.monotonic()
                    if self._pending_since_s == 0.0:
                        self._pending_since_s = now_s
                    if now_s < self._pending_since_s + PARTNER_WAIT_S:
                        break
                    self._finish_pending(out)
            if not watches.is_busy():
                if watches.is_settled() and not watches.wants_time():
                    break
                watches.due_again(time.monotonic())
                if not watches.is_busy():
                    break
            watches.work(out, time.monotonic() + SLICE_S)
            worked = True
            if watches.is_busy():
                break
            # What was attached may have changed meanwhile: look at the queue once more.
            empty = False
        if not worked and watches.is_busy():
            watches.work(out, time.monotonic() + SLICE_S)  # A flood of events must not hold up new watches for ever.
        self.drained = empty and self._pending is None and watches.is_settled()
        return out

    def wake_s(self) -> float | None:
        """When to call ``read`` though no event comes."""
        now_s = time.monotonic()
        if self._queue < 0:
            return max(0.0, self._restart_at_s - now_s)
        if self._out or self._backlog:
            return 0.0
        wake_s = self._watches.wake_s(now_s)
        if self._pending is not None and (wake_s is None or wake_s > PARTNER_WAIT_S):
            return PARTNER_WAIT_S
        return wake_s

    def status(self) -> MonitorStatus:
        """Figures for the status report."""
        if self._root_fd < 0:
            return MonitorStatus(watches=0, events=self._events, overflows=self._overflows)
        trouble = self._watches.trouble()
        if self._root_lost:
            trouble.insert(0, f"the source {self._root_lost}")
        if self._queue < 0:
            trouble.insert(0, "the kernel queue overflowed; watching again in a few seconds")
        return MonitorStatus(
            watches=len(self._watches.tree.watched),
            events=self._events,
            overflows=self._overflows,
            trouble=tuple(trouble),
        )

    def renew(self, ignore: Callable[[RelPath, bool], bool] | None) -> bool:
        """See ``instep.ports.Renewable``. All directories are visited once more, in the slices of ``read``."""
        if self._root_fd < 0 or self._root_lost == _UNMOUNTED:
            return False
        self._watches.renew(ignore)
        if self._queue >= 0:  # Else all is attached anyway when there is a new one.
            if self._root_lost:
                inotify.remove_watch(self._queue, self._above)  # It may be back in another directory.
                self._watch_above()
            self._watches.attach_root()
        self._root_lost = ""
        return True

    def close(self) -> None:
        """Give the queue with all its watches back to the kernel."""
        if self._epoll is not None:
            self._epoll.close()
            self._epoll = None
        if self._mounts is not None:
            self._mounts.close()
            self._mounts = None
        if self._queue >= 0:
            os.close(self._queue)
            self._queue = -1
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1

    # The queue.

    def _take(self) -> bytes:
        """The next piece of the kernel queue; empty when it is."""
        try:
            return os.read(self._queue, BUFFER_BYTES)
        except BlockingIOError:
            return b""

    def _next(self) -> bytes:
        if self._backlog:
            return self._backlog.popleft()
        data = self._take()
        if len(data) > _LAST_BYTES:
            self._read_ahead()
        return data

    def _read_ahead(self) -> None:
        """Make room in the kernel queue: what does not fit is lost, and looking at events takes ten times longer."""
        backlog = self._backlog
        while len(backlog) < AHEAD_MAX and (data := self._take()):
            backlog.append(data)
            if len(data) <= _LAST_BYTES:
                break

    def _parse(self, data: bytes, out: list[Report]) -> None:
        """Turn events into reports; the loop that every event goes through."""
        watched = self._watches.tree.watched
        unpack = EVENT.unpack_from
        make = tuple.__new__
        pending = self._pending
        offset, end = 0, len(data)
        count = 0
        here = 0  # the descriptor of the event before, its node and path
        node: Node | None = None
        prefix = b""
        last = b""  # the name of the event before; the report on it is the last one
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
                last = b""
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
                last = b""
            assert node is not None
            if mask & IN_ISDIR or mask & (_LOST | _MOVED) or not name:
                # Rare: directories, renames, the watched directory itself. They may change what is known of the tree.
                here = 0
                last = b""
                if mask & _LOST:
                    self._lost(node, mask, out)
                elif not name:
                    self._itself(node, mask, out)
                elif mask & IN_MOVED_FROM:
                    kid = node.kid(name) if mask & IN_ISDIR else None
                    pending = self._pending = (cookie, RelPath(prefix + name), kid, bool(mask & IN_ISDIR))
                    self._pending_since_s = 0.0
                elif mask & IN_ISDIR:
                    self._directory(node, name, mask, pending, out)
                    pending = self._pending = None
                else:
                    old = None if pending is None else pending[1]
                    out.append(make(Report, (RelPath(prefix + name), _ENTRY, True, False, old)))
                    pending = self._pending = None
            elif name == last:
                # The usual run of IN_CREATE, IN_MODIFY, IN_CLOSE_WRITE on one file is one report.
                if mask != IN_ATTRIB and not out[-1][2]:
                    out[-1] = make(Report, (out[-1][0], _ENTRY, True, False, None))
            else:
                last = name
                out.append(make(Report, (RelPath(prefix + name), _ENTRY, mask != IN_ATTRIB, False, None)))
        self._events += count

    def _is_the_last(self, wd: int, mask: int, count: int, out: list[Report]) -> bool:
        """An event of no directory in the tree, after so many others: whether the queue overflowed with it."""
        if mask & IN_Q_OVERFLOW:
            self._events += count
            self._overflow()
            return True
        if wd == self._above and mask & IN_DELETE and os.fstat(self._root_fd).st_nlink == 0:
            self._root_gone(IN_DELETE_SELF, out)
        return False

    def _directory(self, parent: Node, name: bytes, mask: int, pending: _Pending | None, out: list[Report]) -> None:
        """An entry of a directory, itself a directory, has come, gone or changed."""
        watches = self._watches
        path = below(parent.path(), name)
        if mask & (IN_CREATE | IN_MOVED_TO):
            if pending is not None:
                node = pending[2]
                if node is not None and watches.moved(node, parent, name):
                    out.append(Report(path, _TREE, is_dir=True, moved_from=pending[1]))
                    return
                watches.attach(parent, name)
                self._finish_pending(out)
            else:
                watches.attach(parent, name)
            # Its report follows when everything below it is being watched.
        elif mask & IN_DELETE:
            out.append(Report(path, _TREE, is_dir=True))
            # Usually its IN_IGNORED came before. A directory made anew under this name has an event of its own.
            if parent.kid(name) is not None:
                watches.recheck(parent, name)
        else:
            out.append(Report(path, _ENTRY, content=False, is_dir=True))
            kid = parent.kid(name)
            if kid is None or kid.flags & BLIND:
                watches.attach(parent, name)

    def _itself(self, node: Node, mask: int, out: list[Report]) -> None:
        """An event of a watched directory itself; its parent usually has told the same just before."""
        path = node.path()
        if not out or out[-1].path != path:
            out.append(Report(path, _ENTRY, content=mask & ~(IN_ISDIR | IN_ATTRIB) != 0, is_dir=True))
        if node.parent is None and node.flags & BLIND:
            self._watches.attach_root()

    def _finish_pending(self, out: list[Report]) -> None:
        """The other end of a rename did not come: it has left the tree, or somebody's event stands between."""
        if self._pending is None:
            return
        _, path, node, is_dir = self._pending
        self._pending = None
        out.append(Report(path, _TREE if is_dir else _ENTRY, is_dir=is_dir))
        if node is not None:
            self._left(node)

    def _left(self, node: Node) -> None:
        """A directory was moved away from where we know it; its watches report under the old name until it is dropped.

        Never dropped blindly: after a RENAME_EXCHANGE what stands under the old name is already what belongs there.
        """
        if node.is_alive() and node.parent is not None:
            self._watches.recheck(node.parent, node.name)

    def _lost(self, node: Node, mask: int, out: list[Report]) -> None:
        """A watch has ended, or its directory was removed, renamed or unmounted."""
        tree = self._watches.tree
        if node.parent is None:
            self._root_gone(mask, out)
        elif mask & IN_UNMOUNT:
            # What the mount had covered comes to light. Every watch on it tells so; only the top one matters.
            if node.dev != node.parent.dev:
                out.append(Report(node.path(), _TREE, is_dir=True))
                self._watches.attach(node.parent, node.name)
        elif mask & IN_IGNORED:
            del tree.watched[node.wd]
            if node.is_alive():
                tree.drop(node)

    def _watch_above(self) -> None:
        """Learn of the removal of the root. Comes before all other watches: the root's own replaces it for ``/``."""
        self._above = 0
        try:
            fd = os.open(b"..", DIRECTORY, dir_fd=self._root_fd)
        except OSError:
            return  # Not for us to read: then the removal shows only to those who open the source anew.
        try:
            self._above = inotify.add_watch(self._queue, fd, IN_DELETE | IN_ONLYDIR)
        except OSError:
            return
        finally:
            os.close(fd)

    def _root_gone(self, mask: int, out: list[Report]) -> None:
        if self._root_lost or (mask & IN_MOVE_SELF and still_names(self._root, self._root_fd)):
            return  # It may be back already.
        self._root_lost = _UNMOUNTED if mask & IN_UNMOUNT else "was renamed" if mask & IN_MOVE_SELF else "was removed"
        log.warning(
            "source-root-changed",
            extra=fields(path=self._root, reason=self._root_lost, now="the whole tree is looked at again"),
        )
        out.append(Report(ROOT, _TREE, is_dir=True))

    # Mounts.

    def _watch_mounts(self) -> None:
        """Learn what inotify is silent about: a file system mounted over a watched directory."""
        assert self._epoll is not None
        if self._one_file_system:
            return
        try:
            self._mounts = MountWatch(self._root_fd)
        except OSError:
            return  # No /proc: what is mounted later is not seen.
        self._epoll.register(self._mounts.fileno(), select.EPOLLPRI)

    def _remount(self, path: RelPath) -> None:
        """Something else stands at this mount point now."""
        *above, name = path.split(b"/")
        node: Node | None = self._watches.tree.top
        for part in above:
            node = None if node is None else node.kid(part)
        if node is not None:
            self._watches.attach(node, name)

    # Overflow.

    def _overflow(self) -> None:
        """Events were dropped: nothing that is known is certain. Start anew, at once or with growing pauses."""
        now_s = time.monotonic()
        self._overflows += 1
        self._overflows_in_row = self._overflows_in_row + 1 if now_s < self._restarted_s + OVERFLOW_CALM_S else 0
        level = logging.WARNING if self._overflows == 1 else logging.DEBUG
        log.log(
            level,
            "inotify-overflow",
            extra=fields(
                path=self._root,
                now="all directories are watched anew, then the whole tree is compared",
                fix="raise fs.inotify.max_queued_events",
            ),
        )
        # Reports that were still due may concern content that a comparison by size and time does not find.
        self._due += self._watches.reset(-1)
        if self._pending is not None:
            self._due.append(self._pending[1])
            self._pending = None
        self._backlog.clear()
        assert self._epoll is not None
        self._epoll.unregister(self._queue)
        os.close(self._queue)
        self._queue = -1
        self._restart_at_s = now_s + self.backoff_s[min(self._overflows_in_row, len(self.backoff_s) - 1)]

    def _restart(self) -> bool:
        """Make a new queue, if it is time; the tree is attached in the slices of ``read``."""
        now_s = time.monotonic()
        if now_s < self._restart_at_s:
            return False
        try:
            self._queue = inotify.open_queue()
        except OSError:
            self._restart_at_s = now_s + 1.0
            return False
        assert self._epoll is not None
        self._epoll.register(self._queue, select.EPOLLIN)
        self._restarted_s = now_s
        self._watches.reset(self._queue)
        self._watch_above()
        self._watches.attach_root(self._due)
        self._due = []
        return True
