"""The syncs of one configuration as a handler: events go into queues, and what the configuration spawns comes out."""

from __future__ import annotations

import contextlib
import functools
import heapq
import itertools
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from instep.frontends.lsyncd.companions import Companions
from instep.frontends.lsyncd.entries import Entries, due_in
from instep.frontends.lsyncd.links import following
from instep.frontends.lsyncd.log import Log
from instep.frontends.lsyncd.queue import Entry, Kind, Status
from instep.frontends.lsyncd.runtime import LuaFailure, Runtime
from instep.frontends.lsyncd.status import About, Facts, of_mirror, of_steps
from instep.frontends.lsyncd.status import report as status_report
from instep.frontends.lsyncd.syncs import Sync
from instep.linux.inotify import (
    IN_ATTRIB,
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
)
from instep.model import EventReport, Interrupt, Program, ProgramEnd, Work
from instep.paths import RelPath
from instep.ports import Beside, Place

FATAL: Final = 255
NEVER_STARTED: Final = 255
RETRY_MIN_S: Final = 1.0
RETRY_MAX_S: Final = 300.0
ENTRIES_MAX: Final = 1_000_000
"""Of one sync; past it they are forgotten, and all is brought over anew. About 0.6 GB (0.5 to 0.6 KB each)."""
CLOCK_LOOK_S: Final = 60.0
"""The clock on the wall may be set, or the machine sleep: what is due by it is looked at again after this long."""
REMIND_S: Final = 60.0
AGAIN_S: Final = 0.1
LOOK_MIN_S: Final = 1.0
"""Mirrors are looked at for the status file no more often."""
KEPT_S: Final = 1.0
"""A configuration that leaves due events where they are is asked again after this long."""

_KINDS: Final = (
    (IN_ATTRIB, Kind.ATTRIB), (IN_CREATE | IN_MOVED_TO, Kind.CREATE), (IN_DELETE | IN_MOVED_FROM, Kind.DELETE),
)  # fmt: skip
_INIT: Final = Kind.INIT
MODES: Final = {
    b"CloseWrite": IN_CLOSE_WRITE,
    b"Modify": IN_MODIFY,
    b"CloseWrite or Modify": IN_CLOSE_WRITE | IN_MODIFY,
}


@dataclass(eq=False, slots=True)
class _Child:
    sync: Sync
    entries: list[Entry]
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
        self.insists = False
        self.onepass = False
        self.processes_max = float("inf")
        self.modified = IN_CLOSE_WRITE
        self.log = log
        self._clock = clock
        self._wall = wall
        self._runtime: Runtime | None = None
        self._live = Entries(log, clock=clock)
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
        self.left: Sequence[Sync] = ()
        """The syncs that are left to mirrors, in the order of these."""
        self._mirrors: Sequence[Beside] = ()
        self._told: Sequence[About] = ()
        self._kinds: dict[int, tuple[Kind, ...]] = {}

    # ---- the configuration's side ----

    def serve(self, runtime: Runtime, syncs: Iterable[Sync]) -> None:
        """Take over these syncs."""
        self._runtime = runtime
        self._kinds.clear()
        self._live.serve(runtime, syncs)
        self._places += [
            Place(sync.source.rstrip(b"/") or b"/", sync.selection.excludes, following=following(sync.config, runtime))
            for sync in self.syncs
        ]

    @property
    def syncs(self) -> Sequence[Sync]:
        """Those that are served; each in the place of its index."""
        return self._live.syncs

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
        """What Lua may ask for."""
        return {
            **self._live.primitives(),
            "alarm": self._alarm,
            "observe": self._observe,
            "processes": lambda: len(self._children),
            "spawn": self._spawn,
            "terminate": self._terminate,
            "tunnel_values": self._tunnel_values,
        }

    def _alarm(self, at_s: float, act: Callable[[], object]) -> None:
        heapq.heappush(self._alarms, (at_s, next(self._numbers), act))

    def _observe(self, fd: int, ready: Callable[[], object] | None, writey: Callable[[], object] | None) -> None:
        if ready is None and writey is None:
            self._observed.pop(fd, None)
        else:
            self._observed[fd] = (ready, writey)

    def _spawn(self, number: int, entries: list[Entry], agent: Any, words: Any, stdin: bytes | None) -> None:
        if self._stopping:
            self.log.say("Normal", b"ignored process spawning while fading")
            return
        sync = self._live.sync(number)
        sync.queue.start(*entries)
        argv = tuple(words.values())
        if self.log.wants("Exec"):
            fed = () if stdin is None else (b"[<]", b"[" + stdin.replace(b"\0", b"\n") + b"]")
            self.log.say("Exec", b" ".join([argv[0], *fed, *(b"[" + word + b"]" for word in argv[1:])]))
        child = next(self._numbers)
        self._children[child] = _Child(sync, entries, agent, argv[0], self._now_s)
        sync.running += 1
        self._outbox.append((child, Program(argv, stdin=stdin, output=self.output)))

    def _terminate(self, code: object) -> None:
        self.exit_status = int(code) & 0xFF if isinstance(code, int | float) else 0
        raise Stopped

    def _tunnel_values(self, number: int) -> Any:
        assert self._runtime is not None
        tunnel = self._live.sync(number).tunnel
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
        path, old, is_dir = report.path, report.moved_from, report.is_dir
        mask = report.mask
        kinds = self._kinds.get(mask)
        if kinds is None:
            kinds = self._kinds[mask] = _kinds(mask, self.modified)
        if not path or (not kinds and old is None):
            return False  # Of the source itself nothing is told.
        sync = self._live.syncs[place]
        self._changed = True
        if len(sync.queue) >= ENTRIES_MAX:
            self.log.say("Warn", b"more than %d events wait: beginning anew with %s" % (ENTRIES_MAX, sync.source))
            self._anew(sync, now_s)
            return False
        due_s = now_s + sync.delay_s
        selection = sync.selection
        out = selection.excludes(path, is_dir) if selection.says_something else False
        named = b"/" + path + b"/" if is_dir else b"/" + path
        if old is not None:
            old_out = selection.excludes(old, is_dir) if selection.says_something else False
            return self._moved(sync, b"/" + old + (b"/" if is_dir else b""), named, old_out, out, due_s)
        if out:
            return False
        note = functools.partial(self._live.note, sync) if self._live.tells else sync.queue.note
        for kind in kinds:
            note(kind, named, due_s=due_s)
        return False

    def _moved(self, sync: Sync, old: bytes, new: bytes, old_out: bool, new_out: bool, due_s: float) -> bool:  # noqa: FBT001
        """A rename. Told as one where the configuration wants that and both ends count."""
        if old_out and new_out:
            return False
        if not old_out and not new_out and sync.moves:
            made = self._live.note(sync, Kind.MOVE, old, new, due_s=due_s)
            return new.endswith(b"/") and any(entry.kind is not Kind.MOVE for entry in made)
        if not old_out:
            self._live.note(sync, Kind.DELETE, old, due_s=due_s)
        if new_out:
            return False
        self._live.note(sync, Kind.CREATE, new, due_s=due_s)
        return new.endswith(b"/")

    def lost(self, place: int, now_s: float) -> None:
        """Events may be missing: the sync begins anew, and must not fail for that."""
        self.log.say("Normal", b"--- OVERFLOW in event queue ---")
        self._anew(self.syncs[place], now_s)

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
        if self.status_write is not None and now_s >= self._status_at_s:
            self._report(self.status_write, now_s)
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
                self._live.note(sync, Kind.FULL, b"/", due_s=self._now_s)
                self._changed = True

    def beside(self, mirrors: Sequence[Beside]) -> bool:
        """The mirrors it goes with: their part is in the status file."""
        self._mirrors = mirrors
        return bool(mirrors) and self.status_write is not None

    def _report(self, write: Callable[[bytes], None], now_s: float) -> None:
        """Write the status file, if anything in it has changed."""
        left = [of_mirror(sync, *mirror.unsettled()) for sync, mirror in zip(self.left, self._mirrors, strict=True)]
        if self._changed or left != self._told:
            write(self._status(left))
        self._changed, self._told = False, left
        # Nobody tells of what mirrors do: it is looked for.
        self._status_at_s = now_s + (max(LOOK_MIN_S, self.status_every_s) if left else self.status_every_s)

    def _status(self, left: Sequence[About]) -> bytes:
        children = [
            (child.sync.number, self._wall() - (self._now_s - child.began_s)) for child in self._children.values()
        ]
        tunnels = [(tunnel.name, tunnel.is_up(self._now_s)) for tunnel in self.companions.tunnels]
        about = [*map(of_steps, self.syncs), *left]
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
        if self._live.tells:
            self._tell_end(child, code)
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
        self._done(sync, *child.entries)
        child.entries.clear()  # Lua may hold the list for as long as it has no need to look for what is garbage.

    def _tell_end(self, child: _Child, code: int) -> None:
        if child.agent[b"isList"]:
            self.log.say("Delay", b"collected a list")
            self.log.say("Delay", b"Finished list = %d" % code)
        else:
            kind, path = child.entries[0].kind, child.entries[0].path
            self.log.say("Delay", b"collected an event")
            self.log.say("Delay", b"Finish of %s on %s%s = %d" % (kind.value, child.sync.source, path, code))

    def wake_s(self) -> float | None:
        """When the next entry or alarm is due."""
        times = [self._alarms[0][0]] if self._alarms else []
        if self._kept_s is not None:
            times.append(self._kept_s)
        if (self._changed or self._mirrors) and self.status_write is not None:
            times.append(self._status_at_s)
        if self._stopping:
            if self._children:
                return self._remind_s
            # One that was only just started cannot have been ended yet.
            return self._now_s + AGAIN_S if self.companions.running else None
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

    def _anew(self, sync: Sync, now_s: float) -> None:
        self.insists = True
        sync.queue.clear()
        self._begin(sync, now_s)

    def _begin(self, sync: Sync, now_s: float) -> None:
        self._live.note(sync, Kind.INIT, b"", due_s=now_s)

    def _act(self, sync: Sync, now_s: float) -> None:
        if sync.tunnel is not None and not sync.tunnel.is_up(now_s):
            return
        with contextlib.closing(due_in(sync, now_s)) as due:
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
        return entry.status is Status.WAIT

    def _act_on(self, sync: Sync, entry: Entry) -> None:
        if entry.kind is Kind.INIT:
            if not sync.config[b"init"]:
                self._done(sync, entry)
                return
            self._call("init", sync.number, self._live.introduce(sync, entry))
            if entry.status is Status.GONE:
                self._done(sync, entry)
        elif entry.kind is Kind.FULL:
            self._call("full", sync.number, self._live.introduce(sync, entry))
        else:
            self._call("action", sync.number)

    def _is_full(self, sync: Sync) -> bool:
        return sync.running >= sync.processes_max or len(self._children) >= self.processes_max

    def _done(self, sync: Sync, *entries: Entry) -> None:
        sync.queue.remove(*entries)
        if any(entry.kind is _INIT for entry in entries):
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


def _kinds(mask: int, modified: int) -> tuple[Kind, ...]:
    """What is told of an event with these bits."""
    return (Kind.MODIFY,) if mask & modified else tuple(kind for bits, kind in _KINDS if mask & bits)
