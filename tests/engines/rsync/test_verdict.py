"""What the end of a run means for each change."""

from __future__ import annotations

import pytest

from instep.engines.rsync.output import Complaint, Item
from instep.engines.rsync.verdict import STATUS, Verdict, blame, verdict
from instep.model import Change, Failure
from instep.paths import Scope
from tests.engines.rsync.places import entry, names, tree


def said(path: bytes | None, number: int = 13, *, vanished: bool = False) -> Complaint:
    return Complaint(f"said of {path!r}", number, path, in_source=False, vanished=vanished)


def members(changes: list[Change]) -> dict[bytes, list[Change]]:
    return {change.path: [change] for change in changes}


def differs(path: bytes, what: bytes = b">f.st......") -> Item:
    return Item(what, 1, path)


DELETED = b"*deleting  "


@pytest.mark.parametrize(
    ("changes", "differing", "complaints", "failing"),
    [
        ([entry(b"a"), entry(b"b")], [differs(b"a")], [said(b"a")], [b"a"]),
        ([entry(b"a"), entry(b"b")], [], [said(b"b")], [b"b"]),
        ([tree(b"t"), entry(b"b")], [differs(b"t/x/y")], [], [b"t"]),
        ([names(b"l"), entry(b"b")], [differs(b"l/x")], [], [b"l"]),
        ([names(b"l"), entry(b"b")], [differs(b"l/x/y")], [said(b"b")], [b"b"]),
        ([entry(b"gone"), entry(b"b")], [differs(b"gone/x", DELETED)], [], [b"gone"]),
        ([entry(b"d"), entry(b"b")], [differs(b"d/x")], [said(b"b")], [b"b"]),
        ([tree()], [differs(b"any/where")], [], [b""]),
        # Below a whole tree the very name, and what differs below it, is to blame; other differences blame the tree.
        ([tree(b"t"), entry(b"b")], [differs(b"t/x"), differs(b"t/x/y")], [said(b"t/x")], [b"t/x"]),
        ([tree()], [], [said(b"x"), said(b"y/z")], [b"x", b"y/z"]),
        ([tree(b"t")], [differs(b"t/y")], [said(b"t/x")], [b"t", b"t/x"]),
        ([tree(b"t")], [], [said(b"t")], [b"t"]),
        # A parent that could not be given its time: one change below keeps it pending.
        ([entry(b"p/a"), entry(b"p/b"), entry(b"q")], [], [said(b"p")], [b"p/a"]),
        # Nothing known: nothing is done.
        ([entry(b"a"), entry(b"b")], [], [], [b"a", b"b"]),
        ([entry(b"a"), entry(b"b")], [], [said(None)], [b"a", b"b"]),
        # Only vanished names: nothing failed.
        ([entry(b"a"), entry(b"b")], [], [said(b"a", 2, vanished=True)], []),
    ],
)  # fmt: skip
def test_who_is_to_blame(
    changes: list[Change], differing: list[Item], complaints: list[Complaint], failing: list[bytes]
) -> None:
    assert [f.change.path for f in blame(members(changes), differing, complaints, "?")] == failing


def test_a_name_listed_for_another_answers_with_its_change() -> None:
    change = entry(b"a")
    (one,) = blame({b"a": [change], b"other": [change]}, [differs(b"other")], [], "?")
    assert one.change is change


def test_a_directory_that_cannot_be_read_is_tried_again_as_a_whole() -> None:
    (one,) = blame({b"": [tree(content=True)]}, [], [said(b"d")], "?")
    assert (one.change.path, one.change.scope, one.change.content, one.hard) == (b"d", Scope.TREE, True, True)


def test_the_reason_is_the_nearest_that_rsync_gave() -> None:
    changes = [entry(b"p/a"), entry(b"q/b")]
    found: dict[bytes, Failure] = {
        f.change.path: f
        for f in blame(members(changes), [differs(b"p/a"), differs(b"q/b")], [said(b"p"), said(b"q/b", 5)], "?")
    }
    assert found[b"p/a"].reason == "said of b'p'"
    assert found[b"p/a"].hard
    assert not found[b"q/b"].hard


def test_a_failure_always_has_a_reason() -> None:
    (one,) = blame(members([entry(b"a")]), [differs(b"a")], [], "words")
    assert (one.reason, one.hard) == ("words", False)


def test_a_signal_is_never_success() -> None:
    for signal in range(1, 65):
        assert verdict(-signal, b"")[0] is Verdict.AWAY


def test_only_two_statuses_are_not_trouble() -> None:
    fine = [s for s in range(-64, 257) if verdict(s, b"")[0] is Verdict.DONE]
    assert fine == [0, 24]
    assert set(STATUS) >= {0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24, 25, 30, 35}


def test_no_space_in_the_source_is_not_the_targets() -> None:
    assert (
        verdict(23, b'rsync: [sender] read errors mapping "/s/x": No space left on device (28)\n')[0] is Verdict.PARTIAL
    )
    assert verdict(23, b'rsync: [receiver] mkstemp "/t/x" failed: No space left on device (28)\n')[0] is Verdict.FULL


def test_the_targets_root_missing_is_away() -> None:
    text = b'rsync: [Receiver] mkdir "/no/where" failed: No such file or directory (2)\nrsync error: (code 11)\n'
    kind, words = verdict(11, text)
    assert kind is Verdict.AWAY
    assert "No such file" in words
