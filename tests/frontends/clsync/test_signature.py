"""What is remembered of objects, and forgotten."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instep.frontends.clsync.signature import FIELDS, Signatures
from instep.paths import ROOT, RelPath


def result(**values: int) -> os.stat_result:
    """An lstat result with these fields, the rest of them zero."""
    names = ["mode", "ino", "dev", "nlink", "uid", "gid", "size"]
    more = {attribute: values.get(name, 0) for name, attribute in FIELDS.items() if name not in names}
    return os.stat_result([*(values.get(name, 0) for name in names), 0, 0, 0], more)


def test_the_first_event_counts_then_what_differs() -> None:
    known = Signatures({"uid", "gid"})
    a, b = RelPath(b"a"), RelPath(b"d/b")
    assert [known.is_new(path, result(uid=1)) for path in (a, a, b, b, ROOT, ROOT)] == [True, False] * 3
    assert not known.is_new(a, result(uid=1, size=7))
    assert known.is_new(a, result(uid=1, gid=1))
    assert known.is_new(a, result(uid=1))


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_can_be_chosen(name: str) -> None:
    known = Signatures({name})
    assert known.is_new(RelPath(b"a"), result())
    assert not known.is_new(RelPath(b"a"), result())
    assert known.is_new(RelPath(b"a"), result(**{name: 5}))


def test_times_count_to_the_nanosecond(tmp_path: Path) -> None:
    known = Signatures({"mtime"})
    file = tmp_path / "file"
    file.touch()
    for mtime_ns in (10**18, 10**18 + 1):
        os.utime(file, ns=(0, mtime_ns))
        assert known.is_new(RelPath(b"file"), os.lstat(file))


def test_without_fields_everything_counts() -> None:
    known = Signatures(())
    assert known.is_trivial
    assert known.is_new(RelPath(b"a"), result())
    assert known.is_new(RelPath(b"a"), result())
    known.forget(RelPath(b"a"))


def test_what_is_gone_is_forgotten_with_all_below() -> None:
    known = Signatures({"uid"})
    paths = [RelPath(path) for path in (b"d/e/f/g", b"d/x", b"dd", b"d", b"d/e/h", b"other/y")]
    for path in paths:
        assert known.is_new(path, result())
    known.forget(RelPath(b"d"))
    assert [known.is_new(path, result()) for path in paths] == [True, True, False, True, True, False]
    known.forget(RelPath(b"d/e"))  # of which nothing itself is known
    assert [known.is_new(path, result()) for path in paths] == [True, False, False, False, True, False]
    known.forget(RelPath(b"never/seen"))
    known.forget(ROOT)
    assert all(known.is_new(path, result()) for path in paths)


def test_the_root_alone() -> None:
    known = Signatures({"uid"})
    assert known.is_new(ROOT, result())
    assert known.is_new(RelPath(b"a"), result())
    known.forget(RelPath(b"a"))
    assert not known.is_new(ROOT, result())
