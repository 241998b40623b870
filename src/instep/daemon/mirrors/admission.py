"""What of the monitor's reports concerns the targets: the filter's verdict, and what excluded names leave behind.

A name that is excluded has a directory that may not be, and whose times change when the name comes or goes. That is
noted in the place of the name's own report, before those that follow it: a rename of the directory must find it noted.
And it may be one of several names of a file, of which others are not excluded (``aliases``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from instep.core.filters import Filter
from instep.daemon.mirrors.aliases import Aliases
from instep.engines.hardlinks import may_be_joined
from instep.linux.openat import open_directory
from instep.model import Report
from instep.paths import RelPath, Scope

REMEMBERED_MAX = 10_000
"""So many directories with excluded names are remembered with their times; then it begins anew."""


class Admission:
    """Asked for every report while there are rules; lives in the loop."""

    def __init__(self, source: int, filters: Filter, aliases: Aliases) -> None:
        """``source``: a descriptor of the source's root, which stays the caller's."""
        self._source = source
        self._aliases = aliases
        self._excludes = filters.excludes
        self._seen: dict[bytes, tuple[int, int]] = {}

    def admit(self, report: Report) -> Sequence[Report]:
        """What is to be noted of it: of a rename with one end outside the filter only the other end."""
        path, old, is_dir = report.path, report.moved_from, report.is_dir
        out = self._excludes(path, is_dir)
        if old is None:
            return (report,) if not out or not path else self._around(path, is_dir=is_dir)
        if is_dir:
            self._aliases.moved()
        old_out = self._excludes(old, is_dir)
        if not out and not old_out:
            return (report,)
        if out and old_out:
            return (*self._around(old, is_dir=is_dir), *self._around(path, is_dir=is_dir))
        inside, outside = (old, path) if out else (path, old)
        return (*self._around(outside, is_dir=is_dir), Report(inside, Scope.TREE, content=True, is_dir=is_dir))

    def _around(self, path: RelPath, *, is_dir: bool) -> Sequence[Report]:
        """What to note in the place of an excluded name: its directory, and other names of the file.

        The directory only if its own times have changed since it was last asked for. Some 12 us, so that a file that
        is excluded and written to all the time costs no more than that.
        """
        above, _, name = path.rpartition(b"/")
        parent = RelPath(above)
        if self._excludes(parent, True):
            return ()
        seen = self._seen
        others: Sequence[Report] = ()
        try:
            fd = open_directory(self._source, parent)
        except OSError:
            seen.pop(parent, None)  # Gone, or renamed: then it is another name's time that is to be brought over.
        else:
            try:
                info = os.fstat(fd)
                if not is_dir:
                    others = self._others(path, name, fd)
            finally:
                os.close(fd)
            one = (info.st_ino, info.st_mtime_ns)
            if seen.get(parent) == one:
                return others
            if len(seen) >= REMEMBERED_MAX:
                seen.clear()
            seen[parent] = one
        return (*others, Report(parent, Scope.ENTRY, content=False, is_dir=True))

    def _others(self, path: RelPath, name: bytes, directory: int) -> Sequence[Report]:
        """The other names of the file that an excluded name is of, as far as they are known now."""
        try:
            info = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except OSError:
            info = None
        if info is None or info.st_nlink < 2 or not may_be_joined(info.st_mode):
            return self._aliases.gone(path)
        return self._aliases.touched(path, (info.st_dev, info.st_ino))
