"""A stretch of native work: some changed paths, one after the other, with the directories they share kept open."""

from __future__ import annotations

import contextlib
import errno
import os

from instep.engines.native.entry import Brought, bring, failed
from instep.engines.native.session import Session
from instep.engines.native.tally import Tally
from instep.engines.native.tree import level
from instep.paths import Scope

_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
# Python 3.11 takes 0.25 us to get a member from its class.
_LIST, _TREE = Scope.LIST, Scope.TREE
_DIRECTORY, _NEW_DIRECTORY, _FAILED = Brought.DIRECTORY, Brought.NEW_DIRECTORY, Brought.FAILED


class Stretch:
    """Brings paths in step until ``finish``, which sets the times of the directories they are in.

    Directories that have to be looked into are left in ``tally.levels`` for ``tree.walk``.
    """

    def __init__(self, session: Session, *, holds: bool = False) -> None:
        """``holds``: note deletions that nobody reported, instead of making them (``Tally.holds``)."""
        self.session = session
        self.directories = session.directories()
        self.tally = Tally(holds=holds)
        self._touched: dict[bytes, None] = {}
        self._opened_up: dict[bytes, int] = {}

    def bring(self, path: bytes, scope: Scope, *, content: bool, leave: bool = True) -> None:
        """Bring one changed path in step."""
        if not path:
            self._root(scope, content=content)
            return
        parent, _, name = path.rpartition(b"/")
        directories = self.directories
        try:
            source = directories.source(parent)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                failed(self.tally, path, error, "cannot open its directory in the source")
            # Otherwise an ancestor is gone, or is no directory any more: that has a report of its own, and until it
            # is worked on the target's copy may yet be wanted, for a move.
            return
        try:
            target = directories.target(parent)
        except OSError as error:
            if error.errno in _NOT_THERE:
                self._ancestors(path, parent)
            else:
                failed(self.tally, path, error, "cannot open its directory at the target")
            return
        self.open_up(parent, target)
        tally = self.tally
        before = tally.entries + tally.deleted
        brought = bring(self.session, source, target, path, name, tally, content=content, leave=leave)
        if content or tally.entries + tally.deleted != before or brought is _FAILED:
            # Even when nothing was left to do: a name that came and went has changed its directory's time.
            self._touched[parent] = None
        if brought is _NEW_DIRECTORY:
            directories.forget_target(path)
            tally.levels.append((path, content, True))
        elif brought is _DIRECTORY:
            if scope is _TREE:
                tally.levels.append((path, content, False))
            elif scope is _LIST:
                self._list(path)
            else:
                self._attributes(path)

    def touch(self, parent: bytes) -> None:
        """Set this directory's times at the end: something in it was renamed."""
        self._touched[parent] = None

    def open_up(self, path: bytes, target: int) -> None:
        """An ordinary user may own a directory that it may not write to: until ``finish`` it may."""
        if self.session.attributes.is_root or self.session.settings.dry_run or path in self._opened_up:
            return
        mode = os.fstat(target).st_mode & 0o7777
        if mode & 0o300 != 0o300:
            with contextlib.suppress(PermissionError):  # Not ours: the attempt to write says so.
                os.fchmod(target, mode | 0o700)
                self._opened_up[path] = mode

    def finish(self) -> Tally:
        """Set the times of the touched directories, close everything, and return what was done."""
        try:
            if self.session.settings.preserve.times and not self.session.settings.dry_run:
                for parent in self._touched:
                    self._times(parent)
            for parent, mode in self._opened_up.items():
                self._close_again(parent, mode)
        finally:
            self.directories.close()
        return self.tally

    def _root(self, scope: Scope, *, content: bool) -> None:
        if scope is _TREE:
            self.tally.levels.append((b"", content, False))
        elif scope is _LIST:
            self._list(b"")
        else:
            self._attributes(b"")

    def _list(self, path: bytes) -> None:
        below = level(self.session, path, self.tally, content=False, fresh=False)
        self.tally.levels += [found for found in below if found[2]]

    def _attributes(self, path: bytes) -> None:
        """A directory's own mode, owner, xattrs, times."""
        if self.session.settings.dry_run:
            return
        try:
            source, target = self.directories.source(path), self.directories.target(path)
            if self.session.attributes.to_existing(source, target, os.fstat(source), os.fstat(target)):
                self.tally.entries += 1
        except OSError as error:
            if error.errno not in _NOT_THERE:
                failed(self.tally, path, error, "cannot set the attributes of the target directory")

    def _times(self, path: bytes) -> None:
        try:
            info = os.fstat(self.directories.source(path))
            os.utime(self.directories.target(path), ns=(info.st_atime_ns, info.st_mtime_ns))
        except OSError as error:
            if error.errno not in _NOT_THERE:
                failed(self.tally, path, error, "cannot set the times of the target directory")

    def _close_again(self, path: bytes, mode: int) -> None:
        try:
            if self.session.settings.preserve.mode:
                mode = os.fstat(self.directories.source(path)).st_mode & 0o7777
            os.fchmod(self.directories.target(path), mode)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                failed(self.tally, path, error, "cannot set the mode of the target directory")

    def _ancestors(self, path: bytes, parent: bytes) -> None:
        """The target lacks a directory on the way: bring over the topmost one that is missing, whole."""
        missing = parent
        while missing:
            above = missing.rpartition(b"/")[0]
            try:
                self.directories.target(above)
            except OSError as error:
                if error.errno in _NOT_THERE:
                    missing = above
                    continue
                failed(self.tally, path, error, "cannot open its directory at the target")
                return
            break
        if missing and not self.session.settings.dry_run:
            self.bring(missing, Scope.TREE, content=True)
