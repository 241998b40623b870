"""What a disk lost, until that very thing has arrived."""

from __future__ import annotations

import pytest

from instep.daemon.indexes import losses
from instep.daemon.indexes.losses import EVERYTHING, Losses
from instep.paths import ROOT, Scope

ENTRY, TREE = Scope.ENTRY, Scope.TREE


def lost(*paths: bytes) -> Losses:
    some = Losses()
    some.add(dict.fromkeys(paths, ENTRY))
    return some


def left(some: Losses) -> dict[bytes, Scope]:
    return {change.path: change.scope for change in some.changes()}


def test_only_what_arrived_is_well_again() -> None:
    some = lost(b"a", b"d/f")
    assert not some.arrived({b"b", b"d"}, (), (), ())
    assert not some.arrived({b"a"}, (), (), ())
    assert left(some) == {b"d/f": ENTRY}
    assert some.arrived({b"d/f"}, (), (), ())
    assert not some


def test_with_a_tree_all_below_it_arrives_but_what_is_pending() -> None:
    some = lost(b"d/f", b"d/g", b"d/s/x", b"dd")
    assert not some.arrived(set(), {b"d"}, {b"d/g", b"d/s"}, {b"d/s"})
    assert left(some) == {b"d/g": ENTRY, b"d/s/x": ENTRY, b"dd": ENTRY}


def test_a_lost_tree_has_not_arrived_with_its_directory() -> None:
    some = Losses()
    some.add({b"d": TREE})
    assert not some.arrived({b"d"}, (), (), ())
    assert some.arrived({b"d"}, {b"d"}, (), ())


def test_of_a_lost_tree_what_was_pending_stays_lost() -> None:
    some = Losses()
    some.add(EVERYTHING)
    assert not some.arrived((), {ROOT}, {ROOT}, {ROOT})
    assert not some.arrived((), {ROOT}, {b"a", b"d"}, {b"d"})
    assert left(some) == {b"a": ENTRY, b"d": TREE}


def test_very_much_is_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(losses, "DISTRUSTED_MAX", 2)
    some = Losses()
    changes = some.add({b"a": ENTRY, b"b": ENTRY, b"c": ENTRY})
    assert [(change.path, change.scope, change.content) for change in changes] == [(b"", TREE, True)]
    assert left(some) == EVERYTHING


def test_good_news_for_nothing_lost_is_no_news() -> None:
    some = Losses()
    some.in_a_row = 3
    assert not some.arrived({b"a"}, (), (), ())
    assert some.in_a_row == 0


def test_it_is_news_once_until_all_is_well() -> None:
    some = lost(b"a")
    assert [some.told(), some.told()] == [True, False]
    assert some.in_a_row == 2
    assert not some.arrived({b"b"}, (), (), ())
    assert some.in_a_row == 0
    assert not some.told()
    assert some.arrived({b"a"}, (), (), ())
    some.add({b"a": ENTRY})
    assert some.told()
