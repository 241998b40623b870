"""The entries of all syncs by their idents, and what Lua may ask of them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Final

from instep.frontends.lsyncd import events
from instep.frontends.lsyncd.include import include_list
from instep.frontends.lsyncd.log import Log
from instep.frontends.lsyncd.queue import Entry, Kind, Queue, Status
from instep.frontends.lsyncd.runtime import Runtime
from instep.frontends.lsyncd.syncs import Sync

_NO_CHANGES: Final = (Kind.INIT, Kind.BLANKET, Kind.FULL)
# Looked up once: members of an enumeration cost more than names of a module.
_DELETE, _MOVE = Kind.DELETE, Kind.MOVE
_ACTIVE, _GONE, _WAIT = Status.ACTIVE, Status.GONE, Status.WAIT

Picked = list[Entry]
"""What Lua holds of a list of events. A list, for lupa takes tuples apart."""


def due_in(sync: Sync, now_s: float) -> Generator[Entry]:
    """What is to be acted on now in one sync; see ``Queue.waiting``."""
    return sync.queue.waiting(now_s, hurried=len(sync.queue) >= sync.delays_max)


class Entries:
    """Those that are not done with."""

    def __init__(self, log: Log, *, clock: Callable[[], float]) -> None:
        """Begin without syncs.

        Args:
            log: where it is told how entries stand in the queue.
            clock: the time of what Lua itself makes.
        """
        self.syncs: list[Sync] = []
        self._log = log
        self._clock = clock
        self._runtime: Runtime | None = None
        self._known: dict[int, tuple[Sync, Entry]] = {}  # those that Lua was told the ident of
        self._held: set[int] = set()
        self._idents = itertools.count()
        self.tells = log.wants("Delay")
        """Whether how entries stand in the queue is told."""

    def serve(self, runtime: Runtime, syncs: Iterable[Sync]) -> None:
        """Take over these syncs."""
        self._runtime = runtime
        for sync in syncs:
            sync.queue = Queue(collapse=sync.collapses, idents=self._idents, on_gone=self._gone)
            self.syncs.append(sync)

    def sync(self, number: int) -> Sync:
        """The sync of this number."""
        return next(sync for sync in self.syncs if sync.number == number)

    def introduce(self, sync: Sync, entry: Entry) -> int:
        """Let Lua know an entry by its ident, for as long as it is in the queue."""
        entry.is_known = True
        self._known[entry.ident] = (sync, entry)
        return entry.ident

    def primitives(self) -> dict[str, Callable[..., Any]]:
        """What Lua may ask."""
        return {
            "all_waiting": _all_waiting,
            "batch": self._batch,
            "bring": self._bring,
            "changes": self._changes,
            "count": len,
            "discard": self._discard,
            "events": self._events,
            "field": self._field,
            "hold": self._hold,
            "list_status": _list_status,
            "next_event": self._next_event,
            "patterns": self._patterns,
            "single": self._single,
            "special": self._special,
            "told": self._told,
        }

    def note(self, sync: Sync, kind: Kind, path: bytes, path2: bytes | None = None, *, due_s: float) -> list[Entry]:
        """Take in something new; the entries that were made for it."""
        made = sync.queue.note(kind, path, path2, due_s=due_s)
        if self.tells:
            self._tell(made, is_split=len(made) > 1)
        return made

    def _tell(self, made: Sequence[Entry], *, is_split: bool) -> None:
        """How what came in stands in the queue."""
        if is_split:
            self._log.say("Delay", b"splitting Move into Delete & Create")
        for entry in made:
            if entry.blocker is None:
                self._log.say("Delay", b"New " + entry.shown)
            else:
                self._log.say("Delay", entry.shown + b" blocked by " + entry.blocker.shown)

    def _gone(self, entry: Entry) -> None:
        if self._known.pop(entry.ident, None) is not None and entry.ident in self._held:
            self._held.discard(entry.ident)
            assert self._runtime is not None
            self._runtime.call("gone", entry.ident)

    def _batch(self, number: int, test: Callable[[int], object] | None) -> Picked:
        sync = self.sync(number)
        if test is None:
            return sync.queue.batch()

        def verdict(entry: Entry) -> bool | None:
            answer = test(self.introduce(sync, entry))
            return None if answer == b"break" else bool(answer)

        return sync.queue.batch(verdict)

    def _bring(self, ident: int) -> None:
        sync, entry = self._known[ident]
        assert entry.path2 is not None
        # Behind the move, which is about to be done with.
        for made in self.note(sync, Kind.CREATE, entry.path2, due_s=self._clock()):
            made.whole = True

    def _changes(self, number: int, until_move: bool | None) -> Picked:  # noqa: FBT001  # Lua has no keywords
        return self.sync(number).queue.batch(_change_no_move if until_move else _change)

    def _discard(self, number: int, entries: Picked) -> None:
        self.sync(number).queue.remove(*[entry for entry in entries if entry.status is not _ACTIVE])

    def _events(self, number: int, entries: Picked) -> Any:
        sync = self.sync(number)
        assert self._runtime is not None
        return self._runtime.list(self.introduce(sync, entry) for entry in entries if entry.status is not _GONE)

    def _told(self, entries: Picked) -> Any:
        """All at once: of each entry its kind, its path, and where it leads or false."""
        told: list[object] = []
        for entry in entries:
            told += (entry.kind._value_, entry.path, entry.path2 or False)
        assert self._runtime is not None
        return self._runtime.list(told)

    def _single(self, ident: int) -> Picked:
        found = self._known.get(ident)
        return [] if found is None else [found[1]]

    def _field(self, handle: int, name: bytes) -> events.Value | None:
        ident = handle if handle >= 0 else -1 - handle
        found = self._known.get(ident)
        return None if found is None else events.value(found[1], name, destination=handle < 0)

    def _hold(self, ident: int) -> bool:
        """Lua keeps an object for an entry, until told that it is gone; whether that is a move."""
        self._held.add(ident)
        return self._known[ident][1].kind is _MOVE

    def _next_event(self, number: int) -> int | None:
        sync = self.sync(number)
        if sync.current is not None and sync.current.status is _WAIT:
            return self.introduce(sync, sync.current)
        with contextlib.closing(due_in(sync, self._clock())) as due:
            entry = next(due, None)
        return None if entry is None else self.introduce(sync, entry)

    def _patterns(self, entries: Picked) -> Any:
        names: list[tuple[bytes, bool]] = []
        for entry in entries:
            if entry.path2 is not None:
                names += ((entry.path, True), (entry.path2, False))
            else:
                names.append((entry.path, entry.whole or entry.kind is _DELETE))
        assert self._runtime is not None
        return self._runtime.list(include_list(names))

    def _special(self, number: int, kind: bytes, path: bytes) -> int:
        sync = self.sync(number)
        (entry,) = self.note(sync, Kind(kind), path, due_s=self._clock())
        return self.introduce(sync, entry)


def _all_waiting(entries: Picked) -> bool:
    # What waits for another of the same list goes with it.
    return all(entry.status is not _ACTIVE and entry.status is not _GONE for entry in entries)


def _list_status(entries: Picked) -> bytes | None:
    status = entries[0].status if entries else _GONE
    return None if status is _GONE else status._value_


def _change(entry: Entry) -> bool:
    return entry.kind not in _NO_CHANGES


def _change_no_move(entry: Entry) -> bool | None:
    return None if entry.kind is _MOVE else entry.kind not in _NO_CHANGES
