"""What of a commit is put off."""

from __future__ import annotations

from instep.daemon.indexes.target_index import _take_out

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
