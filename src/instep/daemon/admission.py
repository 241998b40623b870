"""What of the monitor's reports concerns the targets: the filter's verdict, and what excluded names leave behind.

A name that is excluded has a directory that may not be, and whose times change when the name comes or goes. That is
noted in the place of the name's own report, before those that follow it: a rename of the directory must find it noted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from instep.core.filters import Filter
from instep.linux.openat import open_directory
from instep.model import Report
from instep.paths import RelPath, Scope

REMEMBERED_MAX = 10_000
"""So many directories with excluded names are remembered with their times; then it begins anew."""


class Admission:
    """Asked for every report while there are rules; lives in the loop."""

    def __init__(self, source: int, filters: Filter) -> None:
        """``source``: a descriptor of the source's root, which stays the caller's."""
        self._source = source
        self._excludes = filters.excludes
        self._seen: dict[bytes, tuple[int, int]] = {}

    def admit(self, report: Report) -> Sequence[Report]:
        """What is to be noted of it: of a rename with one end outside the filter only the other end."""
        path, old, is_dir = report.path, report.moved_from, report.is_dir
        out = self._excludes(path, is_dir)
        if old is None:
            return (report,) if not out or not path else self._around(path)
        old_out = self._excludes(old, is_dir)
        if not out and not old_out:
            return (report,)
        if out and old_out:
            return (*self._around(old), *self._around(path))
        inside, outside = (old, path) if out else (path, old)
        return (*self._around(outside), Report(inside, Scope.TREE, content=True, is_dir=is_dir))

    def _around(self, path: RelPath) -> Sequence[Report]:
        """The directory of an excluded name, if its own times have changed since it was last asked for.

        Some 10 us, so that a file that is excluded and written to all the time costs no more than that.
        """
        parent = RelPath(path.rpartition(b"/")[0])
        if self._excludes(parent, True):
            return ()
        seen = self._seen
        try:
            fd = open_directory(self._source, parent)
        except OSError:
            seen.pop(parent, None)  # Gone, or renamed: then it is another name's time that is to be brought over.
        else:
            try:
                info = os.fstat(fd)
            finally:
                os.close(fd)
            one = (info.st_ino, info.st_mtime_ns)
            if seen.get(parent) == one:
                return ()
            if len(seen) >= REMEMBERED_MAX:
                seen.clear()
            seen[parent] = one
        return (Report(parent, Scope.ENTRY, content=False, is_dir=True),)
