"""The change log: what is dirty, in the order of the reports, with one cursor per target.

One list of slots serves all targets. A path stands in it once; reported again after a target took it, it gets a new
slot at the end and the old one is emptied. A target that is slow or away only leaves its cursor behind: nothing is
copied for it. A slot is let go when every cursor has acknowledged it.

Pure: no clock, no disk. Times are the caller's monotonic seconds. Used by one thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection

from instep.model import Change, Report
from instep.paths import ROOT, RelPath, Scope

_TREE = Scope.TREE  # Python 3.11 takes 0.25 us to get a member from its class.
MOVE_SCAN_MAX = 4096
"""Past so many pending slots a move is not looked into: both names are brought in step instead. Guessed: 0.3 ms."""
TOUCHED_MAX = 4096
"""So many paths synced since the kernel queue was last empty are remembered one by one."""
COVERED_MAX = 65_536
"""So many directories that need no change of their own are remembered, so that what is in them needs none either."""
COMPACT_MIN = 4096
"""Emptied slots are cleared away when there are more than this and than there are live ones."""


class Cursor:
    """Where one target stands in the log."""

    __slots__ = ("_flights", "bit", "lowest", "number", "taken", "touched", "touched_all", "waiting", "working")

    def __init__(self, number: int, start: int, waiting: Collection[RelPath]) -> None:
        self.number = number
        self.bit = 1 << number
        self.taken = start
        """First slot not yet given out."""
        self.lowest = start
        """Every slot below is acknowledged."""
        self.waiting = waiting
        """Paths that the target keeps aside for another try; the log only looks at them."""
        self.working: set[RelPath] = set()
        """Paths that had been kept aside and are being worked on: they stand in no slot either."""
        self.touched: set[RelPath] = set()
        """Paths synced since the kernel queue was last seen empty: what they look like at the target may be newer than
        the reports read so far."""
        self.touched_all = False
        self._flights: dict[int, int] = {}

    def launch(self, ticket: int, lowest: int) -> None:
        """Remember that slots from ``lowest`` on are being worked on."""
        self._flights[ticket] = lowest

    def land(self, ticket: int, *, again: bool) -> None:
        """A flight is over; ``again`` when its slots have to be given out once more."""
        lowest = self._flights.pop(ticket)
        if again:
            self.taken = min(self.taken, lowest)
        self.lowest = min(*self._flights.values(), self.taken) if self._flights else self.taken

    def touch(self, paths: Collection[RelPath]) -> None:
        """These paths were synced just now."""
        if len(self.touched) + len(paths) > TOUCHED_MAX:
            self.touched_all = True
        else:
            self.touched.update(paths)

    def shift(self, live: list[int], base: int) -> None:
        """Renumber after emptied slots were cleared away; ``live`` holds the old numbers of those that stay."""
        self.taken = base + bisect_left(live, self.taken)
        self.lowest = base + bisect_left(live, self.lowest)
        self._flights = {ticket: base + bisect_left(live, lowest) for ticket, lowest in self._flights.items()}


class ChangeLog:
    """Folds reports into changes and gives them out, once per cursor.

    A path is due ``quiet_s`` after its last report, at the latest ``hold_s`` after its first. The slots stay ordered
    by due time: a path reported again moves to the end, except where that would break its hold; then it keeps its
    place and goes out with its neighbours, a little early.

    Past ``paths_max`` live paths, the paths of each directory fold into a TREE of it, and if that is not enough all
    into one TREE of the root: precision is lost, no change is.
    """

    def __init__(self, *, quiet_s: float = 0.0, hold_s: float = 10.0, paths_max: int = 1_000_000) -> None:
        self.quiet_s = quiet_s
        self.hold_s = hold_s
        self.paths_max = paths_max
        self.last_report_s = -1e9
        self.folds = 0
        self._slots: list[Change | None] = []
        self._base = 0
        self._last: dict[RelPath, Change] = {}
        self._covered: dict[RelPath, Change] = {}  # directories reported, and the TREE above that stands for them
        self._cursors: list[Cursor] = []
        self._given_out = 0  # no cursor has ever been given a slot from here on
        self._tickets = 0

    def __len__(self) -> int:
        """Paths that some target has not acknowledged."""
        return len(self._last)

    def add_cursor(self, waiting: Collection[RelPath] = ()) -> Cursor:
        """A cursor for one more target; it sees what is noted from now on."""
        cursor = Cursor(len(self._cursors), self._base + len(self._slots), waiting)
        self._cursors.append(cursor)
        return cursor

    def note(self, report: Report, now_s: float) -> None:
        """Take in one report."""
        path, scope, content, is_dir, moved_from = report
        self.last_report_s = now_s
        parent: RelPath = path.rpartition(b"/")[0]  # type: ignore[assignment]  # a path, cut off
        above = self._last.get(parent) or self._covered.get(parent)
        if (
            above is not None
            and above.scope is _TREE
            and above.seq >= self._given_out
            and above.moved_from is None is moved_from
            and (above.content or not content)
            and path
            and (not self.quiet_s or self.hold_s <= self.quiet_s)  # else a change in it has to put it off
        ):
            # So it is with nearly all of a burst: its directory is to be looked at as a whole.
            if is_dir and len(self._covered) < COVERED_MAX:
                self._covered[path] = above
            return
        change = self._last.get(path)
        clean_for = 0
        if moved_from is not None and (change is None or change.scope is not _TREE or change.moved_from is not None):
            # Else that TREE may stand for what was reported below it, and nobody looks below what is just renamed.
            clean_for = self._clean_for(moved_from)
        if change is not None and change.seq >= self._given_out:
            change.last_s = now_s
            if scope > change.scope:  # noqa: PLR1730  # max() is a call, and this is the hot path
                change.scope = scope
            if content:
                change.content = True
                if change.moved_from is not None and not (is_dir and scope is Scope.ENTRY):
                    change.moved_from = None  # Something else stands there now: bring in step what there is.
            change.is_dir = is_dir
            if self.quiet_s and change.first_s + self.hold_s > now_s + self.quiet_s:
                self._slots[change.seq - self._base] = None
                change.moved_from = None  # A move must go out before its old name, which keeps its place.
                self._append(change, now_s)
        else:
            older = change
            change = Change(path, scope, content=content, is_dir=is_dir, now_s=now_s)
            if older is not None:
                # Someone has not acknowledged the older one: what it asked for must not get less.
                change.scope = max(scope, older.scope)
                change.content = content or older.content
                self._slots[older.seq - self._base] = None
            self._append(change, now_s)
        if moved_from is not None:
            change.moved_from = moved_from if clean_for else None
            change.clean_for = clean_for
            self.note(Report(moved_from, Scope.TREE, content=True, is_dir=is_dir), now_s)
        if len(self._last) > self.paths_max:
            self._fold(now_s)

    def drained(self) -> None:
        """The kernel queue was seen empty after everything in it had been noted."""
        for cursor in self._cursors:
            if cursor.touched:
                cursor.touched.clear()
            cursor.touched_all = False

    def due_s(self, cursor: Cursor) -> float | None:
        """When the next change for this cursor is due; None when there is none."""
        slots, index = self._slots, cursor.taken - self._base
        while index < len(slots):
            change = slots[index]
            if change is not None:
                cursor.taken = self._base + index
                return change.due_s
            index += 1
        if cursor.taken != self._base + index:
            cursor.taken = self._base + index
            self._settle(cursor)
        return None

    def backlog(self, cursor: Cursor) -> int:
        """At most so many paths are still to be given out; quick, but counts emptied slots too."""
        return self._base + len(self._slots) - cursor.taken

    def take(self, cursor: Cursor, now_s: float, paths_max: int) -> tuple[int, list[Change]]:
        """What is due for this cursor, with a ticket to hand back to ``acknowledge`` or ``give_back``."""
        slots = self._slots
        first = index = cursor.taken - self._base
        end = len(slots)
        due: list[Change] = []
        while index < end and len(due) < paths_max:
            change = slots[index]
            if change is not None:
                if change.due_s > now_s:
                    break
                due.append(change)
            index += 1
        cursor.taken = self._base + index
        if len(due) == paths_max:
            self._cut_at_directory(cursor, due)
        if cursor.taken > self._given_out:
            self._given_out = cursor.taken
            if self._covered and cursor.taken == self._base + end:
                self._covered.clear()  # Nothing waits to be given out: nothing stands for anything.
        self._tickets += 1
        cursor.launch(self._tickets, self._base + first)
        return self._tickets, due

    def acknowledge(self, cursor: Cursor, ticket: int, paths: Collection[RelPath]) -> None:
        """The changes of a ticket are done, or kept aside by the target; ``paths`` are those that it touched."""
        cursor.land(ticket, again=False)
        cursor.touch(paths)
        self._trim()

    def give_back(self, cursor: Cursor, ticket: int) -> None:
        """Nothing of a ticket counts as done: all of it will be given out again."""
        cursor.touched_all = True
        taken = cursor.taken
        cursor.land(ticket, again=True)
        for change in self._slots[cursor.taken - self._base : taken - self._base]:
            if change is not None:
                change.moved_from = None  # Half done and done again, it would take what stands there now.

    def unacknowledged_at(self, cursor: Cursor, path: RelPath) -> Change | None:
        """The change of this very path that this cursor has not acknowledged."""
        change = self._last.get(path)
        return change if change is not None and change.seq >= cursor.lowest else None

    def unacknowledged(self, cursor: Cursor | None = None) -> list[Change]:
        """Every change that this cursor, or any, has not acknowledged; it may contain some that it has."""
        lowest = self._base if cursor is None else max(cursor.lowest, self._base)
        return [change for change in self._slots[lowest - self._base :] if change is not None]

    def pending(self, cursor: Cursor) -> int:
        """How many paths this cursor has not acknowledged."""
        if cursor.lowest <= self._base:
            return len(self._last)
        return sum(slot is not None for slot in self._slots[cursor.lowest - self._base :])

    def _append(self, change: Change, now_s: float) -> None:
        change.due_s = min(now_s + self.quiet_s, change.first_s + self.hold_s)
        change.seq = self._base + len(self._slots)
        self._slots.append(change)
        self._last[change.path] = change

    def _clean_for(self, old: RelPath) -> int:
        """The cursors whose targets hold under ``old`` just what the source held there before it was moved.

        That is so when nothing on it, below it or covering it is pending, being worked on, or kept aside, and nothing
        there was synced since the kernel queue was last seen empty: such a sync may already have seen the time after
        the move.
        """
        slots = self._slots
        below = old + b"/"
        lowest = min((cursor.lowest for cursor in self._cursors), default=0)
        if len(slots) - (lowest - self._base) > MOVE_SCAN_MAX:
            return 0
        dirty = -1
        for index in range(len(slots) - 1, lowest - self._base - 1, -1):
            change = slots[index]
            if change is not None and _touches(change.path, change.scope, old, below):
                dirty = change.seq
                break
        clean = 0
        for cursor in self._cursors:
            if dirty >= cursor.lowest or cursor.touched_all or len(cursor.waiting) > MOVE_SCAN_MAX:
                continue
            # A path synced or kept aside may have been a TREE: take each as one.
            if any(_touches(path, Scope.TREE, old, below) for path in cursor.touched):
                continue
            if any(_touches(path, Scope.TREE, old, below) for path in cursor.waiting):
                continue
            if any(_touches(path, Scope.TREE, old, below) for path in cursor.working):
                continue
            clean |= cursor.bit
        return clean

    def _cut_at_directory(self, cursor: Cursor, due: list[Change]) -> None:
        """Leave the last directory of a full batch to the next one, if it goes on there.

        Two batches at work in one directory would have to wait for each other. Gives up a quarter at most.
        """
        following = next((slot for slot in self._slots[cursor.taken - self._base :] if slot is not None), None)
        if following is None:
            return
        parent = following.path.rpartition(b"/")[0]
        keep = len(due)
        while keep and due[keep - 1].path.rpartition(b"/")[0] == parent:
            keep -= 1
        if keep >= len(due) * 3 // 4 and keep < len(due):
            cursor.taken = due[keep].seq
            del due[keep:]

    def _settle(self, cursor: Cursor) -> None:
        """Let the lowest mark follow when nothing is in flight."""
        self._tickets += 1
        cursor.launch(self._tickets, cursor.taken)
        cursor.land(self._tickets, again=False)
        self._trim()

    def _trim(self) -> None:
        base = self._base
        for cursor in reversed(self._cursors):  # Targets are served in turn, so the last one is behind the longest.
            if cursor.lowest <= base:
                break
        else:
            lowest = min(cursor.lowest for cursor in self._cursors)
            done = lowest - base
            last = self._last
            for change in self._slots[:done]:
                if change is not None and last.get(change.path) is change:
                    del last[change.path]
            del self._slots[:done]
            self._base = lowest
        if len(self._slots) > COMPACT_MIN + 2 * len(self._last):
            self._compact()

    def _compact(self) -> None:
        live = [change.seq for change in self._slots if change is not None]
        kept = [change for change in self._slots if change is not None]
        base = self._base
        for number, change in enumerate(kept, base):
            change.seq = number
        for cursor in self._cursors:
            cursor.shift(live, base)
        self._slots = list(kept)
        self._covered.clear()  # A change that is gone keeps its old number, which may be that of one to come.
        self._given_out = base + bisect_left(live, self._given_out)

    def _fold(self, now_s: float) -> None:
        """Trade precision for memory; a cursor that was past the folded slots sees a little too much."""
        self.folds += 1
        per_directory: dict[RelPath, int] = {}
        for path in self._last:
            parent = RelPath(path.rpartition(b"/")[0])
            per_directory[parent] = per_directory.get(parent, 0) + 1
        doomed = {parent for parent, paths in per_directory.items() if paths > 1}
        if len(self._last) - sum(per_directory[parent] - 1 for parent in doomed) > self.paths_max // 2:
            doomed = {ROOT}
        merged: dict[RelPath, tuple[bool, float]] = {}
        for index, change in enumerate(self._slots):
            if change is None:
                continue
            parent = ROOT if ROOT in doomed else RelPath(change.path.rpartition(b"/")[0])
            if parent in doomed:
                content, first_s = merged.get(parent, (False, change.first_s))
                merged[parent] = (content or change.content, min(first_s, change.first_s))
                self._slots[index] = None
                del self._last[change.path]
        for parent, (content, first_s) in merged.items():
            older = self._last.get(parent)
            change = Change(parent, Scope.TREE, content=content, is_dir=True, now_s=first_s)
            if older is not None:
                change.content = content or older.content
                self._slots[older.seq - self._base] = None
            change.last_s = now_s
            self._append(change, now_s)


def _touches(path: bytes, scope: Scope, old: bytes, below: bytes) -> bool:
    """Whether a change of ``path`` says anything about ``old`` or what is below it."""
    if path == old or path.startswith(below):
        return True
    return scope is not Scope.ENTRY and (not path or old.startswith(path + b"/"))


def without_covered(changes: list[Change], moves: Collection[RelPath] = ()) -> list[Change]:
    """Leave out what a TREE of the same list covers anyway.

    A TREE covers what is below it when it compares at least as thoroughly and is none of ``moves`` (a move walks
    nothing). A path must not stand in the list twice.
    """
    trees = {
        change.path: change.content for change in changes if change.scope is Scope.TREE and change.path not in moves
    }
    if not trees:
        return changes
    covers: dict[bytes, int] = {b"": _thoroughness(trees.get(ROOT))}

    def cover(directory: bytes) -> int:
        """What covers the entries of a directory; by a loop, for paths can be two thousand levels deep."""
        unknown: list[bytes] = []
        while (known := covers.get(directory)) is None:
            unknown.append(directory)
            directory = directory.rpartition(b"/")[0]
        for below in reversed(unknown):
            known = max(known, _thoroughness(trees.get(RelPath(below))))
            covers[below] = known
        return known

    return [
        change
        for change in changes
        if not change.path or cover(change.path.rpartition(b"/")[0]) <= (1 if change.content else 0)
    ]


def _thoroughness(content: bool | None) -> int:  # noqa: FBT001  # the value of a TREE's field, or none
    """0 for no TREE at all, 1 for one that trusts size and time, 2 for one that compares content."""
    return 0 if content is None else 1 + content
