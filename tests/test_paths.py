"""Names that never sync."""

from __future__ import annotations

import pytest

from instep.paths import is_below, is_temporary, is_within_temporary


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b".instep-1-2.tmp", True),
        (b"d/.instep-1-2.tmp/e/f", True),
        (b"d/.instep-1-2.tmp", True),
        (b".instep-1-2.tmp.old", False),
        (b".instep-d/x.tmp", False),
        (b"x.instep-1.tmp", False),
        (b"", False),
    ],
)
def test_temporary_names(path: bytes, expected: bool) -> None:
    assert is_within_temporary(path) is expected
    assert is_temporary(path.rpartition(b"/")[2]) is (expected and not path.endswith(b"f"))


@pytest.mark.parametrize(
    ("path", "tops", "expected"),
    [
        (b"a/b/c", {b"a"}, True),
        (b"a/b/c", {b"x", b"a/b"}, True),
        (b"a", {b""}, True),
        (b"a/b", {b"a/b"}, False),  # itself
        (b"", {b""}, False),
        (b"ab/c", {b"a"}, False),
        (b"a/b", set(), False),
    ],
)
def test_what_is_below(path: bytes, tops: set[bytes], expected: bool) -> None:
    assert is_below(path, tops) is expected
