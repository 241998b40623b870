"""What of a commit is put off."""

from __future__ import annotations

from instep.daemon.target_index import _take_out, still_true
from instep.paths import Learned

ONE = b"1"


def test_what_is_pending_or_below_what_is_stays_out() -> None:
    records = {b"": {b"": ONE, b"a": ONE}, b"a": {b"f": ONE, b"g": ONE}, b"t": {b"x": ONE}, b"t/u": {b"y": ONE}}
    assert sorted(_take_out(records, {b"a/f", b"t", b"no"}, {b"t"})) == [b"a/f", b"t/u/y", b"t/x"]
    assert records == {b"": {b"": ONE, b"a": ONE}, b"a": {b"g": ONE}, b"t": {}, b"t/u": {}}


def test_below_the_root_is_everything_but_itself() -> None:
    records = {b"": {b"": ONE, b"a": ONE}, b"a": {b"f": ONE}}
    assert sorted(_take_out(records, {b"no"}, {b""})) == [b"a", b"a/f"]
    assert records == {b"": {b"": ONE}, b"a": {}}


def test_with_nothing_pending_all_is_kept() -> None:
    records = {b"": {b"a": ONE}}
    assert _take_out(records, (), ()) == []
    assert records == {b"": {b"a": ONE}}


def test_what_was_learned_before_a_later_batch_is_true_no_more() -> None:
    learned: dict[bytes, Learned] = {path: (path, 10, b"", []) for path in (b"a", b"a/b", b"c", b"d/e/f", b"g")}
    trees = {b"a": 5, b"a/b": 11, b"c": 10, b"d": 7, b"d/e": 9}
    assert set(still_true(learned, trees)) == {b"a", b"c", b"d/e/f"}
    assert set(still_true(learned, {b"": 3})) == set(learned)
    assert {began for _, began, _, _ in still_true(learned, {b"": 3, b"c": 4}).values()} == {3, 4}
    assert not still_true(learned, {b"": 11})
