"""What of the monitor's reports concerns the targets: the filter's verdict, and what excluded names leave behind.

A name that is excluded has a directory that may not be, and whose times change when the name comes or goes.
"""

from __future__ import annotations

import os

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
        self._around: set[bytes] = set()
        self._times_ns: dict[bytes, int] = {}

    def admit(self, report: Report) -> Report | None:
        """What is to be noted of it: of a rename with one end outside the filter only the other end."""
        excludes = self._excludes
        path, old, is_dir = report.path, report.moved_from, report.is_dir
        out = excludes(path, is_dir)
        if old is None:
            if not out or not path:
                return report
            self._around.add(path.rpartition(b"/")[0])
            return None
        old_out = excludes(old, is_dir)
        if not out and not old_out:
            return report
        self._around |= {end.rpartition(b"/")[0] for end, is_out in ((path, out), (old, old_out)) if is_out}
        if out and old_out:
            return None
        return Report(old if out else path, Scope.TREE, content=True, is_dir=is_dir)

    def around(self) -> list[Report]:
        """The directories around the excluded names that were reported since, as far as their own times have changed.

        Some 10 us for each, so that a file that is excluded and written to all the time costs no more than that.
        """
        if not self._around:
            return []
        around, self._around = self._around, set()
        times_ns = self._times_ns
        if len(times_ns) > REMEMBERED_MAX:
            times_ns.clear()
        found: list[Report] = []
        for path in around:
            if self._excludes(RelPath(path), True):
                continue
            try:
                fd = open_directory(self._source, path)
            except OSError:
                times_ns.pop(path, None)  # It has a report of its own, or the one above it has.
                continue
            try:
                time_ns = os.fstat(fd).st_mtime_ns
            finally:
                os.close(fd)
            if times_ns.get(path) != time_ns:
                times_ns[path] = time_ns
                found.append(Report(RelPath(path), Scope.ENTRY, content=False, is_dir=True))
        return found
