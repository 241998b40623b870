"""One small change: what the targets of a mirror share of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.engines.native import small
from instep.engines.native.session import Session, Settings
from instep.engines.native.small import SHARED_S, LastRead, express
from instep.model import Change
from instep.paths import RelPath
from instep.rules import Preserve
from tests.engines.native.rig import read, write
from tests.trees import assert_equal

F = RelPath(b"f")


class Two:
    """One source, two targets."""

    def __init__(self, base: bytes) -> None:
        self.source = base + b"/s"
        self.targets = (base + b"/t1", base + b"/t2")
        for path in (self.source, *self.targets):
            os.mkdir(path)
        self.fds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (self.source, *self.targets)]
        self.sessions = [Session(self.fds[0], fd, Settings(Preserve())) for fd in self.fds[1:]]
        self.last = LastRead()

    def write(self, data: bytes, **options: int) -> None:
        write(self.source + b"/f", data, **options)

    def bring(self, change: Change, number: int, now_s: float = 1.0) -> int | None:
        """The bytes copied, if any could be."""
        info = express(self.sessions[number], change, now_s, self.last)
        return None if info is None else info.st_size

    def holds(self, number: int) -> bytes:
        return read(self.targets[number] + b"/f")


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    found = Two(os.fsencode(tmp_path))
    yield found
    for fd in found.fds:
        os.close(fd)


def test_a_change_is_read_once(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    two.write(b"new")
    os.chmod(two.source + b"/f", 0o640)
    change = Change(F)
    assert two.bring(change, 0) == 3
    monkeypatch.setattr(small, "READ", -1)  # It could not be opened any more.
    assert two.bring(change, 1) == 3
    for target in two.targets:
        assert_equal(two.source, target)


def test_below_a_directory(two: Two) -> None:
    for path in (two.source, *two.targets):
        os.mkdir(path + b"/d")
    write(two.source + b"/d/f", b"deep")
    change = Change(RelPath(b"d/f"))
    assert [two.bring(change, 0), two.bring(change, 1)] == [4, 4]
    for target in two.targets:
        assert_equal(two.source + b"/d", target + b"/d")


def test_another_change_is_read_anew(two: Two) -> None:
    two.write(b"one")
    assert two.bring(Change(F), 0) == 3
    two.write(b"two")
    assert two.bring(Change(F), 1) == 3
    assert two.holds(1) == b"two"


def test_after_a_while_it_is_read_anew(two: Two) -> None:
    """A target that was away comes to a change long after the others."""
    two.write(b"one")
    change = Change(F)
    assert two.bring(change, 0) == 3
    two.write(b"other")
    assert two.bring(change, 1, now_s=1.0 + SHARED_S) == 5
    assert two.holds(1) == b"other"


def test_xattrs_are_not_shared(two: Two) -> None:
    two.write(b"one")
    try:
        os.setxattr(two.source + b"/f", "user.colour", b"red")
    except OSError:
        pytest.skip("no user xattrs here")
    change = Change(F)
    assert [two.bring(change, 0), two.bring(change, 1)] == [3, 3]
    for target in two.targets:
        assert os.getxattr(target + b"/f", "user.colour") == b"red"


def test_what_is_there_already_is_left_to_the_long_road(two: Two) -> None:
    two.write(b"one")
    change = Change(F)
    assert two.bring(change, 0) == 3
    inode = os.stat(two.targets[0] + b"/f").st_ino
    assert two.bring(change, 0) is None
    assert os.stat(two.targets[0] + b"/f").st_ino == inode
    os.mkdir(two.targets[1] + b"/f")
    assert two.bring(change, 1) is None
    assert os.listdir(two.targets[1]) == [b"f"]
