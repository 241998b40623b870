"""The index file: what is written is there again, and what is no index is told apart."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from instep.index.store import BrokenIndex, Store
from instep.records import GONE, SIZE, UNKNOWN, parse

ONE, TWO = b"1" * SIZE, b"2" * SIZE


def _text(**entries: bytes) -> bytes:
    return b"".join(name.encode() + b"\0" + one for name, one in entries.items())


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path / "i")


def test_only_its_owner_reads_it(path: bytes) -> None:
    Store(path).close()
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_what_was_written_is_there_again(path: bytes) -> None:
    store = Store(path)
    with store.transaction():
        store.put_directories([(b"", _text(a=ONE)), (b"a", _text(b=TWO))])
        store.put_meta(whole=b"1")
    store.close()
    again = Store(path, read_only=True)
    assert parse(again.entries(b"a") or b"") == {b"b": TWO}
    assert again.entries(b"nothing") is None
    assert again.meta() == {"whole": b"1"}
    again.close()


def test_a_transaction_that_fails_leaves_nothing(path: bytes) -> None:
    store = Store(path)

    def fail() -> None:
        with store.transaction():
            store.put_meta(whole=b"1")
            raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert store.meta() == {}
    store.begin()
    store.put_meta(whole=b"1")
    store.rollback()
    store.rollback()
    assert store.meta() == {}
    store.close()


def test_single_changes_fold_into_the_texts(path: bytes) -> None:
    store = Store(path)
    with store.transaction():
        store.put_directories([(b"", _text(a=ONE, b=ONE, d=ONE)), (b"d", _text(x=ONE))])
        store.put_changes([(b"", _text(a=ONE, c=TWO)), (b"d", _text(y=TWO)), (b"gone", _text(z=GONE))])
        store.put_changes([(b"", _text(a=TWO, b=GONE, d=UNKNOWN))])
        assert store.change_count() == 4
        store.fold()
    assert store.change_count() == 0
    assert parse(store.entries(b"") or b"") == {b"a": TWO, b"c": TWO, b"d": UNKNOWN}
    assert parse(store.entries(b"d") or b"") == {b"x": ONE, b"y": TWO}
    assert store.entries(b"gone") is None
    store.close()


def test_a_subtree_is_forgotten_and_no_neighbour(path: bytes) -> None:
    store = Store(path)
    names = [b"a", b"a/b", b"a/b/c", b"a-b", b"a0", b"ab", b"a\xff"]
    with store.transaction():
        store.put_directories([(name, b"") for name in names])
        store.put_changes([(name, _text(f=ONE)) for name in names])
        store.forget(b"a")
        assert {name for name in names if store.entries(name) is not None} == {b"a-b", b"a0", b"ab", b"a\xff"}
        assert store.change_count() == 4
        assert [name for name, _ in store.below(b"a0")] == [b"a0"]
        store.forget(b"")
        assert store.change_count() == 0
        assert not list(store.below(b""))
    store.close()


def test_what_is_no_index_is_refused(path: bytes) -> None:
    with open(path, "wb") as file:
        file.write(b"no database, for sure" * 1000)
    with pytest.raises(BrokenIndex):
        Store(path)
    os.unlink(path)
    other = sqlite3.connect(os.fsdecode(path))
    other.execute("PRAGMA user_version=99")
    other.close()
    with pytest.raises(BrokenIndex, match="another version"):
        Store(path)
    with pytest.raises(BrokenIndex):
        Store(path + b"/below/a/file", read_only=True).entries(b"")
