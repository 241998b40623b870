"""The poll monitor: scans the tree again and again, for file systems whose changes no kernel facility tells of.

Facts (measured on Linux 6.18; ext4, xfs, tmpfs):

- A scan costs about 5 us for each object. Only ctime tells of every change: size may stay, mtime can be set back.
- Before Linux 6.13 timestamps tick every 1 to 10 ms: a change within the tick of the last look leaves ctime as it was.
  What had changed shortly before a scan began is therefore looked at, and reported, once more in the next one.
- What came and went between two scans was never seen here, but may have been copied: so a directory whose names
  changed is reported as LIST too.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence

from instep.errors import SourceError
from instep.linux.openat import open_directory
from instep.logs import fields
from instep.model import MonitorStatus, Report
from instep.paths import ROOT, RelPath, Scope

log = logging.getLogger(__name__)

SLICE_S = 0.005
RACY_NS = 20_000_000
"""The coarsest tick of a timestamp (10 ms at 100 Hz), as much again for a clock that is read a little later."""
UNREADABLE_LOGGED_MAX = 100

_Look = tuple[int, int, int, int, int, int]  # dev, ino, mode, size, mtime_ns, ctime_ns


class _Folder:
    """One directory as the last scan left it."""

    __slots__ = ("entries", "folders", "mtime_ns", "path", "readable")

    def __init__(self, path: RelPath) -> None:
        self.path = path
        self.entries: dict[bytes, _Look] | None = None  # None: not listed yet
        self.folders: dict[bytes, _Folder] = {}
        self.readable = True
        self.mtime_ns = -1  # of the directory, as far as no change can hide behind it


def why_unavailable(root: bytes) -> str | None:  # noqa: ARG001  # one signature for all monitors
    """Why this monitor cannot run on this source, or None: it always can."""
    return None


class PollMonitor:
    """Finds changes by comparing with the scan before; late by up to ``interval_s`` and the time of a scan."""

    name = "poll"

    def __init__(
        self,
        root: bytes,
        *,
        one_file_system: bool = False,
        ignore: Callable[[RelPath, bool], bool] | None = None,
        interval_s: float = 2.0,
    ) -> None:
        self.drained = False
        self._root = root
        self._one_file_system = one_file_system
        self._ignore = ignore
        self._interval_s = interval_s
        self._root_fd = -1
        self._root_dev = 0
        self._silent: tuple[int, int] | None = None
        self._top = _Folder(ROOT)
        self._top_look: _Look | None = None
        self._scan: Iterator[None] | None = None
        self._renewed_by = 0  # the number of the scan that ends it
        self._next_at_s = 0.0
        self._found: list[Report] = []
        self._late: list[Report] = []
        self._racy = 0
        self._racy_from_ns = 0
        self._scans = 0
        self._events = 0
        self._unreadable: dict[RelPath, str] = {}
        self._unreadable_logged: set[RelPath] = set()

    def start(self) -> None:
        """Take the first scan, then return.

        Raises:
            SourceError: the root cannot be opened.
        """
        try:
            self._root_fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(
                "source-unreadable",
                f"cannot open the source {os.fsdecode(self._root)!r}: {error.strerror}",
                fix="check that it is a directory and may be read",
            ) from error
        self._root_dev = os.fstat(self._root_fd).st_dev
        # Nothing ever comes through: callers want a descriptor to wait for, ``wake_s`` does the work.
        self._silent = os.pipe()
        for _ in self._begin():
            pass
        self._end()
        self._found = [Report(ROOT, Scope.TREE, content=False, is_dir=True)]

    def fileno(self) -> int:
        """A descriptor that never becomes readable; ``wake_s`` tells when to call."""
        assert self._silent is not None
        return self._silent[0]

    def read(self) -> Sequence[Report]:
        """What the scan under way has found so far; goes on with it for 5 ms.

        ``drained`` is set by the call that ends a scan in which nothing was new and nothing is left to be looked at
        again; what happened before that scan began has been reported.
        """
        self.drained = False
        now_s = time.monotonic()
        if self._scan is None and now_s >= self._next_at_s:
            self._scan = self._begin()
        if self._scan is not None:
            until_s = now_s + SLICE_S
            for _ in self._scan:
                if time.monotonic() >= until_s:
                    break
            else:
                self._end()
        found, self._found = self._found, []
        self._events += len(found)
        return found

    def wake_s(self) -> float | None:
        """Seconds until the next scan, or at once while one is under way."""
        if self._scan is not None or self._found:
            return 0.0
        return max(0.0, self._next_at_s - time.monotonic())

    def status(self) -> MonitorStatus:
        """Figures for the status report; an event is a difference found."""
        trouble = tuple(f"{os.fsdecode(path) or '.'!r}: {why}" for path, why in self._unreadable.items())
        return MonitorStatus(watches=0, events=self._events, overflows=0, trouble=trouble)

    def renew(self, ignore: Callable[[RelPath, bool], bool] | None) -> bool:
        """See ``instep.ports.Renewable``. The scan under way goes on, the next one begins right after it."""
        if self._root_fd < 0:
            return False
        self._ignore = ignore
        self._renewed_by = self._scans + (1 if self._scan is None else 2)
        self._next_at_s = 0.0
        return True

    def close(self) -> None:
        """Close what is open."""
        self._scan = None
        for fd in (self._root_fd, *(self._silent or ())):
            if fd >= 0:
                os.close(fd)
        self._root_fd, self._silent = -1, None

    def _begin(self) -> Iterator[None]:
        # The file system's clock may be another machine's: what it dates later than now counts as racy, every time.
        self._racy_from_ns = time.time_ns() - RACY_NS
        self._racy = 0
        self._late = []
        self._unreadable = {}
        return self._walk()

    def _end(self) -> None:
        self._scan = None
        self._scans += 1
        if self._scans == self._renewed_by:
            self._found.append(Report(ROOT, Scope.TREE, content=False, is_dir=True))
        self.drained = not self._found and not self._late and not self._racy
        # A directory is reported after its look was taken: what changes later differs from it.
        self._found += self._late
        self._late = []
        if self._scans >= self._renewed_by:
            self._next_at_s = time.monotonic() + self._interval_s

    def _walk(self) -> Iterator[None]:
        top = os.fstat(self._root_fd)
        look = self._look(top)
        if self._top_look is not None and look != self._top_look:
            self._found.append(Report(ROOT, content=False, is_dir=True))
            self._found.append(Report(ROOT, Scope.LIST, is_dir=True))
        self._top_look = self._settled(look)
        stack = [self._top]
        while stack:
            folder = stack.pop()
            self._list(folder, stack)
            yield

    def _list(self, folder: _Folder, stack: list[_Folder]) -> None:
        try:
            fd = open_directory(self._root_fd, folder.path)
        except (FileNotFoundError, NotADirectoryError):
            return  # Its parent changed after it was listed: the next scan sees that.
        except OSError as error:
            self._not_readable(folder, error)
            return
        try:
            top = os.fstat(fd)
            with os.scandir(fd) as listed:
                now = {}
                for entry in listed:
                    try:
                        now[os.fsencode(entry.name)] = self._look(entry.stat(follow_symlinks=False))
                    except FileNotFoundError:
                        continue
        except OSError as error:
            self._not_readable(folder, error)
            return
        finally:
            os.close(fd)
        before = folder.entries
        if before is not None and not folder.readable:
            before = None
            self._late.append(Report(folder.path, Scope.TREE, is_dir=True))
        folder.readable = True
        if before is not None:
            self._compare(folder, before, now, names_changed=top.st_mtime_ns != folder.mtime_ns)
        folder.mtime_ns = top.st_mtime_ns if top.st_ctime_ns < self._racy_from_ns else -1
        folder.entries = {name: self._settled(look) for name, look in now.items()}
        self._descend(folder, now, stack)

    def _compare(
        self, folder: _Folder, before: dict[bytes, _Look], now: dict[bytes, _Look], *, names_changed: bool
    ) -> None:
        prefix = folder.path + b"/" if folder.path else b""
        for name, look in now.items():
            old = before.get(name)
            if old == look:
                continue
            path = RelPath(prefix + name)
            if not stat.S_ISDIR(look[2]):
                self._found.append(Report(path))
            elif old is not None and old[:2] == look[:2] and stat.S_ISDIR(old[2]):
                # Its times tell that names may have come, been copied, and gone since it was last listed.
                self._found.append(Report(path, content=False, is_dir=True))
                self._found.append(Report(path, Scope.LIST, is_dir=True))
                if names_changed:
                    # It may have been moved away and back. Whoever looked meanwhile found nothing here.
                    self._late.append(Report(path, Scope.TREE, content=False, is_dir=True))
            else:
                folder.folders.pop(name, None)
                self._late.append(Report(path, Scope.TREE, is_dir=True))
        if before.keys() != now.keys():
            gone = before.keys() - now.keys()
            self._found += [Report(RelPath(prefix + name), is_dir=stat.S_ISDIR(before[name][2])) for name in gone]
            self._found.append(Report(folder.path, Scope.LIST, is_dir=True))

    def _descend(self, folder: _Folder, now: dict[bytes, _Look], stack: list[_Folder]) -> None:
        prefix = folder.path + b"/" if folder.path else b""
        known, folder.folders = folder.folders, {}
        for name, look in now.items():
            if not stat.S_ISDIR(look[2]) or (self._one_file_system and look[0] != self._root_dev):
                continue
            below = known.get(name)
            if below is None or self._scans < self._renewed_by:
                path = RelPath(prefix + name)
                if self._ignore is not None and self._ignore(path, True):
                    continue
                below = below or _Folder(path)
            folder.folders[name] = below
            stack.append(below)

    @staticmethod
    def _look(found: os.stat_result) -> _Look:
        return found.st_dev, found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _settled(self, look: _Look) -> _Look:
        """What to remember; of what may change again without a trace, something that differs next time."""
        if look[5] < self._racy_from_ns:
            return look
        self._racy += 1
        return (*look[:5], -1)

    def _not_readable(self, folder: _Folder, error: OSError) -> None:
        folder.readable = False
        if folder.entries is None:
            folder.entries = {}
        self._unreadable[folder.path] = (error.strerror or "").lower()
        if folder.path not in self._unreadable_logged and len(self._unreadable_logged) < UNREADABLE_LOGGED_MAX:
            self._unreadable_logged.add(folder.path)
            log.warning(
                "directory-unreadable",
                extra=fields(
                    path=folder.path,
                    reason=error.strerror,
                    now="changes in it are not seen until it can be read",
                    fix="let the user that instep runs as read and search it, or exclude it",
                ),
            )
