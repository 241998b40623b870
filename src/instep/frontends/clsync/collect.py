"""From what the kernel told to the entries that wait: what counts, what it is, and in which queue it waits.

Facts (observed): a created directory is told with all that is in it, each as created; a renamed one as gone under the
old name and as created under the new. What is big goes by the size at the time of the event. The masks are those that
scripts have come to expect, whatever order the kernel gave the bits in.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable

from instep.frontends.clsync.entries import Entry, ObjectType
from instep.frontends.clsync.queues import Queue, Queues
from instep.frontends.clsync.rules import Rules
from instep.frontends.clsync.settings import Mode, Settings
from instep.frontends.clsync.signature import Signatures
from instep.frontends.clsync.tree import Tree, below
from instep.linux.inotify import (
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_ISDIR,
    IN_MOVE_SELF,
    IN_MOVED_FROM,
    IN_MOVED_TO,
)
from instep.model import EventReport
from instep.paths import ROOT, RelPath, is_within_temporary

_GONE = IN_DELETE | IN_DELETE_SELF | IN_MOVED_FROM
_MADE = IN_CREATE | IN_MOVED_TO


class Collector:
    """Turns events into entries. Where they go: the queues, ``singles``, or ``whole``."""

    def __init__(
        self,
        settings: Settings,
        rules: Rules,
        tree: Tree,
        *,
        walked: Callable[[], None],
        is_own: Callable[[RelPath], bool],
    ) -> None:
        """Nothing is looked at yet.

        Args:
            settings: replaced by whoever changes them, as the rules are.
            rules: which paths count.
            tree: the watched one.
            walked: called when a whole directory is noted, before what is in it; not for recursive calls.
            is_own: whether a path is of our own making, and nobody's change.
        """
        self.settings = settings
        self.rules = rules
        self.queues = Queues()
        self.singles: deque[Entry] = deque()
        """For mode simple: each is told at once, on its own."""
        self.whole: deque[Entry] = deque()
        """Directories that are told at once, each by a recursive call."""
        self.is_starting = True
        """Directories that are there at the start are watched where they are walked, whatever ``m`` rules say."""
        self._tree = tree
        self._walked = walked
        self._is_own = is_own
        self._signatures = Signatures(settings.modification_signature)
        self._device: int | None = None

    def __len__(self) -> int:
        return len(self.queues) + len(self.singles) + len(self.whole)

    @property
    def is_waiting_for_nothing(self) -> bool:
        """There are entries to which no delay applies."""
        return bool(self.singles or self.whole)

    def clear(self) -> None:
        """Forget all entries."""
        self.queues.clear()
        self.singles.clear()
        self.whole.clear()

    # ---- what counts ----

    def ignores(self, path: RelPath, is_dir: bool) -> bool:  # noqa: FBT001  # as ports.Place has it
        """Whether nothing below this directory is to be watched. A mount point is, what is mounted in it is not."""
        if not is_dir:
            return False
        if not (self.rules.walks(path) and (self.is_starting or self.rules.monitors(path))):
            return True
        return self._stays() and self._is_elsewhere(RelPath(path.rpartition(b"/")[0]))

    def change(self, settings: Settings) -> None:
        """Other settings hold from now on."""
        if settings.modification_signature != self.settings.modification_signature:
            self._signatures = Signatures(settings.modification_signature)
        self.settings = settings

    @property
    def tells_trees(self) -> bool:
        """Whether a directory may stand for all that is in it: nothing in it can be of those that do not count."""
        settings = self.settings
        return settings.mode.has_rsync_lists and not settings.rsync_prefer_include and self.rules.is_trivial

    # ---- events ----

    def note(self, report: EventReport, now_s: float) -> None:
        """Take in one event."""
        path, is_dir, old = report.path, report.is_dir, report.moved_from
        if old is not None:
            self._event(old, IN_MOVED_FROM, now_s, is_dir=is_dir)
            if not is_dir:
                self._event(path, IN_MOVED_TO, now_s, is_dir=False)
            else:
                self._made(path, now_s, mask=IN_CREATE | IN_MOVE_SELF)
                self.appeared(path, now_s)
            return
        mask = report.mask
        if not is_dir:
            self._event(path, mask, now_s, is_dir=False)
        elif mask & _MADE:
            self._made(path, now_s, mask=IN_CREATE)
        else:
            self._event(path, mask | IN_DELETE_SELF if mask & IN_DELETE else mask, now_s, is_dir=True)

    def appeared(self, path: RelPath, now_s: float) -> None:
        """All that is in this directory may be new."""
        if self._tree.look(path) is None:
            return  # Gone again: that is an event of its own.
        if self._stays() and self._is_elsewhere(path):
            return  # Mounted just now, or made in a mount point.
        if self.settings.have_recursive_sync:
            self._call(path)
        elif self.tells_trees:
            self._made(path, now_s, mask=IN_CREATE, again=True)
        else:
            for found, is_dir in below(self._tree, path, self._enters):
                self._found(found, now_s, Queue.NORMAL, is_dir=is_dir)

    def initial(self, now_s: float) -> None:
        """Everything is to be told."""
        settings = self.settings
        self.queues.clear()
        if settings.have_recursive_sync:
            self._call(ROOT)
            return
        self._walked()
        if settings.mode.has_rsync_lists and not settings.rsync_prefer_include:
            entry = Entry(ROOT, IN_CREATE | IN_ISDIR, ObjectType.ABSENT, ObjectType.DIRECTORY, recursive=True)
            self.queues.add(Queue.INSTANT, entry, now_s)
        else:
            self._found(ROOT, now_s, Queue.INSTANT, is_dir=True)
            if self.rules.walks(ROOT):
                for found, is_dir in below(self._tree, ROOT, self._enters):
                    self._found(found, now_s, Queue.INSTANT, is_dir=is_dir)

    def excluded(self, top: RelPath) -> list[tuple[RelPath, bool]]:
        """What does not count below a directory that is told as a whole; True: of a directory only what is in it.

        Looks at the tree now: what the rules reject and was made since the directory was noted is among it.
        """
        settings = self.settings
        if settings.full_initialsync and top == ROOT:
            return []
        if self.rules.is_trivial and not settings.exclude_mount_points:
            return []
        out: list[tuple[RelPath, bool]] = []
        if not self._syncs(top, is_dir=True, is_regular=False):
            out.append((top, False))
        if not self.rules.walks(top):
            return out

        def enters(path: RelPath) -> bool:
            if settings.exclude_mount_points and self._is_elsewhere(path):
                out.append((path, True))
                return False
            return self.rules.walks(path) and self._syncs(path, is_dir=True, is_regular=False)

        for path, is_dir in below(self._tree, top, enters):
            if not self._syncs(path, is_dir=is_dir, is_regular=not is_dir):
                out.append((path, False))
        return out

    # ---- entries ----

    def _made(self, path: RelPath, now_s: float, *, mask: int, again: bool = False) -> None:
        """A directory has come."""
        if self.settings.have_recursive_sync:
            return  # It is told by a call.
        if not again:
            self._walked()
        if self._syncs(path, is_dir=True, is_regular=False):
            entry = Entry(path, mask | IN_ISDIR, ObjectType.ABSENT, ObjectType.DIRECTORY, recursive=self.tells_trees)
            self._put(Queue.NORMAL, entry, now_s)

    def _found(self, path: RelPath, now_s: float, queue: Queue, *, is_dir: bool) -> None:
        """Something was found, and counts as just created."""
        if self._syncs(path, is_dir=is_dir, is_regular=not is_dir):
            kind = ObjectType.DIRECTORY if is_dir else ObjectType.FILE
            self._put(queue, Entry(path, IN_CREATE | (IN_ISDIR if is_dir else 0), ObjectType.ABSENT, kind), now_s)

    def _event(self, path: RelPath, mask: int, now_s: float, *, is_dir: bool) -> None:
        settings = self.settings
        if not settings.modification_signature and self.queues.covers(path):
            return  # Of most files in a new directory: not even looked at.
        gone = mask & _GONE
        info = None if gone or settings.cancel_stat else self._tree.look(path)
        regular = not is_dir and (info is None or stat.S_ISREG(info.st_mode))
        if not self._syncs(path, is_dir=is_dir, is_regular=regular):
            return
        if gone:
            self._signatures.forget(path)
        elif info is not None and not self._signatures.is_new(path, info):
            return
        kind = ObjectType.DIRECTORY if is_dir else ObjectType.FILE
        entry = Entry(
            path,
            mask | IN_ISDIR if is_dir else mask,
            ObjectType.ABSENT if mask & _MADE else kind,
            ObjectType.ABSENT if gone else kind,
            # A directory that is gone is gone with all that was in it: rsync deletes none that is not empty.
            recursive=bool(is_dir and gone and settings.mode.has_rsync_lists),
        )
        self._put(self._queue_of(info), entry, now_s)

    def _queue_of(self, info: os.stat_result | None) -> Queue:
        most = self.settings.threshold_bigfile
        is_big = info is not None and 0 < most < info.st_size and stat.S_ISREG(info.st_mode)
        return Queue.BIG if is_big else Queue.NORMAL

    def _put(self, queue: Queue, entry: Entry, now_s: float) -> None:
        if self.settings.mode is Mode.SIMPLE:
            self.singles.append(entry)
        else:
            self.queues.add(queue, entry, now_s)

    def _call(self, path: RelPath) -> None:
        entry = Entry(
            path, IN_CREATE | IN_ISDIR, ObjectType.ABSENT, ObjectType.DIRECTORY, recursive=True, absolute=True
        )
        self.whole.append(entry)

    def _syncs(self, path: RelPath, *, is_dir: bool, is_regular: bool) -> bool:
        if is_within_temporary(path):
            return False
        return self.rules.syncs(path, is_dir=is_dir, is_regular=is_regular) and not self._is_own(path)

    def _enters(self, path: RelPath) -> bool:
        if is_within_temporary(path):
            return False
        return self.rules.walks(path) and not (self._stays() and self._is_elsewhere(path))

    def _stays(self) -> bool:
        return self.settings.one_file_system or self.settings.exclude_mount_points

    def _is_elsewhere(self, path: RelPath) -> bool:
        """Whether this directory is on another file system than the root."""
        if not path:
            return False
        if self._device is None:
            root = self._tree.look(ROOT)
            self._device = None if root is None else root.st_dev
        info = self._tree.look(path)
        return info is not None and info.st_dev != self._device
