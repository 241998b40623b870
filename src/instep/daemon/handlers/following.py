"""A place whose links to directories are looked through: the directories' events come under the links' paths."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from instep.daemon.handlers.followed import Followed, Looked, Part, joined
from instep.daemon.handlers.sight import OwnSight, Sight
from instep.linux.inotify import IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO
from instep.linux.openat import still_names
from instep.model import EventReport, MonitorStatus, Report
from instep.monitors.inotify_events import event
from instep.paths import ROOT, RelPath, Scope
from instep.ports import Following, Monitor, Place

LOOK_S: Final = 10.0
"""What a link leads to may be made, replaced or removed without any event: it is looked at again after this long."""

_COME = IN_CREATE | IN_MOVED_TO
_GONE = IN_DELETE | IN_MOVED_FROM


def sight_of(place: Place) -> Sight:
    """The sight that a place asks for, with the rights of this process."""
    return OwnSight(place) if place.following is None else FollowingSight(place, place.following)


class FollowingSight:
    """See ``Sight``. A link that is followed is a directory to whoever looks."""

    def __init__(self, place: Place, following: Following) -> None:
        """Nothing is opened."""
        self._place = place
        self._followed = Followed(place, following)
        self.monitor: Monitor = FollowingMonitor(self._followed)

    def open(self) -> None:
        """See ``Sight``."""
        self.monitor.start()

    def is_there(self) -> bool:
        """As above."""
        return still_names(self._place.root, self._followed.parts[ROOT].sight.root)

    def listed(self, path: RelPath) -> Sequence[tuple[bytes, bool]]:
        """As above."""
        return self._followed.listed(path)

    def close(self) -> None:
        """As above."""
        self.monitor.close()


class FollowingMonitor:
    """See ``ports.Monitor``; but links that are followed are told as directories.

    A link that comes, or leads elsewhere, is told as a directory that comes, and then as TREE; one that goes, or leads
    nowhere, as a directory that goes.
    """

    name = "inotify"

    def __init__(self, followed: Followed) -> None:
        self.drained = False
        self._followed = followed
        self._look_s = 0.0

    def start(self) -> None:
        """Watch everything, then return; see ``Monitor``."""
        self._followed.open()
        self._look_s = time.monotonic() + LOOK_S

    def fileno(self) -> int:
        """As above."""
        assert self._followed.epoll is not None
        return self._followed.epoll.fileno()

    def read(self) -> Sequence[Report]:
        """As above."""
        out: list[Report] = []
        parts = self._followed.parts
        epoll = self._followed.epoll
        assert epoll is not None
        ready = {fd for fd, _ in epoll.poll(0, len(parts))}
        self.drained = True
        for part in list(parts.values()):
            if not part.is_open:
                continue  # Gone with another of this round.
            monitor = part.sight.monitor
            if part.is_new or monitor.fileno() in ready or monitor.wake_s() is not None:
                part.is_new = False
                for report in monitor.read():
                    self._take(part, report, out)
                self.drained = self.drained and monitor.drained
        if time.monotonic() >= self._look_s:
            for path in self._followed.links():
                self._look_again(path, out)
            self._look_s = time.monotonic() + LOOK_S
        if any(part.is_new for part in parts.values()):
            self.drained = False
        return out

    def wake_s(self) -> float | None:
        """As above."""
        parts = self._followed.parts.values()
        if any(part.is_new for part in parts):
            return 0.0
        wakes = [wake_s for part in parts if (wake_s := part.sight.monitor.wake_s()) is not None]
        if self._followed.links():
            wakes.append(max(0.0, self._look_s - time.monotonic()))
        return min(wakes, default=None)

    def status(self) -> MonitorStatus:
        """As above, of all parts together."""
        all_of_them = [part.sight.monitor.status() for part in self._followed.parts.values()]
        return MonitorStatus(
            watches=sum(each.watches for each in all_of_them),
            events=sum(each.events for each in all_of_them),
            overflows=sum(each.overflows for each in all_of_them),
            trouble=tuple(trouble for each in all_of_them for trouble in each.trouble),
        )

    def close(self) -> None:
        """As above."""
        self._followed.close()

    # ---- what the parts have to say ----

    def _take(self, part: Part, report: Report, out: list[Report]) -> None:
        if not part.is_open:
            return  # What was seen behind a link that has gone is not about its path any more.
        if not report.path and not isinstance(report, EventReport):
            self._take_whole(part, report, out)
            return
        path = joined(part.path, report.path)
        old = None if report.moved_from is None else joined(part.path, report.moved_from)
        if not isinstance(report, EventReport):
            self._followed.scan(path)
            out.append(report._replace(path=path))
        elif not report.is_dir and (old is not None or report.mask & (_COME | _GONE)):
            self._take_name(path, old, report.mask, out)
        elif report.is_dir or path not in self._followed.parts:  # Of a link itself rsync brings nothing over.
            if old is not None:
                self._followed.moved(old, path)
            elif report.is_dir and report.mask & _GONE:
                self._followed.drop(path)
            out.append(event(path, report.mask, report.is_dir, old))

    def _take_whole(self, part: Part, report: Report, out: list[Report]) -> None:
        """All of one part: it is watched now, or precision was lost, or it is not where it was."""
        if not part.is_armed:
            part.is_armed = True
            if not part.path:
                out.append(report)
            return
        if part.path:
            self._look_again(part.path, out)
            if not part.is_open:
                return
        for path in self._followed.links():
            self._followed.look(path)
        self._followed.scan(ROOT)
        out.append(Report(ROOT, Scope.TREE, is_dir=True))

    def _take_name(self, path: RelPath, old: RelPath | None, mask: int, out: list[Report]) -> None:
        """Something that the kernel called no directory came or went: a link, maybe."""
        was_old = old is not None and old in self._followed.parts
        if was_old:
            assert old is not None
            self._followed.drop(old)
        looked = self._followed.look(path)
        if not (was_old or looked.was or looked.now):
            out.append(event(path, mask, False, old))
            return
        if old is not None:
            out.append(event(old, IN_MOVED_FROM, was_old))
        self._tell_gone(path, looked, out, replaces=mask != IN_CREATE)
        if looked.fresh or (looked.now and mask & _COME):
            self._tell_come(path, out)
        elif mask & _COME:
            out.append(event(path, IN_CREATE, False))

    def _look_again(self, path: RelPath, out: list[Report]) -> None:
        looked = self._followed.look(path)
        self._tell_gone(path, looked, out, replaces=True)
        if looked.fresh:
            self._tell_come(path, out)
        elif looked.was and self._followed.is_idle(path):
            out.append(event(path, IN_CREATE, False))  # It still is something, if only a link.

    def _tell_gone(self, path: RelPath, looked: Looked, out: list[Report], *, replaces: bool) -> None:
        """Tell what had to go; ``replaces``: what was no directory may have gone without an event of its own."""
        if looked.was and (looked.fresh or not looked.now):
            out.append(event(path, IN_DELETE, True))
        elif looked.fresh and replaces:
            out.append(event(path, IN_DELETE, False))

    def _tell_come(self, path: RelPath, out: list[Report]) -> None:
        self._followed.scan(path)
        out += (event(path, IN_CREATE, True), Report(path, Scope.TREE, is_dir=True))
