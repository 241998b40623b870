"""The syncs of one configuration as a handler: events go into queues, and what the configuration spawns comes out."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from instep.frontends.lsyncd import events
from instep.frontends.lsyncd.companions import Companions, Tunnel
from instep.frontends.lsyncd.cron import Schedule
from instep.frontends.lsyncd.include import include_list
from instep.frontends.lsyncd.log import Log
from instep.frontends.lsyncd.queue import Entry, Kind, Queue, Status
from instep.frontends.lsyncd.runtime import LuaFailure, Runtime
from instep.frontends.lsyncd.selection import Selection
from instep.frontends.lsyncd.status import Facts
from instep.frontends.lsyncd.status import report as status_report
from instep.linux.inotify import (
    IN_ATTRIB,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
)
from instep.model import EventReport, Interrupt, Program, ProgramEnd, RelPath, Work
from instep.ports import Place

FATAL: Final = 255
NEVER_STARTED: Final = 255
RETRY_MIN_S: Final = 1.0
RETRY_MAX_S: Final = 300.0
CLOCK_LOOK_S: Final = 60.0
"""The clock on the wall may be set, or the machine sleep: what is due by it is looked at again after this long."""
REMIND_S: Final = 60.0
KEPT_S: Final = 1.0
"""A configuration that leaves due events where they are is asked again after this long."""

_KINDS: Final = (
    (IN_ATTRIB, Kind.ATTRIB), (IN_CREATE | IN_MOVED_TO, Kind.CREATE), (IN_DELETE | IN_MOVED_FROM, Kind.DELETE),
)  # fmt: skip
MODES: Final = {
    b"CloseWrite": IN_CLOSE_WRITE,
    b"Modify": IN_MODIFY,
    b"CloseWrite or Modify": IN_CLOSE_WRITE | IN_MODIFY,
}


@dataclass(eq=False, slots=True)
class Sync:
    """One sync that the handler serves."""

    number: int
    config: Any
    """The Lua table."""
    source: bytes
    """Absolute, with a slash at the end."""
    selection: Selection
    queue: Queue = field(init=False)
    delay_s: float = 0.0
    delays_max: float = 1000
    processes_max: float = 1
    moves: bool = False
    name: bytes = b""
    running: int = 0
    current: Entry | None = None
    started: bool = False
    """The initial sync is done."""
    place: int = -1
    schedules: Sequence[Schedule] = ()
    """When all of it is brought over anew."""
    full_at_s: float | None = None
    """The next of these times, on the wall's clock."""
    tunnel: Tunnel | None = None
    """What must be up before anything is done."""


@dataclass(eq=False, slots=True)
class _Child:
    sync: Sync
    entries: Sequence[Entry]
    agent: Any
    binary: bytes
    began_s: float


_Act = Callable[[], object]
_Watched = tuple[_Act | None, _Act | None]
"""What is called when a descriptor can be read, and when it can be written."""


class Stopped(Exception):
    """A configuration has asked for the end."""


class SyncHandler:
    """See ``instep.ports.Handler``. Serves those syncs that are not left to mirrors."""

    def __init__(
        self,
        log: Log,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        free_port: Callable[[], int],
    ) -> None:
        """Begin without syncs.

        Args:
            log: where the configuration's messages go.
            clock: what ``now()`` answers; its times are those that are handed in.
            wall: seconds since the epoch, for the status file and schedules.
            free_port: a port that nobody listens on, for tunnels.
        """
        self._places: list[Place] = []
        self.exit_status: int | None = None
        self.syncs: list[Sync] = []
        self.insists = False
        self.onepass = False
        self.processes_max = float("inf")
        self.modified = IN_CLOSE_WRITE
        self.log = log
        self._clock = clock
        self._wall = wall
        self._runtime: Runtime | None = None
        self._entries: dict[int, tuple[Sync, Entry]] = {}
        self._held: set[int] = set()
        self._idents = itertools.count()
        self._children: dict[int, _Child] = {}
        self._numbers = itertools.count()
        self.companions = Companions(numbers=self._numbers, free_port=free_port)
        self._observed: dict[int, _Watched] = {}
        self._outbox: list[tuple[int, Program]] = []
        self._alarms: list[tuple[float, int, Callable[[], object]]] = []
        self._turn = 0
        self._kept_s: float | None = None
        self._stopping = False
        self._remind_s = 0.0
        self._now_s = 0.0
        self.output: bytes | None = None
        self.status_write: Callable[[bytes], None] | None = None
        self.status_every_s = 10.0
        self._status_at_s = 0.0
        self._changed = False

    # ---- the configuration's side ----

    def serve(self, runtime: Runtime, syncs: Iterable[Sync]) -> None:
        """Take over these syncs."""
        self._runtime = runtime
        for sync in syncs:
            sync.queue = Queue(collapse=_collapses(sync), idents=self._idents, on_gone=self._gone)
            sync.place = len(self._places)
            self._places.append(Place(sync.source.rstrip(b"/") or b"/", sync.selection.excludes))
            self.syncs.append(sync)

    @property
    def places(self) -> Sequence[Place]:
        """The sources."""
        return self._places

    def _is_over(self) -> bool:
        """Whether nothing more is to be started; any call into the configuration may make it so."""
        return self._stopping or self.exit_status is not None

    @property
    def has_calls(self) -> bool:
        """Whether the configuration wants to be called at some time, or when it is spoken to."""
        return bool(self._alarms or self._observed)

    @property
    def observed(self) -> Mapping[int, tuple[bool, bool]]:
        """The descriptors that the configuration watches: for reading, for writing."""
        return {fd: (ready is not None, writey is not None) for fd, (ready, writey) in self._observed.items()}

    def ready(self, fd: int, *, writable: bool) -> None:
        """A descriptor can be read or written: the configuration is told."""
        watched = self._observed.get(fd)
        act = None if watched is None else watched[writable]
        if act is not None and not self._is_over():
            self._call("call", act)

    def unwatchable(self, fd: int, reason: str) -> None:
        """A descriptor cannot be watched."""
        self._observed.pop(fd, None)
        self.log.say("Error", b"Cannot observe the file descriptor %d: %s" % (fd, reason.encode()))

    def primitives(self) -> dict[str, Callable[..., Any]]:
        """What Lua may ask of the entries and programs."""
        return {
            "all_waiting": self._all_waiting,
            "alarm": self._alarm,
            "batch": self._batch,
            "bring": self._bring,
            "changes": self._changes,
            "discard": self._discard,
            "entry": self._entry,
            "field": self._field,
            "hold": self._hold,
            "next_event": self._next_event,
            "observe": self._observe,
            "patterns": self._patterns,
            "processes": lambda: len(self._children),
            "spawn": self._spawn,
            "special": self._special,
            "terminate": self._terminate,
            "tunnel_values": self._tunnel_values,
        }

    def _sync(self, number: int) -> Sync:
        return next(sync for sync in self.syncs if sync.number == number)

    def _gone(self, entry: Entry) -> None:
        if self._entries.pop(entry.ident, None) is not None and entry.ident in self._held:
            self._held.discard(entry.ident)
            self._hook("gone", entry.ident)

    def _note(self, sync: Sync, kind: Kind, path: bytes, path2: bytes | None = None, *, due_s: float) -> list[Entry]:
        made = sync.queue.note(kind, path, path2, due_s=due_s)
        for entry in made:
            self._entries[entry.ident] = (sync, entry)
        return made

    def _all_waiting(self, idents: Any) -> bool:
        found = [self._entries.get(ident) for ident in idents.values()]
        # What waits for another of the same list goes with it.
        return all(each is not None and each[1].status is not Status.ACTIVE for each in found)

    def _alarm(self, at_s: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._alarms, (at_s, next(self._numbers), act))

    def _batch(self, number: int, test: Callable[[int], object] | None) -> Any:
        sync = self._sync(number)

        def verdict(entry: Entry) -> bool | None:
            if test is None:
                return True
            answer = test(entry.ident)
            return None if answer == b"break" else bool(answer)

        assert self._runtime is not None
        return self._runtime.list(entry.ident for entry in sync.queue.batch(verdict))

    def _bring(self, ident: int) -> None:
        sync, entry = self._entries[ident]
        assert entry.path2 is not None
        # Behind the move, which is about to be done with.
        for made in self._note(sync, Kind.CREATE, entry.path2, due_s=self._clock()):
            made.whole = True

    def _changes(self, number: int, until_move: bool | None) -> Any:  # noqa: FBT001  # Lua has no keywords
        def verdict(entry: Entry) -> bool | None:
            kind = entry.kind
            if until_move and kind is Kind.MOVE:
                return None
            return kind is not Kind.INIT and kind is not Kind.BLANKET and kind is not Kind.FULL

        assert self._runtime is not None
        return self._runtime.list(entry.ident for entry in self._sync(number).queue.batch(verdict))

    def _discard(self, ident: int) -> None:
        found = self._entries.get(ident)
        if found is not None and found[1].status is not Status.ACTIVE:
            found[0].queue.remove(found[1])

    def _entry(self, ident: int) -> tuple[bytes, bytes, bytes | None]:
        _, entry = self._entries[ident]
        return entry.kind.value, entry.path, entry.path2

    def _field(self, handle: int, name: bytes) -> events.Value | None:
        ident = handle if handle >= 0 else -1 - handle
        found = self._entries.get(ident)
        return None if found is None else events.value(found[1], name, destination=handle < 0)

    def _hold(self, ident: int) -> bool:
        """Lua keeps an object for an entry, until told that it is gone; whether that is a move."""
        self._held.add(ident)
        return self._entries[ident][1].kind is Kind.MOVE

    def _next_event(self, number: int) -> int | None:
        sync = self._sync(number)
        if sync.current is not None and sync.current.status is Status.WAIT:
            return sync.current.ident
        with contextlib.closing(self._due_in(sync, self._clock())) as due:
            entry = next(due, None)
        return None if entry is None else entry.ident

    def _observe(self, fd: int, ready: Callable[[], object] | None, writey: Callable[[], object] | None) -> None:
        if ready is None and writey is None:
            self._observed.pop(fd, None)
        else:
            self._observed[fd] = (ready, writey)

    def _patterns(self, idents: Any) -> Any:
        names: list[tuple[bytes, bool]] = []
        for ident in idents.values():
            _, entry = self._entries[ident]
            if entry.path2 is not None:
                names += ((entry.path, True), (entry.path2, False))
            else:
                names.append((entry.path, entry.kind is Kind.DELETE or entry.whole))
        assert self._runtime is not None
        return self._runtime.list(include_list(names))

    def _spawn(self, number: int, idents: Any, agent: Any, binary: bytes, words: Any, stdin: bytes | None) -> None:
        if self._stopping:
            self.log.say("Normal", b"ignored process spawning while fading")
            return
        sync = self._sync(number)
        entries = [self._entries[ident][1] for ident in idents.values()]
        for entry in entries:
            sync.queue.start(entry)
        argv = (binary, *words.values())
        if self.log.wants("Exec"):
            fed = () if stdin is None else (b"[<]", b"[" + stdin.replace(b"\0", b"\n") + b"]")
            self.log.say("Exec", b" ".join([binary, *fed, *(b"[" + word + b"]" for word in argv[1:])]))
        child = next(self._numbers)
        self._children[child] = _Child(sync, entries, agent, binary, self._now_s)
        sync.running += 1
        self._outbox.append((child, Program(argv, stdin=stdin, output=self.output)))

    def _special(self, number: int, kind: bytes, path: bytes) -> int:
        (entry,) = self._note(self._sync(number), Kind(kind), path, due_s=self._clock())
        return entry.ident

    def _terminate(self, code: object) -> None:
        self.exit_status = int(code) & 0xFF if isinstance(code, int | float) else 0
        raise Stopped

    def _tunnel_values(self, number: int) -> Any:
        assert self._runtime is not None
        tunnel = self._sync(number).tunnel
        return self._runtime.table({} if tunnel is None else tunnel.take(self._now_s))

    # ---- the daemon's side ----

    def started(self, now_s: float) -> None:
        """Every source is being watched: the initial syncs are due."""
        self._changed = True
        for sync in self.syncs:
            self._begin(sync, now_s)
            sync.full_at_s = _next_full(sync, self._wall())

    def note(self, place: int, report: EventReport, now_s: float) -> bool:
        """Take in one event; True: what is below this directory is to be told as well."""
        if not report.path:
            return False  # Of the source itself nothing is told.
        sync = self.syncs[place]
        self._changed = True
        excludes = sync.selection.excludes
        path = _named(report.path, is_dir=report.is_dir)
        due_s = now_s + sync.delay_s
        out = excludes(report.path, report.is_dir)
        old = report.moved_from
        if old is not None:
            return self._moved(sync, _named(old, is_dir=report.is_dir), path, excludes(old, report.is_dir), out, due_s)
        if out:
            return False
        mask = report.mask
        if mask & self.modified:
            self._note(sync, Kind.MODIFY, path, due_s=due_s)
        else:
            for bits, kind in _KINDS:
                if mask & bits:
                    self._note(sync, kind, path, due_s=due_s)
        return False

    def _moved(self, sync: Sync, old: bytes, new: bytes, old_out: bool, new_out: bool, due_s: float) -> bool:  # noqa: FBT001
        """A rename. Told as one where the configuration wants that and both ends count."""
        if old_out and new_out:
            return False
        if not old_out and not new_out and sync.moves:
            made = self._note(sync, Kind.MOVE, old, new, due_s=due_s)
            return new.endswith(b"/") and any(entry.kind is not Kind.MOVE for entry in made)
        if not old_out:
            self._note(sync, Kind.DELETE, old, due_s=due_s)
        if new_out:
            return False
        self._note(sync, Kind.CREATE, new, due_s=due_s)
        return new.endswith(b"/")

    def lost(self, place: int, now_s: float) -> None:
        """Events may be missing: the sync begins anew, and must not fail for that."""
        self.log.say("Normal", b"--- OVERFLOW in event queue ---")
        sync = self.syncs[place]
        self.insists = True
        sync.queue.clear()
        self._begin(sync, now_s)

    def appeared(self, place: int, path: RelPath, now_s: float) -> bool:  # noqa: ARG002  # the protocol's
        """What a new directory holds is told."""
        return True

    def due(self, now_s: float, *, drained: bool) -> Sequence[tuple[int, Work]]:  # noqa: ARG002  # the protocol's
        """Let the configuration act; the programs it wants to be run."""
        self._now_s = now_s
        if self._is_over():
            return self._winding_up(now_s)
        self._kept_s = None
        outbox: list[tuple[int, Work]] = list(self.companions.due(now_s, output=self.output))
        self._look_at_clock()
        while self._alarms and self._alarms[0][0] <= now_s and not self._is_over():
            self._call("call", heapq.heappop(self._alarms)[2])
        # Each turn another sync is first, so that none starves where processes are few.
        self._turn = (self._turn + 1) % max(1, len(self.syncs))
        for sync in (*self.syncs[self._turn :], *self.syncs[: self._turn]):
            if self._is_over():
                break
            self._act(sync, now_s)
        if self._changed and self.status_write is not None and now_s >= self._status_at_s:
            self._changed, self._status_at_s = False, now_s + self.status_every_s
            self.status_write(self._status())
        outbox += self._outbox
        self._outbox = []
        if self._is_over():
            outbox += self._winding_up(now_s)  # what was just begun is ended with the process
        return outbox

    def _winding_up(self, now_s: float) -> list[tuple[int, Work]]:
        """Once nothing runs that is waited for, tunnels need not stay; what is waited for long is said again."""
        if self._children and self.exit_status is None:
            if now_s >= self._remind_s:
                self._remind_s = now_s + REMIND_S
                self.log.say("Normal", b"waiting for %d more child processes." % len(self._children))
            return []
        return [(number, Interrupt(number, signal.SIGKILL)) for number in self.companions.running]

    def _look_at_clock(self) -> None:
        """Queue what is due by the clock on the wall, once however often it was missed."""
        for sync in self.syncs:
            if sync.full_at_s is None or sync.full_at_s > self._wall():
                continue
            sync.full_at_s = _next_full(sync, self._wall())
            if not any(entry.kind is Kind.FULL and entry.status is not Status.ACTIVE for entry in sync.queue):
                self.log.say("Info", b"Crontab triggered full sync")
                self._note(sync, Kind.FULL, b"/", due_s=self._now_s)
                self._changed = True

    def _status(self) -> bytes:
        children = [
            (child.sync.number, self._wall() - (self._now_s - child.began_s)) for child in self._children.values()
        ]
        tunnels = [(tunnel.name, tunnel.is_up(self._now_s)) for tunnel in self.companions.tunnels]
        about = [(sync.name, sync.source, sync.queue, sync.selection) for sync in self.syncs]
        return status_report(about, Facts(at_s=self._wall(), children=children, tunnels=tunnels))

    def finished(self, number: int, end: ProgramEnd, now_s: float) -> None:
        """A program ended: what it was for is done, or due again."""
        self._changed = True
        companion = self.companions.ended(number, now_s)
        if companion is not None:
            if not self._is_over():
                said = b"ended with %d" % end.status if not end.trouble else end.trouble.encode()
                self.log.say("Warn", b"what is kept running has " + said + b": " + b" ".join(companion.words))
            return
        child = self._children.pop(number)
        sync = child.sync
        sync.running -= 1
        code = end.status
        if end.trouble:
            self.log.say("Error", b"Failed executing [ " + child.binary + b" ]! " + end.trouble.encode())
            code = NEVER_STARTED
        answer = self._call("collect", sync.number, child.agent, code)
        if answer == b"again":
            for entry in child.entries:
                pause_s = min(RETRY_MAX_S, max(sync.delay_s, RETRY_MIN_S) * 2.0 ** min(entry.tries, 30))
                sync.queue.again(entry, now_s + pause_s)
            return
        if answer == b"die":
            self.log.say("Error", b"Critical exitcode.")
            self.exit_status = FATAL
            return
        for entry in child.entries:
            self._done(sync, entry)

    def wake_s(self) -> float | None:
        """When the next entry or alarm is due."""
        times = [self._alarms[0][0]] if self._alarms else []
        if self._kept_s is not None:
            times.append(self._kept_s)
        if self._changed and self.status_write is not None:
            times.append(self._status_at_s)
        if self._stopping:
            return self._remind_s if self._children else None
        if (companion_s := self.companions.wake_s(self._now_s)) is not None:
            times.append(companion_s)
        fulls = [sync.full_at_s for sync in self.syncs if sync.full_at_s is not None]
        if fulls:
            times.append(self._now_s + min(CLOCK_LOOK_S, max(0.001, min(fulls) - self._wall())))
        for sync in self.syncs:
            due_s = sync.queue.due_s()
            if due_s is not None and not self._is_full(sync) and due_s > self._now_s:
                times.append(due_s)
        return min(times, default=None)

    def stop(self) -> None:
        """Start nothing more."""
        self._stopping = True
        self._remind_s = self._now_s

    def reload(self) -> None:
        """A hangup ends it: the configuration is read anew by another."""

    def log_status(self) -> None:
        """Nothing asks for it: lsyncd has no signal for that."""

    # ---- acting ----

    def _begin(self, sync: Sync, now_s: float) -> None:
        self._note(sync, Kind.INIT, b"", due_s=now_s)

    def _act(self, sync: Sync, now_s: float) -> None:
        if sync.tunnel is not None and not sync.tunnel.is_up(now_s):
            return
        with contextlib.closing(self._due_in(sync, now_s)) as due:
            for entry in due:
                if self._is_full(sync) or self._is_over():
                    return
                if not self._waits(entry):
                    continue
                sync.current = entry
                try:
                    self._act_on(sync, entry)
                finally:
                    sync.current = None
                if self._waits(entry):
                    self._kept_s = now_s + KEPT_S

    def _waits(self, entry: Entry) -> bool:
        return entry.ident in self._entries and entry.status is Status.WAIT

    def _act_on(self, sync: Sync, entry: Entry) -> None:
        if entry.kind is Kind.INIT:
            if not sync.config[b"init"]:
                self._done(sync, entry)
                return
            self._call("init", sync.number, entry.ident)
            if entry.ident not in self._entries:
                self._done(sync, entry)
        elif entry.kind is Kind.FULL:
            self._call("full", sync.number, entry.ident)
        else:
            self._call("action", sync.number)

    def _due_in(self, sync: Sync, now_s: float) -> Any:
        return sync.queue.waiting(now_s, hurried=len(sync.queue) >= sync.delays_max)

    def _is_full(self, sync: Sync) -> bool:
        return sync.running >= sync.processes_max or len(self._children) >= self.processes_max

    def _done(self, sync: Sync, entry: Entry) -> None:
        sync.queue.remove(entry)
        if entry.kind is Kind.INIT:
            sync.started = True
            if self.onepass and all(each.started for each in self.syncs):
                self.exit_status = 0

    def _call(self, hook: str, *arguments: object) -> Any:
        try:
            return self._hook(hook, *arguments)
        except Stopped:
            return None
        except LuaFailure as failure:
            if self.exit_status is None:  # else it is how terminate() comes back
                self.log.say("Error", b"in Lua: " + failure.message)
                for number, line in enumerate(failure.trace.split(b"\n")[2:], 1):
                    self.log.say("Error", b"Backtrace %d :%s" % (number, line.strip()))
                self.exit_status = FATAL
            return None

    def _hook(self, hook: str, *arguments: object) -> Any:
        assert self._runtime is not None
        return self._runtime.call(hook, *arguments)


def _next_full(sync: Sync, wall_s: float) -> float | None:
    return min((schedule.after(wall_s) for schedule in sync.schedules), default=None)


def _named(path: RelPath, *, is_dir: bool) -> bytes:
    return b"/" + path + (b"/" if is_dir and path else b"")


def _collapses(sync: Sync) -> bool:
    return bool(sync.config[b"collapse"])
