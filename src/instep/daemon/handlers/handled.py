"""Drives a handler: events of its places in, work out."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterator

from instep.daemon.handlers.sight import OwnSight, Sight
from instep.daemon.handlers.workshop import Workshop
from instep.linux.inotify import IN_CREATE, IN_MOVED_FROM, IN_MOVED_TO
from instep.logs import fields
from instep.model import EventReport, Interrupt, ProgramEnd, Report
from instep.paths import ROOT, TEMPORARY_PREFIX, RelPath, Scope, is_temporary, is_within_temporary
from instep.ports import Handler, Place

log = logging.getLogger(__name__)

READS_PER_TURN_MAX = 8
GATHER_S = 0.002
"""Acting on a file's creation before it is written costs a second program, and twice the time until all of it is there
(measured: 96 ms instead of 50 with rsync). Writing a small file takes a few tens of microseconds."""


class Handled:
    """One handler with its monitors and running programs; a unit of the process (``daemon.supervisor.Unit``)."""

    def __init__(
        self,
        handler: Handler,
        workshop: Workshop,
        *,
        see: Callable[[Place], Sight] = OwnSight,
        ready: Callable[[], None] | None = None,
    ) -> None:
        """Neither is started here.

        Args:
            handler: what decides.
            workshop: where work is done.
            see: how a place is watched and looked at.
            ready: called when everything is watched.
        """
        self._handler = handler
        self._workshop = workshop
        self._see = see
        self._ready = ready
        self._sights: list[Sight] = []
        self._readers: list[int] = []
        self._armed: set[int] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._gathering: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[int] | None = None
        self._stopping = False
        self._just_made = False
        self._clock = time.monotonic

    # ---- life ----

    async def run(self) -> int:
        """Handle events until stopped or until the handler wants to end; its exit status.

        Raises:
            OperatorError: a place cannot be watched.
        """
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        try:
            await self._workshop.open(lambda: self._finish(1))
            for place in self._handler.places:
                sight = self._see(place)
                self._sights.append(sight)
                sight.open()
            for number, sight in enumerate(self._sights):
                self._readers.append(sight.monitor.fileno())
                loop.add_reader(self._readers[-1], self._turn, number)
            if self._ready is not None:
                self._ready()
            self._handler.started(self._clock())
            self._act()
            # What lives now lives on: the collector need not walk it, least of all in the middle of a flood.
            gc.collect()
            gc.freeze()
            return await self._ended
        finally:
            self._close()
            gc.unfreeze()  # After a hangup another takes this one's place.
            await self._workshop.close()

    def stop(self) -> None:
        """Let the handler wind up; end when it wants nothing more, and what runs has ended."""
        self._stopping = True
        self._handler.stop()
        self._act()

    def end(self) -> None:
        """There is nothing to cut short: what runs is waited for, however long it takes."""

    def poke(self) -> None:
        """The handler was told something by its front end: see what it wants now."""
        self._act()

    def crashed(self) -> None:
        """An event may have been dropped half-way."""
        for number in range(len(self._sights)):
            self._handler.lost(number, self._clock())
        self._act()

    def reload(self) -> None:
        """What may be read again is the handler's to know."""
        self._handler.reload()
        self._act()

    def log_status(self) -> None:
        """The handler's own report."""
        self._handler.log_status()

    def resync(self) -> None:
        """Treat everything as if events had been lost."""
        self.crashed()

    def confirm(self) -> None:
        """Nothing is held: programs do what they do."""

    def _close(self) -> None:
        loop = asyncio.get_running_loop()
        for timer in (self._timer, self._gathering):
            if timer is not None:
                timer.cancel()
        while self._readers:
            loop.remove_reader(self._readers.pop())
        while self._sights:
            self._sights.pop().close()
        for task in self._running:
            task.cancel()

    def _finish(self, status: int) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(status)

    # ---- events in ----

    def _turn(self, number: int) -> None:
        """Take in what has come, and act; a moment later where a file was just made, for it is written in one go."""
        self._read(number)
        if self._gathering is not None:
            return
        if self._just_made:
            self._gathering = asyncio.get_running_loop().call_later(GATHER_S, self._gathered)
        else:
            self._act(read=number)

    def _gathered(self) -> None:
        self._gathering = None
        self._act()

    def _read(self, number: int) -> None:
        monitor = self._sights[number].monitor
        note = self._handler.note
        for _ in range(READS_PER_TURN_MAX):
            reports = monitor.read()
            if not reports:
                return
            now_s = self._clock()
            last: Report | None = None
            for report in reports:
                if type(report) is EventReport and report.moved_from is None and report.path.find(TEMPORARY_PREFIX) < 0:
                    # As nearly all of them are.
                    last = report
                    if note(number, report, now_s):
                        for found in self._found(number, report):
                            note(number, found, now_s)
                else:
                    seen = _without_temporaries(report)
                    if seen is not None:
                        self._note(number, seen, now_s)
                        last = seen
            if isinstance(last, EventReport):
                self._just_made = bool(last.mask & IN_CREATE) and not last.is_dir
            if monitor.drained:
                return

    def _note(self, number: int, report: Report, now_s: float) -> None:
        if isinstance(report, EventReport):
            if self._handler.note(number, report, now_s):
                for found in self._found(number, report):
                    self._handler.note(number, found, now_s)
        elif report.path == ROOT and report.scope is Scope.TREE:
            # The first one says that everything is watched; any other that precision was lost altogether.
            if number not in self._armed:
                self._armed.add(number)
            elif self._is_there(number):
                self._handler.lost(number, now_s)
        elif self._handler.appeared(number, report.path, now_s):
            for found in self._found(number, report):
                self._handler.note(number, found, now_s)

    def _is_there(self, number: int) -> bool:
        if self._sights[number].is_there():
            return True
        log.error(
            "source-away",
            extra=fields(
                source=self._handler.places[number].root,
                now="nothing is run for it any more",
                fix="mount or restore it, then send SIGHUP",
            ),
        )
        return False

    def _found(self, number: int, report: Report) -> Iterator[EventReport]:
        """What is there now, as if it had just been made; the directory itself has been reported."""
        ignore = self._handler.places[number].ignore
        todo = [report.path]
        while todo:
            here = todo.pop()
            below = []
            for name, is_dir in self._sights[number].listed(here):
                if is_temporary(name):
                    continue
                path = RelPath(os.path.join(here, name))
                event = EventReport(path, Scope.ENTRY, is_dir=is_dir)
                event.mask = IN_CREATE
                yield event
                if is_dir and not ignore(path, True):
                    below.append(path)
            todo += reversed(below)

    # ---- work out ----

    def _act(self, read: int = -1) -> None:
        """Start what is due, and see when to look again; ``read``: the place whose monitor was read just now."""
        if self._ended is None or self._ended.done():
            return
        handler = self._handler
        for number, sight in enumerate(self._sights):
            if number != read or not sight.monitor.drained:
                self._read(number)
        now_s = self._clock()
        for number, work in handler.due(now_s, drained=all(sight.monitor.drained for sight in self._sights)):
            if isinstance(work, Interrupt):
                self._workshop.interrupt(work)
            else:
                self._running.add(
                    asyncio.get_running_loop().create_task(self._end(number, self._workshop.begin(number, work)))
                )
        if handler.exit_status is not None:
            self._finish(handler.exit_status)
        elif self._stopping and not self._running:
            self._finish(0)
        else:
            self._sleep(now_s)

    def _sleep(self, now_s: float) -> None:
        wakes = [wake_s + now_s for sight in self._sights if (wake_s := sight.monitor.wake_s()) is not None]
        wake_s = self._handler.wake_s()
        if wake_s is not None:
            wakes.append(wake_s)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wakes:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, min(wakes) - now_s), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._act()

    async def _end(self, number: int, work: Coroutine[None, None, ProgramEnd]) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            try:
                end = await work
            finally:
                self._running.discard(task)
            self._handler.finished(number, end, self._clock())
            self._act()
        except Exception:
            # A defect must not be swallowed with the task: it ends what cannot be trusted any more.
            log.exception("handler-crashed", extra=fields(now="this handler ends", fix="please report it"))
            self._finish(1)


def _without_temporaries(report: Report) -> Report | None:
    """What is left to tell once the names that another instep writes under are left out."""
    old = report.moved_from
    if report.path.find(TEMPORARY_PREFIX) < 0 and (old is None or old.find(TEMPORARY_PREFIX) < 0):
        return report
    hides_new = is_within_temporary(report.path)
    if old is None or not isinstance(report, EventReport):
        return None if hides_new else report
    hides_old = is_within_temporary(old)
    if hides_new == hides_old:
        return None if hides_new else report
    mask, path = (IN_MOVED_FROM, old) if hides_new else (IN_MOVED_TO, report.path)
    left = EventReport(path, Scope.ENTRY, is_dir=report.is_dir)
    left.mask = mask
    return left
