"""The short road of one small file says what the long one would, and leaves it all that is out of the ordinary."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instep.engines.remote.connection import Far
from instep.engines.remote.contents import Contents
from instep.engines.remote.express import express
from instep.engines.remote.request import Frame, Item, Task
from instep.engines.remote.session import INLINE_BYTES, Session, Settings
from instep.engines.remote.source import Producer
from instep.model import Change
from instep.paths import RelPath
from instep.rules import Preserve

FAR = Far(is_root=os.geteuid() == 0, identity=(0, 0, 0), ahead_ns=0, digest=lambda _: b"")


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    (tmp_path / "d").mkdir()
    source = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield Session(source, Settings(Preserve()), FAR)
    os.close(source)


def by_the_long_road(session: Session, change: Change) -> Frame:
    producer = Producer(session, None)
    producer.work.append(Item(Task.NAME, change.path, change.content))
    return producer.fill(times=True)


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("path", [b"f", b"d/f"])
def test_it_says_what_the_long_road_says(tmp_path: Path, session: Session, path: bytes, *, content: bool) -> None:
    file = tmp_path / os.fsdecode(path)
    file.write_bytes(b"content")
    os.utime(file, (time.time() + 3600, 0))  # relatime: no access is noted
    change = Change(RelPath(path), content=content)
    short, long = express(session, change, None), by_the_long_road(session, change)
    assert short is not None
    assert b"".join(short.parts) == b"".join(long.parts)
    assert (short.size, short.operations) == (long.size, long.operations)


def _two_names(path: Path) -> None:
    path.write_bytes(b"x")
    path.with_name("g").hardlink_to(path)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100_000)


ODD: dict[str, Callable[[Path], object]] = {
    "nothing": lambda _: None,
    "directory": lambda path: path.mkdir(),
    "link": lambda path: path.symlink_to("/etc/passwd"),
    "fifo": os.mkfifo,
    "two names": _two_names,
    "large": lambda path: path.write_bytes(bytes(INLINE_BYTES)),
    "holes": _sparse,
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_not_plain_is_left_to_the_long_road(tmp_path: Path, session: Session, kind: str) -> None:
    ODD[kind](tmp_path / "d/f")
    assert express(session, Change(RelPath(b"d/f")), None) is None


def test_what_lies_behind_a_link_or_in_no_directory_is_not_read(tmp_path: Path, session: Session) -> None:
    (tmp_path / "d/f").write_bytes(b"content")
    (tmp_path / "l").symlink_to("d")
    assert express(session, Change(RelPath(b"l/f")), None) is None
    assert express(session, Change(RelPath(b"gone/f")), None) is None
    assert express(session, Change(RelPath(b"")), None) is None


def test_a_file_that_is_written_to_meanwhile_is_neither_sent_nor_kept(
    tmp_path: Path, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, contents = tmp_path / "d/f", Contents()
    file.write_bytes(b"content")
    pread = os.pread

    def read(fd: int, count: int, offset: int) -> bytes:
        data = pread(fd, count, offset)
        file.write_bytes(b"another content")
        return data

    monkeypatch.setattr(os, "pread", read)
    assert express(session, Change(RelPath(b"d/f")), contents) is None
    monkeypatch.undo()
    frame = express(session, Change(RelPath(b"d/f")), contents)
    assert frame is not None
    assert b"another content" in frame.parts
