"""The entries of all syncs by their idents, and what Lua may ask of them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

from instep.frontends.lsyncd import events
from instep.frontends.lsyncd.include import include_list
from instep.frontends.lsyncd.log import Log
from instep.frontends.lsyncd.queue import Entry, Kind, Queue, Status
from instep.frontends.lsyncd.runtime import Runtime
from instep.frontends.lsyncd.syncs import Sync


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
        self._entries: dict[int, tuple[Sync, Entry]] = {}
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

    def __contains__(self, ident: int) -> bool:
        return ident in self._entries

    def __getitem__(self, ident: int) -> Entry:
        return self._entries[ident][1]

    def primitives(self) -> dict[str, Callable[..., Any]]:
        """What Lua may ask."""
        return {
            "all_waiting": self._all_waiting,
            "batch": self._batch,
            "bring": self._bring,
            "changes": self._changes,
            "discard": self._discard,
            "entry": self._entry,
            "field": self._field,
            "hold": self._hold,
            "next_event": self._next_event,
            "patterns": self._patterns,
            "special": self._special,
        }

    def note(self, sync: Sync, kind: Kind, path: bytes, path2: bytes | None = None, *, due_s: float) -> list[Entry]:
        """Take in something new; the entries that were made for it."""
        made = sync.queue.note(kind, path, path2, due_s=due_s)
        for entry in made:
            self._entries[entry.ident] = (sync, entry)
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
        if self._entries.pop(entry.ident, None) is not None and entry.ident in self._held:
            self._held.discard(entry.ident)
            assert self._runtime is not None
            self._runtime.call("gone", entry.ident)

    def _all_waiting(self, idents: Any) -> bool:
        found = [self._entries.get(ident) for ident in idents.values()]
        # What waits for another of the same list goes with it.
        return all(each is not None and each[1].status is not Status.ACTIVE for each in found)

    def _batch(self, number: int, test: Callable[[int], object] | None) -> Any:
        sync = self.sync(number)

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
        for made in self.note(sync, Kind.CREATE, entry.path2, due_s=self._clock()):
            made.whole = True

    def _changes(self, number: int, until_move: bool | None) -> Any:  # noqa: FBT001  # Lua has no keywords
        def verdict(entry: Entry) -> bool | None:
            kind = entry.kind
            if until_move and kind is Kind.MOVE:
                return None
            return kind is not Kind.INIT and kind is not Kind.BLANKET and kind is not Kind.FULL

        assert self._runtime is not None
        return self._runtime.list(entry.ident for entry in self.sync(number).queue.batch(verdict))

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
        sync = self.sync(number)
        if sync.current is not None and sync.current.status is Status.WAIT:
            return sync.current.ident
        with contextlib.closing(due_in(sync, self._clock())) as due:
            entry = next(due, None)
        return None if entry is None else entry.ident

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

    def _special(self, number: int, kind: bytes, path: bytes) -> int:
        (entry,) = self.note(self.sync(number), Kind(kind), path, due_s=self._clock())
        return entry.ident
