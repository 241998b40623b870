"""Which differences of a moving tree are true."""

from __future__ import annotations

import pytest

from instep.core.doubt import ABSENT_LOOKS_MAX, LOOKS_MAX, PAUSE_S, Doubts
from instep.model import Aspect, Difference
from instep.paths import RelPath

BEGAN_NS = 1000
NOW_NS = 2000
OLD = Difference(RelPath(b"a"), Aspect.MODE, "", source=(1, 2), changed_ns=10)


def look(doubts: Doubts, now_s: float, *again: Difference) -> list[Difference]:
    doubts.take(now_s, 100)
    return doubts.settle(again, now_s, NOW_NS)


def test_a_difference_is_true_at_the_second_look_and_not_before_the_pause() -> None:
    doubts = Doubts(BEGAN_NS)
    doubts.add([OLD], 5.0)
    assert doubts.due_s() == 5.0 + PAUSE_S
    assert doubts.take(5.0, 100) == []
    assert doubts.settle([], 5.0, NOW_NS) == []
    assert look(doubts, 5.0 + PAUSE_S, OLD) == [OLD]
    assert doubts.due_s() is None


def test_what_was_mended_meanwhile_is_no_difference() -> None:
    doubts = Doubts(BEGAN_NS)
    doubts.add([OLD], 0.0)
    assert look(doubts, 9.0) == []
    assert (len(doubts), doubts.changing) == (0, 0)


def test_a_source_that_changed_is_looked_at_once_more() -> None:
    doubts = Doubts(BEGAN_NS)
    doubts.add([OLD], 0.0)
    newer = OLD._replace(source=(1, 3))
    assert look(doubts, 1.0, newer) == []
    assert doubts.due_s() == 1.0 + 2 * PAUSE_S
    assert look(doubts, 2.0, newer) == [newer]


def test_a_source_that_never_rests_is_given_up() -> None:
    doubts = Doubts(BEGAN_NS)
    doubts.add([OLD], 0.0)
    for number in range(LOOKS_MAX - 1):
        assert len(doubts) == 1
        assert look(doubts, 100.0 * number + 100, OLD._replace(source=(number,))) == []
    assert (len(doubts), doubts.changing) == (0, 1)


@pytest.mark.parametrize(("changed_ns", "sure"), [(BEGAN_NS - 1, True), (BEGAN_NS, False), (NOW_NS + 1, True)])
def test_a_change_since_the_beginning_leaves_a_doubt_but_not_a_time_ahead(changed_ns: int, sure: bool) -> None:
    doubts = Doubts(BEGAN_NS)
    one = OLD._replace(changed_ns=changed_ns)
    doubts.add([one], 0.0)
    assert look(doubts, 1.0, one) == ([one] if sure else [])


def test_an_extra_name_in_a_directory_that_never_rests_is_told_in_the_end() -> None:
    doubts = Doubts(BEGAN_NS)
    one = Difference(RelPath(b"spool/extra"), Aspect.EXTRA, "", changed_ns=NOW_NS)
    doubts.add([one], 0.0)
    looks = 1
    while not (found := look(doubts, 100.0 * looks, one)):
        looks += 1
    assert found == [one]
    assert looks == ABSENT_LOOKS_MAX - 1


def test_at_most_so_many_at_once_and_the_earliest_first() -> None:
    doubts = Doubts(BEGAN_NS)
    for number in range(5):
        doubts.add([OLD._replace(path=RelPath(b"%d" % number))], float(number))
    assert [one.path for one in doubts.take(100.0, 2)] == [b"0", b"1"]
    doubts.settle([], 100.0, NOW_NS)
    assert len(doubts) == 3
