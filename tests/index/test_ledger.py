"""The ledger: what may have been touched is never claimed, and when nothing is certain it says so."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from instep.index import ledger as module
from instep.index.journal import Touched
from instep.index.ledger import Commit, Ledger, NotBelieved, discard
from instep.model import Change, Landmarks
from instep.paths import Learned, RelPath, Scope
from instep.records import CLOCK_LAG_NS, GONE, SIZE, UNKNOWN, changed_ns

ONE = b"1" * SIZE
(CHANGED_NS,) = changed_ns(ONE)
HERE = Landmarks(b"here", frozenset({b"a", b"b"}))


def _change(path: bytes, scope: Scope = Scope.ENTRY, *, is_dir: bool = False) -> Change:
    return Change(RelPath(path), scope, is_dir=is_dir)


def asked(path: bytes, target: Landmarks | None = HERE) -> Touched:
    """What a start finds."""
    ledger = Ledger(path)
    try:
        touched = ledger.in_doubt()
        ledger.recognise(target, touched)
    finally:
        ledger.close(clean=False)
    return touched


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path / "i")


def whole(path: bytes) -> Ledger:
    """The ledger of a target that everything was brought over to."""
    ledger = Ledger(path)
    ledger.begin({}, whole=False)
    ledger.touch([_change(b"", Scope.TREE, is_dir=True)], ())
    commit = ledger.take()
    assert set(commit.trees) == {b""}
    ledger.start_writing(commit.trees)
    ledger.put([(b"", 0, b"a\0" + ONE + b"b\0" + ONE)])
    ledger.finish({b"": {b"": ONE}}, (), (), whole=HERE)
    ledger.settle()
    assert ledger.whole
    return ledger


def test_a_whole_index_is_believed_again(path: bytes) -> None:
    whole(path).close(clean=True)
    assert asked(path) == {}


def test_after_a_kill_the_journal_says_what_is_in_doubt(path: bytes) -> None:
    ledger = whole(path)
    ledger.touch([_change(b"a"), _change(b"new", Scope.TREE)], [RelPath(b"old")])
    ledger._store.close()
    assert asked(path) == {b"a": Scope.ENTRY, b"new": Scope.TREE, b"old": Scope.TREE}


def test_what_was_not_at_rest_stays_in_doubt(path: bytes) -> None:
    ledger = whole(path)
    ledger.touch([_change(b"a"), _change(b"b")], ())
    commit = ledger.take()
    ledger.touch([_change(b"c")], ())
    ledger.start_writing(())
    ledger.finish({b"": {b"a": ONE}}, (), (), whole=None)
    ledger.give_back(commit, [b"b"])
    ledger.settle()
    assert ledger.in_question() == {b"b": Scope.ENTRY, b"c": Scope.ENTRY}
    ledger.close(clean=True)
    assert asked(path) == {b"b": Scope.ENTRY, b"c": Scope.ENTRY}


@pytest.mark.parametrize(
    ("why", "words"),
    [
        ("none", "there was none"),
        ("unfinished", "not finished"),
        ("nowhere", "cannot be told"),
        ("other target", "not the one"),
        ("emptied target", "lacks 1 names that it had, 'b' among them"),
        ("power cut", "went down"),
        ("no journal", "journal is lost"),
        ("broken", "there was none"),
    ],
)
def test_when_it_is_not_believed(path: bytes, why: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    target: Landmarks | None = HERE
    if why == "unfinished":
        ledger = Ledger(path)
        ledger.begin({}, whole=False)
        ledger.close(clean=True)
    elif why != "none":
        whole(path).close(clean=why != "power cut")
    if why == "nowhere":
        target = None
    elif why == "other target":
        target = Landmarks(b"there", HERE.names)
    elif why == "emptied target":
        target = Landmarks(b"here", frozenset({b"a", b"other"}))
    elif why == "power cut":
        monkeypatch.setattr(module, "_boot", lambda: b"another boot")
    elif why == "no journal":
        os.unlink(path + b".journal")
    elif why == "broken":
        with open(path, "r+b") as file:
            file.write(b"nonsense" * 100)
    with pytest.raises(NotBelieved, match=words):
        asked(path, target)


def test_a_name_of_which_nothing_is_known_need_not_be_there(path: bytes) -> None:
    ledger = whole(path)
    ledger.start_writing(())
    ledger.finish({b"": {b"c": UNKNOWN}}, [b"e"], (), whole=None)
    ledger.close(clean=True)
    assert asked(path) == {}


def test_a_machine_that_was_shut_down_in_good_order_is_believed(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    whole(path).close(clean=True)
    monkeypatch.setattr(module, "_boot", lambda: b"another boot")
    assert asked(path) == {}


def test_parents_are_recorded_with_their_names(path: bytes) -> None:
    ledger = whole(path)
    ledger.touch([_change(b"d/e/f"), _change(b"g")], ())
    look, seen = ledger.take().singles()
    assert {parent: set(names) for parent, names in look.items()} == {b"d/e": {b"f"}, b"d": {b"e"}, b"": {b"g", b""}}
    assert len({value for names in look.values() for value in names.values()}) == 1
    assert not seen
    ledger.close(clean=True)


def test_what_a_batch_saw_is_not_looked_at_again() -> None:
    """As long as it was older than the batch, and no directory above was brought over whole since."""
    began = {b"d/f": CHANGED_NS + 2, b"d/g": CHANGED_NS, b"d": CHANGED_NS + 1, b"t/x": CHANGED_NS + 3, b"t": 5}
    learned = dict.fromkeys(began, ONE)
    commit = Commit(began, {b"t": Scope.TREE}, set(), {}, learned)
    assert commit.singles() == (
        {
            b"d": {b"g": CHANGED_NS},
            b"t": {b"x": CHANGED_NS + 3},
            b"": {b"d": CHANGED_NS + 2, b"t": CHANGED_NS + 3, b"": CHANGED_NS + 1},
        },
        {b"d": {b"f": ONE}, b"": {}},
    )


def test_what_was_learned_before_a_later_batch_is_true_no_more() -> None:
    learned: dict[bytes, Learned] = {path: (path, 10, b"", []) for path in (b"a", b"a/b", b"c", b"d/e/f", b"g")}

    def still_true(trees: dict[bytes, int]) -> dict[bytes, Learned]:
        return Commit(trees, dict.fromkeys(trees, Scope.TREE), set(), learned, {}).still_true()

    assert set(still_true({b"a": 5, b"a/b": 11, b"c": 10, b"d": 7, b"d/e": 9})) == {b"a", b"c", b"d/e/f"}
    assert set(still_true({b"": 3})) == set(learned)
    assert {began for _, began, _, _ in still_true({b"": 3, b"c": 4}).values()} == {3, 4}
    assert not still_true({b"": 11})


def test_what_a_batch_saw_of_a_name_counts_until_the_next_one_begins(path: bytes) -> None:
    ledger = whole(path)
    for name in (b"d/e", b"f"):
        ledger.touch([_change(name)], ())
        ledger.learn([], {name: ONE})
    ledger.touch([_change(b"f")], ())
    commit = ledger.take()
    assert commit.learned_names == {b"d/e": ONE}
    assert set(commit.began) == {b"d/e", b"f"}
    ledger.learn([], {b"f": ONE})
    ledger.give_back(commit, [b"f"])
    assert ledger.take().learned_names == {b"f": ONE}
    ledger.close(clean=True)


def test_a_directory_that_went_is_forgotten_with_all_below(path: bytes) -> None:
    ledger = whole(path)
    ledger.start_writing(())
    ledger.put([(b"d", 0, b"x\0" + ONE), (b"d/e", 0, b"")])
    ledger.finish({b"d": {b"x": ONE}}, (), (), whole=None)
    ledger.start_writing(())
    ledger.finish({b"": {b"d": GONE}}, (), [b"d"], whole=None)
    ledger.fold()
    assert not list(ledger._store.below(b"d"))
    ledger.close(clean=True)


def test_many_single_records_fold_by_themselves(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FOLD_ROWS", 3)
    ledger = whole(path)
    ledger.start_writing(())
    ledger.finish({b"": {b"c": ONE}, b"c": {b"d": ONE}, b"d": {b"e": ONE}, b"e": {b"f": ONE}}, [b"d/g"], (), whole=None)
    assert ledger._store.change_count() == 0
    assert (ledger._store.entries(b"") or b"").count(ONE) == 3
    assert ledger._store.entries(b"d") == b"e\0" + ONE + b"g\0" + UNKNOWN
    ledger.close(clean=True)


def test_an_aborted_commit_changes_nothing(path: bytes) -> None:
    ledger = whole(path)
    ledger.start_writing([b""])
    ledger.put([(b"", 0, b"")])
    ledger.abort()
    ledger.close(clean=True)
    assert asked(path) == {}


def test_discard_leaves_nothing(path: bytes) -> None:
    whole(path).close(clean=False)
    discard(path)
    assert os.listdir(os.path.dirname(path)) == []


def test_what_the_process_before_left_is_in_question_until_it_was_looked_at(path: bytes) -> None:
    whole(path).close(clean=True)
    ledger = Ledger(path)
    ledger.begin({b"a": Scope.ENTRY, b"d": Scope.TREE, b"e": Scope.ENTRY}, whole=True)
    assert not ledger.touched
    ledger.touch([_change(b"a"), _change(b"d")], ())
    assert ledger.in_question() == {b"a": Scope.ENTRY, b"d": Scope.TREE, b"e": Scope.ENTRY}
    commit = ledger.take()
    assert ledger.in_question() == {b"d": Scope.TREE, b"e": Scope.ENTRY}
    ledger.give_back(commit, [b"a"])
    ledger.settle()
    ledger.close(clean=True)
    again = Ledger(path)
    assert again.in_doubt() == {b"a": Scope.ENTRY, b"d": Scope.TREE, b"e": Scope.ENTRY}
    again.begin({b"e": Scope.ENTRY}, whole=True)
    again.touch([_change(b"", Scope.TREE)], ())
    assert again.in_question() == {b"": Scope.TREE}
    again.close(clean=True)


def test_where_a_killed_process_worked_is_listed_once(path: bytes) -> None:
    ledger = whole(path)
    ledger.touch([_change(b"a"), _change(b"d/e/f", Scope.TREE)], [RelPath(b"g/h")])
    ledger.close(clean=False)
    again = Ledger(path)
    again.begin(asked(path), whole=True)
    again.touch([_change(b"a")], ())
    assert again.take_unswept() == {b"", b"d/e", b"g"}
    assert not again.take_unswept()
    again.close(clean=True)


def test_what_is_given_back_twice_is_given_back_once(path: bytes) -> None:
    """A tree that is still being brought over, and a name in it that asks for the record of its directory."""
    ledger = whole(path)
    ledger.touch([_change(b"d", Scope.TREE), _change(b"d/a")], ())
    commit = ledger.take()
    ledger.give_back(commit, [b"d"])
    rest = commit.without([b"d"])
    ledger.give_back(rest, [b"d", b"d/a"])
    assert ledger.in_question() == {b"d": Scope.TREE, b"d/a": Scope.ENTRY}
    ledger.close(clean=True)


def test_begun_anew_nothing_is_known(path: bytes) -> None:
    ledger = whole(path)
    ledger.touch([_change(b"a")], ())
    ledger.begin({}, whole=False)
    assert not ledger.whole
    assert ledger.in_question() == {b"a": Scope.ENTRY}
    assert not list(ledger._store.below(b""))
    ledger.close(clean=True)
    with pytest.raises(NotBelieved, match="not finished"):
        asked(path)


def test_since_when_a_first_comparison_is_not_finished(path: bytes) -> None:
    """The first of several that were not; none once one was."""
    since: list[int] = []
    times_ns = [time.time_ns()]
    for _ in range(3):
        ledger = Ledger(path)
        ledger.begin({}, whole=False)
        times_ns.append(time.time_ns())
        since.append(ledger.unfinished_ns)
        ledger.close(clean=False)
    assert since[0] == 0
    assert times_ns[0] <= since[1] + CLOCK_LAG_NS <= times_ns[1]
    assert since[2] == since[1]
    whole(path).close(clean=True)
    ledger = Ledger(path)
    ledger.begin({}, whole=False)
    assert ledger.unfinished_ns == 0
    ledger.close(clean=False)
