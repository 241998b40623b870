"""The change log against a model: nothing reported is ever lost to any target, and nothing outstays its hold."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from instep.core import changelog as changelog_module
from instep.core.changelog import ChangeLog, without_covered
from instep.model import Change, Report
from instep.paths import ROOT, RelPath, Scope

FULL = os.environ.get("INSTEP_SIZES") == "full"
PATHS = [RelPath(path) for path in (b"a", b"b", b"a/x", b"a/y", b"a/x/1", b"c/d", b"c")]


def report(path: bytes, scope: Scope = Scope.ENTRY, **more: object) -> Report:
    return Report(RelPath(path), scope, **more)  # type: ignore[arg-type]


def names(changes: list[Change]) -> list[bytes]:
    return [change.path for change in changes]


def test_a_path_is_given_out_once_in_the_order_of_the_reports() -> None:
    log = ChangeLog()
    cursor = log.add_cursor()
    for path in (b"a", b"b", b"a"):
        log.note(report(path), 0.0)
    ticket, changes = log.take(cursor, 0.0, 100)
    assert names(changes) == [b"a", b"b"]
    assert log.take(cursor, 0.0, 100)[1] == []
    log.acknowledge(cursor, ticket, [change.path for change in changes])


def test_reported_while_being_worked_on_it_is_given_out_again_with_all_it_asked_for() -> None:
    log = ChangeLog()
    cursor = log.add_cursor()
    log.note(report(b"a", Scope.TREE), 0.0)
    ticket, _ = log.take(cursor, 0.0, 100)
    log.note(report(b"a", content=False), 1.0)
    log.acknowledge(cursor, ticket, [PATHS[0]])
    _, again = log.take(cursor, 1.0, 100)
    assert [(change.path, change.scope, change.content) for change in again] == [(b"a", Scope.TREE, True)]


def test_a_slow_target_keeps_its_place_and_the_quick_one_lets_nothing_pile_up() -> None:
    log = ChangeLog()
    quick, slow = log.add_cursor(), log.add_cursor()
    for number in range(50):
        log.note(report(b"%d" % number), 0.0)
        ticket, changes = log.take(quick, 0.0, 100)
        log.acknowledge(quick, ticket, [change.path for change in changes])
    assert len(log) == 50
    ticket, changes = log.take(slow, 0.0, 100)
    assert names(changes) == [b"%d" % number for number in range(50)]
    log.acknowledge(slow, ticket, [])
    assert len(log) == 0


def test_one_path_reported_for_ever_does_not_grow_the_log_of_a_dead_target() -> None:
    log = ChangeLog()
    alive, _dead = log.add_cursor(), log.add_cursor()
    for _ in range(50_000):
        log.note(report(b"a"), 0.0)
        ticket, changes = log.take(alive, 0.0, 100)
        assert names(changes) == [b"a"]
        log.acknowledge(alive, ticket, [PATHS[0]])
    assert len(log) == 1
    assert len(log._slots) < 3 * changelog_module.COMPACT_MIN


def test_a_batch_of_an_away_target_is_given_out_again() -> None:
    log = ChangeLog()
    cursor = log.add_cursor()
    log.note(report(b"a"), 0.0)
    log.note(report(b"b"), 0.0)
    ticket, _ = log.take(cursor, 0.0, 1)
    other, _ = log.take(cursor, 0.0, 1)
    log.acknowledge(cursor, other, [PATHS[1]])
    log.give_back(cursor, ticket)
    _, again = log.take(cursor, 0.0, 100)
    assert b"a" in names(again)


def test_nothing_is_added_to_a_change_that_was_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines rely on it: what was read for a change is good for that change."""
    monkeypatch.setattr(changelog_module, "COMPACT_MIN", 2)
    log = ChangeLog(quiet_s=1.0, hold_s=100.0)
    cursor = log.add_cursor()
    log.note(report(b"a"), 0.0)
    ticket, (given,) = log.take(cursor, 1.0, 100)
    log.give_back(cursor, ticket)
    for number in range(20):  # Each leaves an emptied slot; then they are cleared away, and the others renumbered.
        log.note(report(b"b"), number / 100)
    ticket, none = log.take(cursor, 0.5, 100)
    assert none == []
    log.acknowledge(cursor, ticket, ())
    assert len(log._slots) == 2
    log.note(report(b"a"), 1.0)
    _, changes = log.take(cursor, 3.0, 100)
    assert sorted(names(changes)) == [b"a", b"b"]
    assert all(change is not given for change in changes)


def test_a_full_batch_ends_with_a_directory() -> None:
    log = ChangeLog()
    cursor = log.add_cursor()
    for number in range(20):
        log.note(report(b"%d/%d" % (number // 4, number)), 0.0)
    assert [len(log.take(cursor, 0.0, 10)[1]) for _ in range(3)] == [8, 8, 4]


def test_a_directory_that_fills_a_batch_is_split() -> None:
    log = ChangeLog()
    cursor = log.add_cursor()
    for number in range(20):
        log.note(report(b"d/%d" % number), 0.0)
    assert [len(log.take(cursor, 0.0, 8)[1]) for _ in range(3)] == [8, 8, 4]


@pytest.mark.parametrize("delay_s", [0.0, 1.0])
def test_in_a_directory_that_is_to_be_looked_at_anyway_nothing_is_kept(delay_s: float) -> None:
    """Where what waits is not put off by what comes after it."""
    log = ChangeLog(quiet_s=delay_s, hold_s=delay_s)
    cursor = log.add_cursor()
    log.note(report(b"d", Scope.TREE), 0.0)
    for path in (b"d/a", b"d/b"):
        log.note(report(path), 0.0)
    assert len(log) == 1
    ticket, due = log.take(cursor, 1.0, 10)
    assert [change.path for change in due] == [b"d"]
    log.note(report(b"d/a"), 1.0)  # It may have been looked at already.
    log.acknowledge(cursor, ticket, [RelPath(b"d")])
    _, due = log.take(cursor, 2.0, 10)
    assert [change.path for change in due] == [b"d/a"]


def test_nor_is_anything_kept_further_down() -> None:
    """What is in a directory that needs no change of its own needs none either, until the TREE above is given out."""
    log = ChangeLog(quiet_s=1.0, hold_s=1.0)
    cursor = log.add_cursor()
    for number, path in enumerate((b"d", b"d/e", b"d/e/f")):
        log.note(Report(RelPath(path), Scope.TREE, content=True, is_dir=True), number / 10)
        log.note(report(path + b"/file"), number / 10)
    assert len(log) == 1
    log.note(report(b"later"), 0.9)
    ticket, due = log.take(cursor, 1.0, 10)
    assert names(due) == [b"d"]
    log.note(report(b"d/e/f/file"), 1.0)
    log.acknowledge(cursor, ticket, [RelPath(b"d")])
    assert names(log.take(cursor, 2.0, 10)[1]) == [b"later", b"d/e/f/file"]


def test_what_was_kept_out_for_a_change_that_is_gone_is_not_kept_out_any_more() -> None:
    """A change that left the log keeps its number, and numbers are given anew."""
    log = ChangeLog(quiet_s=1.0, hold_s=1.0)
    cursor, _away = log.add_cursor(), log.add_cursor()
    for now_s in range(10):
        log.note(report(b"x"), now_s)
        log.acknowledge(cursor, log.take(cursor, now_s + 1.0, 10)[0], [])
    log.note(Report(RelPath(b"d"), Scope.TREE, content=True, is_dir=True), 20.0)
    log.note(Report(RelPath(b"d/e"), Scope.TREE, content=True, is_dir=True), 20.0)
    log.note(report(b"later"), 20.5)
    log.acknowledge(cursor, log.take(cursor, 21.0, 10)[0], [])
    log.note(report(b"d", Scope.TREE), 21.0)
    log.note(report(b"x"), 21.5)
    log._compact()
    log.acknowledge(cursor, log.take(cursor, 22.0, 10)[0], [])
    log.note(report(b"d/e/file"), 31.0)
    left = log.take(cursor, 40.0, 10)[1]
    assert any(change.path in (b"d/e/file", b"d/e", b"d", b"") for change in left)


@pytest.mark.parametrize("what", ["content", "a move", "a listing", "a pause"])
def test_what_is_not_covered_by_its_directory_is_kept(what: str) -> None:
    log = ChangeLog(quiet_s=1.0 if what == "a pause" else 0.0)
    cursor = log.add_cursor()
    scope = Scope.LIST if what == "a listing" else Scope.TREE
    log.note(Report(RelPath(b"d"), scope, content=what != "content", is_dir=True), 0.0)
    moved_from = RelPath(b"x") if what == "a move" else None
    log.note(Report(RelPath(b"d/a"), content=True, moved_from=moved_from), 0.0)
    _, due = log.take(cursor, 2.0, 10)
    assert b"d/a" in [change.path for change in due]


def test_quiet_and_hold() -> None:
    log = ChangeLog(quiet_s=1.0, hold_s=3.0)
    cursor = log.add_cursor()
    for tenths in range(100):
        now_s = tenths / 10
        log.note(report(b"a"), now_s)
        due_s = log.due_s(cursor)
        assert due_s is not None
        assert due_s <= 3.0
        if due_s <= now_s:
            break
    else:
        pytest.fail("never due")
    assert 2.0 <= now_s <= 3.0


def test_past_the_bound_paths_fold_into_their_directory_and_then_into_the_root() -> None:
    log = ChangeLog(paths_max=100)
    cursor = log.add_cursor()
    for number in range(101):
        log.note(report(b"d/%d" % number, content=number == 7), 0.0)
    _, changes = log.take(cursor, 0.0, 1000)
    assert [(change.path, change.scope, change.content) for change in changes] == [(b"d", Scope.TREE, True)]
    for number in range(200):
        log.note(report(b"d%d/x" % number), 0.0)
    _, changes = log.take(cursor, 0.0, 1000)
    assert (ROOT, Scope.TREE) in [(change.path, change.scope) for change in changes]


class TestMoves:
    """A move may be done as a rename only by a target that holds under the old name what was moved."""

    def log_at_rest(self) -> ChangeLog:
        log = ChangeLog()
        log.add_cursor()
        return log

    def taken(self, log: ChangeLog) -> dict[bytes, Change]:
        _, changes = log.take(log._cursors[0], 0.0, 100)
        return {change.path: change for change in changes}

    def test_a_clean_move_is_given_out_before_its_old_name(self) -> None:
        log = self.log_at_rest()
        log.note(report(b"new", Scope.TREE, is_dir=True, moved_from=RelPath(b"old")), 0.0)
        _, changes = log.take(log._cursors[0], 0.0, 100)
        assert names(changes) == [b"new", b"old"]
        assert changes[0].moved_from == b"old"
        assert changes[0].clean_for == 1
        assert changes[1].scope is Scope.TREE

    @pytest.mark.parametrize(
        "before",
        [report(b"old"), report(b"old/x"), report(b"", Scope.TREE), report(b"up", Scope.TREE)],
        ids=["itself", "below", "root", "ancestor"],
    )
    def test_not_when_something_there_is_pending(self, before: Report) -> None:
        log = self.log_at_rest()
        log.note(before, 0.0)
        old = RelPath(b"up/old" if before.path == b"up" else b"old")
        log.note(report(b"new", moved_from=old), 0.0)
        assert self.taken(log)[b"new"].moved_from is None

    def test_not_when_it_is_being_worked_on(self) -> None:
        log = self.log_at_rest()
        log.note(report(b"old/x"), 0.0)
        log.take(log._cursors[0], 0.0, 100)
        log.note(report(b"new", moved_from=RelPath(b"old")), 0.0)
        assert self.taken(log)[b"new"].moved_from is None

    def test_not_when_it_was_synced_since_the_queue_was_empty(self) -> None:
        log = self.log_at_rest()
        log.note(report(b"old/x"), 0.0)
        ticket, _ = log.take(log._cursors[0], 0.0, 100)
        log.acknowledge(log._cursors[0], ticket, [RelPath(b"old/x")])
        log.note(report(b"new", moved_from=RelPath(b"old")), 0.0)
        assert self.taken(log)[b"new"].moved_from is None

    def test_again_once_the_queue_was_empty(self) -> None:
        log = self.log_at_rest()
        log.note(report(b"old/x"), 0.0)
        ticket, _ = log.take(log._cursors[0], 0.0, 100)
        log.acknowledge(log._cursors[0], ticket, [RelPath(b"old/x")])
        log.drained()
        log.note(report(b"new", moved_from=RelPath(b"old")), 0.0)
        assert self.taken(log)[b"new"].moved_from == b"old"

    def test_not_when_it_waits_for_another_try(self) -> None:
        log = ChangeLog()
        log.add_cursor({RelPath(b"old/x")})
        log.note(report(b"new", moved_from=RelPath(b"old")), 0.0)
        assert self.taken(log)[b"new"].moved_from is None

    def test_not_when_something_else_was_put_there_afterwards(self) -> None:
        log = self.log_at_rest()
        log.note(report(b"new", moved_from=RelPath(b"old")), 0.0)
        log.note(report(b"new"), 0.0)
        assert self.taken(log)[b"new"].moved_from is None

    def test_still_when_only_its_attributes_were_touched_afterwards(self) -> None:
        log = self.log_at_rest()
        log.note(report(b"new", moved_from=RelPath(b"old")), 0.0)
        log.note(report(b"new", content=False), 0.0)
        assert self.taken(log)[b"new"].moved_from == b"old"

    @pytest.mark.parametrize("taken", ["by nobody", "by both", "by the other"])
    def test_not_onto_a_directory_that_was_to_be_looked_at_as_a_whole(self, taken: str) -> None:
        """What was reported below it in between stands in no slot of its own; a rename would walk past it."""
        log = self.log_at_rest()
        other = log.add_cursor()
        log.note(report(b"new", Scope.TREE, is_dir=True), 0.0)
        log.note(report(b"new/x"), 0.0)
        for cursor in {"by nobody": [], "by both": log._cursors, "by the other": [other]}[taken]:
            log.take(cursor, 0.0, 100)
        log.note(report(b"new", Scope.TREE, is_dir=True, moved_from=RelPath(b"old")), 0.0)
        assert self.taken(log)[b"new"].moved_from is None

    def test_there_and_back_and_there_is_no_move(self) -> None:
        log = self.log_at_rest()
        log.note(report(b"b", moved_from=RelPath(b"a")), 0.0)
        log.note(report(b"a", moved_from=RelPath(b"b")), 0.0)
        assert all(change.moved_from is None for change in self.taken(log).values())

    def test_not_after_its_batch_was_given_back(self) -> None:
        log = self.log_at_rest()
        log.note(report(b"new", moved_from=RelPath(b"old")), 0.0)
        ticket, _ = log.take(log._cursors[0], 0.0, 100)
        log.give_back(log._cursors[0], ticket)
        assert self.taken(log)[b"new"].moved_from is None

    def test_not_when_it_would_be_given_out_after_its_old_name(self) -> None:
        log = ChangeLog(quiet_s=1.0, hold_s=10.0)
        log.add_cursor()
        log.note(report(b"new", moved_from=RelPath(b"old")), 0.0)
        log.note(report(b"new", content=False), 0.5)
        _, changes = log.take(log._cursors[0], 5.0, 100)
        assert names(changes) == [b"old", b"new"]
        assert changes[1].moved_from is None


class TestCovered:
    def test_a_tree_covers_what_is_below(self) -> None:
        changes = [Change(RelPath(b"a"), Scope.TREE), Change(RelPath(b"a/x")), Change(RelPath(b"ab"))]
        assert names(without_covered(changes)) == [b"a", b"ab"]

    def test_a_trusting_tree_does_not_cover_touched_content(self) -> None:
        changes = [Change(ROOT, Scope.TREE, content=False), Change(RelPath(b"a")), Change(RelPath(b"b"), content=False)]
        assert names(without_covered(changes)) == [b"", b"a"]

    def test_a_move_covers_nothing(self) -> None:
        changes = [Change(RelPath(b"new"), Scope.TREE), Change(RelPath(b"new/x"))]
        assert names(without_covered(changes, {RelPath(b"new"): RelPath(b"old")})) == [b"new", b"new/x"]

    def test_paths_two_thousand_levels_deep(self) -> None:
        deep = RelPath(b"/".join([b"d"] * 2000))
        changes = [Change(RelPath(b"d"), Scope.TREE), Change(deep)]
        assert names(without_covered(changes)) == [b"d"]

    @given(
        st.lists(
            st.tuples(st.sampled_from([*PATHS, ROOT]), st.sampled_from(Scope), st.booleans()),
            unique_by=lambda row: row[0],
        )
    )
    def test_what_is_left_out_is_covered(self, rows: list[tuple[RelPath, Scope, bool]]) -> None:
        changes = [Change(path, scope, content=content) for path, scope, content in rows]
        left = without_covered(list(changes))
        for change in changes:
            if change not in left:
                assert any(
                    tree.scope is Scope.TREE
                    and tree.content >= change.content
                    and (not tree.path or change.path.startswith(tree.path + b"/"))
                    for tree in left
                )


class LogAgainstModel(RuleBasedStateMachine):
    """Two targets at their own pace: each must be given every report made since it last acknowledged the path."""

    @initialize(
        quiet_s=st.sampled_from([0.0, 1.0]), hold_s=st.sampled_from([1.0, 2.0]), paths_max=st.sampled_from([3, 1000])
    )
    def start(self, quiet_s: float, hold_s: float, paths_max: int) -> None:
        self.log = ChangeLog(quiet_s=quiet_s, hold_s=hold_s, paths_max=paths_max)
        self.now_s = 0.0
        self.cursors = [self.log.add_cursor(), self.log.add_cursor()]
        # per target: path -> (first report not given out, scope, content)
        self.owed: list[dict[RelPath, tuple[float, Scope, bool]]] = [{}, {}]
        self.flying: list[list[tuple[int, dict[RelPath, tuple[float, Scope, bool]]]]] = [[], []]

    @rule(
        path=st.sampled_from(PATHS),
        scope=st.sampled_from(Scope),
        content=st.booleans(),
        is_dir=st.booleans(),
        wait=st.sampled_from([0, 0.6, 3]),
    )
    def note(self, path: RelPath, scope: Scope, content: bool, is_dir: bool, wait: float) -> None:
        self.now_s += wait
        self.log.note(Report(path, scope, content, is_dir), self.now_s)
        for owed in self.owed:
            first_s, more, touched = owed.get(path, (self.now_s, scope, content))
            owed[path] = (first_s, max(more, scope), touched or content)

    @rule(path=st.sampled_from([path for path in PATHS if path.count(b"/")]))
    def fill(self, path: RelPath) -> None:
        """A new directory, and something in it."""
        self.note(RelPath(path.rpartition(b"/")[0]), Scope.TREE, content=True, is_dir=True, wait=0)
        self.note(path, Scope.ENTRY, content=True, is_dir=False, wait=0)

    @rule(old=st.sampled_from(PATHS), new=st.sampled_from(PATHS))
    def move(self, old: RelPath, new: RelPath) -> None:
        if old == new:
            return
        self.log.note(Report(new, Scope.TREE, True, True, old), self.now_s)
        for owed in self.owed:
            for path in (new, old):
                first_s = owed[path][0] if path in owed else self.now_s
                owed[path] = (first_s, Scope.TREE, True)

    @rule(which=st.integers(0, 1), most=st.sampled_from([1, 2, 100]), wait=st.sampled_from([0, 1, 5]))
    def take(self, which: int, most: int, wait: float) -> None:
        self.now_s += wait
        ticket, changes = self.log.take(self.cursors[which], self.now_s, most)
        given: dict[RelPath, tuple[float, Scope, bool]] = {}
        owed = self.owed[which]
        for change in changes:
            for path in list(owed):
                if self.gives(change, path, which):
                    given[path] = owed.pop(path)
        self.flying[which].append((ticket, given))

    def gives(self, change: Change, path: RelPath, which: int) -> bool:
        """Whether this change is all that this target is owed for the path: its own, or one that looks below itself.

        If it makes a rename of it, it does not look below.
        """
        _, scope, content = self.owed[which][path]
        if change.content < content:
            return False
        if change.path == path:
            return change.scope >= scope
        moved = change.moved_from is not None and bool(change.clean_for & self.cursors[which].bit)
        return change.scope is Scope.TREE and not moved and (not change.path or path.startswith(change.path + b"/"))

    @precondition(lambda self: any(self.flying))
    @rule(which=st.integers(0, 1), again=st.booleans(), newest=st.booleans())
    def land(self, which: int, again: bool, newest: bool) -> None:
        if not self.flying[which]:
            return
        ticket, given = self.flying[which].pop(-1 if newest else 0)
        if again:
            self.log.give_back(self.cursors[which], ticket)
            for path, (first_s, scope, content) in given.items():
                _, more, touched = self.owed[which].get(path, (first_s, scope, content))
                self.owed[which][path] = (first_s, max(more, scope), touched or content)
        else:
            self.log.acknowledge(self.cursors[which], ticket, list(given))

    @rule()
    def compact(self) -> None:
        """It happens by itself past some thousand slots."""
        self.log._compact()

    @rule()
    def drain(self) -> None:
        self.log.drained()

    @invariant()
    def everything_owed_comes(self) -> None:
        if not hasattr(self, "log"):
            return
        for which, cursor in enumerate(self.cursors):
            pending = self.log._slots[cursor.taken - self.log._base :]
            for path in self.owed[which]:
                assert any(change is not None and self.gives(change, path, which) for change in pending), (
                    f"{path!r} is lost to target {which}"
                )

    @invariant()
    def slots_are_ordered_by_due_time(self) -> None:
        if not hasattr(self, "log"):
            return
        due = [change.due_s for change in self.log._slots if change is not None]
        if self.log.folds == 0:
            assert due == sorted(due)
        for change in self.log._slots:
            if change is not None:
                assert change.due_s <= change.first_s + self.log.hold_s + 1e-9


TestLogAgainstModel = LogAgainstModel.TestCase
TestLogAgainstModel.settings = settings(max_examples=1500 if FULL else 300, stateful_step_count=30, deadline=None)
