"""What waits to be acted on in one sync: entries in order of arrival, and how a new one relates to older ones.

Pure: time is an argument. Paths begin with a slash and are relative to the source; those of directories end in one.
Adding, finding and removing cost the depth of the path, however many entries there are.
"""

from __future__ import annotations

import enum
import heapq
import itertools
from collections.abc import Callable, Generator, Iterator

CHAINS_MAX = 20_000
"""Directories whose way up is remembered; past it they are forgotten, all at once. A few megabytes (guessed)."""


class Kind(enum.Enum):
    """What an entry stands for; the values are what configurations see."""

    ATTRIB = b"Attrib"
    CREATE = b"Create"
    DELETE = b"Delete"
    MODIFY = b"Modify"
    MOVE = b"Move"
    INIT = b"Init"
    BLANKET = b"Blanket"
    FULL = b"Full"


class Status(enum.Enum):
    """Whether something is being done about an entry."""

    WAIT = b"wait"
    ACTIVE = b"active"
    BLOCK = b"block"
    GONE = b"gone"
    """It has left the queue."""


# What is looked at for every entry is looked up once: members of an enumeration cost more than names of a module.
_DELETE, _CREATE, _MOVE, _FULL = Kind.DELETE, Kind.CREATE, Kind.MOVE, Kind.FULL
_WAIT, _ACTIVE, _BLOCK, _GONE = Status.WAIT, Status.ACTIVE, Status.BLOCK, Status.GONE
_BARRIERS = (Kind.INIT, Kind.BLANKET)
_STRONG = (_DELETE, _MOVE)
_SLASH = ord("/")


class Relation(enum.Enum):
    """What becomes of a new entry because of an older one."""

    BLOCK = "block"
    """It waits until the old one is gone."""
    ABSORB = "absorb"
    """The old one stands for both."""
    REPLACE = "replace"
    """The new one takes the old one's place in the queue."""
    SPLIT = "split"
    """The new move becomes a deletion and a creation, each judged by itself."""
    TO_DELETE = "to-delete"
    """The old move becomes the deletion of its origin, which the new entry waits for."""


class Entry:
    """One thing to be acted on."""

    __slots__ = (
        "above", "blocker", "blocks", "due_s", "ident", "is_known", "kind", "number", "path", "path2", "retrying",
        "status", "tries", "whole",
    )  # fmt: skip

    def __init__(self, kind: Kind, path: bytes, path2: bytes | None = None, due_s: float = 0.0) -> None:
        self.kind = kind
        self.path = path
        self.path2 = path2  # where a move leads
        self.due_s = due_s
        self.status = _WAIT
        self.number = -1  # its place in the queue
        self.ident = -1  # its name for as long as it lives; unlike the number it is never another's
        self.tries = 0  # how often it was tried in vain
        self.retrying = False  # it stands among those that were tried in vain, until its time
        self.whole = False  # everything below it is meant as well
        self.is_known = False  # somebody wants to be told when it has left the queue
        self.above: tuple[bytes, ...] = ()  # the directories that hold its path
        self.blocker: Entry | None = None
        self.blocks: list[Entry] | None = None

    @property
    def paths(self) -> tuple[bytes, ...]:
        """Both ends of a move, the path of anything else."""
        return (self.path,) if self.path2 is None else (self.path, self.path2)

    @property
    def shown(self) -> bytes:
        """For the log."""
        return self.kind.value + b": " + b" -> ".join(self.paths)


_COLLAPSED = {
    Kind.ATTRIB: {Kind.ATTRIB: Relation.ABSORB},
    Kind.MODIFY: {Kind.ATTRIB: Relation.ABSORB, Kind.MODIFY: Relation.ABSORB},
    Kind.CREATE: dict.fromkeys((Kind.ATTRIB, Kind.MODIFY, Kind.CREATE), Relation.ABSORB),
    Kind.DELETE: dict.fromkeys((Kind.ATTRIB, Kind.MODIFY, Kind.DELETE), Relation.ABSORB),
}
"""Old, then new, on one path, where entries collapse; what is not named replaces."""

_ABSORBED = {
    old: frozenset(new for new, relation in found.items() if relation is Relation.ABSORB)
    for old, found in _COLLAPSED.items()
}


def relate(old: Entry, new: Entry, *, collapse: bool) -> Relation | None:
    """What an older entry makes of a new one; None: nothing, they stand side by side."""
    if old.kind in _BARRIERS:
        return Relation.BLOCK
    if old.kind is _FULL or new.kind is _FULL:
        return None
    if new.kind is _MOVE:
        if old.kind is _MOVE and old.path2 == new.path2 and not _overlap(old.path, new):
            return None if not new.path.endswith(b"/") else Relation.SPLIT
        return Relation.SPLIT if any(_overlap(path, new) for path in old.paths) else None
    if old.kind is _MOVE:
        if not any(_overlap(path, new) for path in old.paths):
            return None
        if new.path == old.path2 and new.kind in (_CREATE, _DELETE):
            return Relation.BLOCK if old.status is _ACTIVE else Relation.TO_DELETE
        return Relation.BLOCK
    if old.path != new.path:
        return Relation.BLOCK if _overlap(old.path, new) else None
    if new.path.endswith(b"/") and (not collapse or (old.kind, new.kind) == (_DELETE, _CREATE)):
        return Relation.BLOCK
    if not collapse and (old.kind, new.kind) != (_DELETE, _CREATE):
        return None
    if old.status is _ACTIVE:
        return Relation.BLOCK
    return _COLLAPSED[old.kind].get(new.kind, Relation.REPLACE)


def _overlap(path: bytes, new: Entry) -> bool:
    """Equal, or one holds the other. A file and a directory of one name are one place: one came after the other."""
    one = path.rstrip(b"/") + b"/"
    for other in new.paths:
        two = other.rstrip(b"/") + b"/"
        if one.startswith(two) or two.startswith(one):
            return True
    return False


Kept = dict[int, Entry]


Shelf = dict[bytes, Entry | Kept]
"""By path what stands there: nearly always one entry alone."""


class Queue:
    """The entries of one sync, the oldest first."""

    def __init__(
        self, *, collapse: bool, idents: Iterator[int] | None = None, on_gone: Callable[[Entry], None] = lambda _: None
    ) -> None:
        """Begin empty.

        Args:
            collapse: equal events on one file are folded.
            idents: where entries get theirs from; several queues may share it.
            on_gone: called with each entry that leaves and ``is_known``.
        """
        self._collapse = collapse
        self._idents = itertools.count() if idents is None else idents
        self._on_gone = on_gone
        self._entries: Kept = {}
        # Heaps; what does not wait any more is dropped when met. Those that were tried in vain stand apart, by the
        # time of their next try: they hold up nothing.
        self._waiting: list[int] = []
        self._retries: list[tuple[float, int]] = []
        self._numbers = 0
        self._newest: Entry | None = None
        self._barriers: Kept = {}
        # By path, without the slash of directories.
        self._at: Shelf = {}
        self._strong: Shelf = {}  # of _at those that relate to what is no move, where nothing collapses
        self._below: Shelf = {}
        self._chains: dict[bytes, tuple[bytes, ...]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def note(self, kind: Kind, path: bytes, path2: bytes | None = None, *, due_s: float) -> list[Entry]:
        """Take in something new; the entries that were made for it: none, one, or the two halves of a move."""
        newest = self._newest
        if (
            self._collapse
            and newest is not None
            and newest.path == path
            and newest.status is not _ACTIVE
            and newest.path2 is path2 is None
            and not path.endswith(b"/")
            and kind in _ABSORBED.get(newest.kind, ())
        ):
            return []  # As ``relate`` would have it; a file that was made is written right after, as a rule.
        new = Entry(kind, path, path2, due_s)
        new.above = self._above(path)
        found = None if self._is_alone(new) else self._relation(new)
        if found is None:
            return [self._append(new)]
        old, relation = found
        match relation:
            case Relation.ABSORB:
                return []
            case Relation.SPLIT:
                assert path2 is not None
                return [
                    *self.note(_DELETE, path, due_s=due_s),
                    *self.note(_CREATE, path2, due_s=due_s),
                ]
            case Relation.REPLACE:
                self._replace(old, new)
                return [new]
            case Relation.TO_DELETE:
                self._unindex(old)
                old.kind, old.path2 = _DELETE, None
                self._index(old)
                return [self._append(new, blocker=old)]
            case Relation.BLOCK:
                return [self._append(new, blocker=old)]

    def waiting(self, now_s: float, *, hurried: bool = False) -> Generator[Entry]:
        """Those to be acted on now, in order, up to the first that is not due; ``hurried``: due or not.

        An entry is given once in a walk; the queue may be changed meanwhile.
        """
        while self._retries and self._retries[0][0] <= now_s:
            entry = self._entries.get(heapq.heappop(self._retries)[1])
            if entry is not None and entry.retrying and entry.due_s <= now_s:
                entry.retrying = False
                heapq.heappush(self._waiting, entry.number)
        seen: set[int] = set()
        try:
            while self._waiting:
                number = self._waiting[0]
                entry = self._entries.get(number)
                if entry is None or entry.retrying or entry.status is not _WAIT or number in seen:
                    heapq.heappop(self._waiting)
                    continue
                if entry.due_s > now_s and not hurried:
                    return
                heapq.heappop(self._waiting)
                seen.add(number)
                yield entry
        finally:
            for number in seen:
                entry = self._entries.get(number)
                if entry is not None and entry.status is _WAIT and not entry.retrying:
                    heapq.heappush(self._waiting, number)

    def due_s(self) -> float | None:
        """When the first waiting entry is due."""
        first = None
        while self._waiting:
            entry = self._entries.get(self._waiting[0])
            if entry is not None and entry.status is _WAIT and not entry.retrying:
                first = entry.due_s
                break
            heapq.heappop(self._waiting)
        while self._retries:
            due_s, number = self._retries[0]
            entry = self._entries.get(number)
            if entry is not None and entry.status is _WAIT and entry.retrying and entry.due_s == due_s:
                return due_s if first is None else min(first, due_s)
            heapq.heappop(self._retries)
        return first

    def batch(self, test: Callable[[Entry], bool | None] | None = None) -> list[Entry]:
        """All that may be acted on together: whatever is not active, nor waits for what is, or for what is left out.

        Args:
            test: whether to take an entry; None ends the list before it. Without it all are taken.
        """
        found: list[Entry] = []
        out: set[int] = set()
        for entry in self._entries.values():
            blocker = entry.blocker
            if entry.status is _ACTIVE or (blocker is not None and blocker.ident in out):
                out.add(entry.ident)
                continue
            verdict = True if test is None else test(entry)
            if verdict is None:
                break
            if verdict:
                found.append(entry)
            else:
                out.add(entry.ident)
        return found

    def start(self, *entries: Entry) -> None:
        """Something is being done about them."""
        for entry in entries:
            entry.status = _ACTIVE
            entry.retrying = False
        if len(entries) > len(self._waiting) // 2:
            # At once what ``waiting`` would do one by one. In order they are a heap as well.
            kept = self._entries
            self._waiting = [
                number for number in sorted(self._waiting) if number in kept and kept[number].status is _WAIT
            ]

    def again(self, entry: Entry, due_s: float) -> None:
        """What was done about it was in vain."""
        entry.tries += 1
        entry.due_s = due_s
        self._wait(entry)

    def remove(self, *entries: Entry) -> None:
        """They are done with; what waited for them waits no more."""
        for entry in entries:
            if self._entries.get(entry.number) is not entry:
                continue
            del self._entries[entry.number]
            if entry is self._newest:
                self._newest = None
            self._unindex(entry)
            if entry.blocks is not None:
                self._release(entry)
            entry.status = _GONE
            if entry.is_known:
                self._on_gone(entry)

    def clear(self) -> None:
        """Forget all that nothing is being done about."""
        self.remove(*[entry for entry in self._entries.values() if entry.status is not _ACTIVE])

    # ---- keeping order ----

    def _append(self, entry: Entry, blocker: Entry | None = None) -> Entry:
        entry.number = self._numbers
        entry.ident = next(self._idents)
        self._numbers += 1
        self._entries[entry.number] = self._newest = entry
        self._index(entry)
        if blocker is not None:
            entry.blocker = blocker
            entry.status = _BLOCK
            if blocker.blocks is None:
                blocker.blocks = []
            blocker.blocks.append(entry)
        else:
            heapq.heappush(self._waiting, entry.number)
        return entry

    def _replace(self, old: Entry, new: Entry) -> None:
        new.number, new.ident = old.number, next(self._idents)
        # What waited for the old one must not be forgotten, nor what the old one waited for.
        new.status, new.blocker, new.due_s = old.status, old.blocker, old.due_s
        new.blocks, old.blocks = old.blocks, None
        for blocked in new.blocks or ():
            blocked.blocker = new
        if new.blocker is not None:
            siblings = new.blocker.blocks
            assert siblings is not None
            siblings[siblings.index(old)] = new
        self._unindex(old)
        if old is self._newest:
            self._newest = new
        self._entries[new.number] = new
        self._index(new)
        old.status = _GONE
        if old.is_known:
            self._on_gone(old)

    def _release(self, entry: Entry) -> None:
        blocks, entry.blocks = entry.blocks, None
        for blocked in blocks or ():
            blocked.blocker = None
            if blocked.status is _BLOCK:
                self._wait(blocked)

    def _wait(self, entry: Entry) -> None:
        if entry.blocker is not None:
            entry.status = _BLOCK
            return
        entry.status = _WAIT
        entry.retrying = entry.tries > 0
        if entry.retrying:
            heapq.heappush(self._retries, (entry.due_s, entry.number))
        else:
            heapq.heappush(self._waiting, entry.number)

    # ---- finding what relates ----

    def _is_alone(self, new: Entry) -> bool:
        """Whether surely nothing relates to a new entry: the usual case, told without a look at any other entry."""
        path = new.path
        if self._barriers or new.path2 is not None or not path:
            return False
        if path[-1] == _SLASH:
            bare, exact = path[:-1], self._at
        else:
            bare, exact = path, self._at if self._collapse else self._strong
        if bare in exact or bare in self._below:
            return False
        at = self._at
        for above in new.above:  # noqa: SIM110  # no generator is made where there is nothing to go through
            if above in at:
                return False
        return True

    def _relation(self, new: Entry) -> tuple[Entry, Relation] | None:
        """The newest entry that relates to the new one."""
        best: tuple[Entry, Relation] | None = None
        for kept in self._candidates(new):
            for old in (kept,) if isinstance(kept, Entry) else reversed(kept.values()):
                if best is not None and old.number < best[0].number:
                    break
                relation = relate(old, new, collapse=self._collapse)
                if relation is not None:
                    best = (old, relation)
                    break
        return best

    def _candidates(self, new: Entry) -> Iterator[Entry | Kept]:
        """Few collections that hold all that may relate, the newest last in each."""
        if self._barriers:
            yield self._barriers
        if new.kind in _BARRIERS or new.kind is _FULL:
            return
        for path in new.paths:
            bare = path.rstrip(b"/")
            is_file = len(bare) == len(path)
            exact = self._strong if is_file and not self._collapse and new.kind is not _MOVE else self._at
            if bare in exact:
                yield exact[bare]
            if bare in self._below:
                yield self._below[bare]
            for above in self._above(path):
                if above in self._at:
                    yield self._at[above]

    def _index(self, entry: Entry) -> None:
        path, kind = entry.path, entry.kind
        if not path or kind is _FULL:  # only what stands for no path has none
            if kind is not _FULL:
                self._barriers[entry.number] = entry
            return
        is_dir = path[-1] == _SLASH
        self._shelve(path[:-1] if is_dir else path, entry.above, entry, is_strong=is_dir or kind in _STRONG)
        if entry.path2 is not None:
            self._shelve(entry.path2.rstrip(b"/"), self._above(entry.path2), entry, is_strong=True)

    def _shelve(self, bare: bytes, chain: tuple[bytes, ...], entry: Entry, *, is_strong: bool) -> None:
        _keep(self._at, bare, entry)
        if is_strong:
            _keep(self._strong, bare, entry)
        below, number = self._below, entry.number
        for above in chain:
            kept = below.get(above)
            if isinstance(kept, dict):
                kept[number] = entry  # As nearly always: a directory holds many.
            else:
                _keep(below, above, entry)

    def _unindex(self, entry: Entry) -> None:
        if self._barriers:
            self._barriers.pop(entry.number, None)
        path = entry.path
        if not path:
            return
        self._unshelve(path[:-1] if path[-1] == _SLASH else path, entry.above, entry)
        if entry.path2 is not None:
            self._unshelve(entry.path2.rstrip(b"/"), self._above(entry.path2), entry)

    def _unshelve(self, bare: bytes, chain: tuple[bytes, ...], entry: Entry) -> None:
        _drop(self._at, bare, entry)
        if bare in self._strong:
            _drop(self._strong, bare, entry)
        below, number = self._below, entry.number
        for above in chain:
            kept = below.get(above)
            if isinstance(kept, dict) and len(kept) > 1:
                kept.pop(number, None)
            else:
                _drop(below, above, entry)

    def _above(self, path: bytes) -> tuple[bytes, ...]:
        """The directories that hold a path, without slashes, but the root; what many have in common is found once."""
        parent = path[: path.rfind(b"/", 0, len(path) - 1)]
        chain = self._chains.get(parent)
        if chain is None:
            if len(self._chains) >= CHAINS_MAX:
                self._chains.clear()
            found = []
            here = parent
            while here:
                found.append(here)
                here = here[: here.rfind(b"/")]
            chain = self._chains[parent] = tuple(found)
        return chain


def _keep(shelf: Shelf, path: bytes, entry: Entry) -> None:
    kept = shelf.get(path)
    if kept is None:
        shelf[path] = entry
    elif isinstance(kept, dict):
        kept[entry.number] = entry
    elif kept is not entry:
        shelf[path] = {kept.number: kept, entry.number: entry}


def _drop(shelf: Shelf, path: bytes, entry: Entry) -> None:
    kept = shelf.get(path)
    if kept is entry:
        del shelf[path]
    elif isinstance(kept, dict):
        kept.pop(entry.number, None)
        if not kept:
            del shelf[path]
