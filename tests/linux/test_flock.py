"""Locks between processes."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from instep.linux.flock import Process, holder, lock, user_name

HOLD = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_lock_shows_its_holder_and_dies_with_it(tmp_path: Path, kind: str) -> None:
    place = tmp_path
    if kind == "file":
        place = tmp_path / "file"
        place.touch()
    other = subprocess.Popen([sys.executable, "-c", HOLD, place], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin
    assert other.stdout
    try:
        other.stdout.readline()
        with opened(place) as fd, pytest.raises(BlockingIOError):
            lock(fd)
        with opened(place) as fd:
            found = holder(fd)
        if found is not None:  # On btrfs, and for another container's process, nobody can tell.
            assert found[:2] == (other.pid, user_name(os.geteuid()))
            assert str(place) in found.command
    finally:
        other.kill()
        other.communicate()
    with opened(place) as fd:
        assert lock(fd)


def test_nobody_holds_what_is_not_locked(tmp_path: Path) -> None:
    with opened(tmp_path) as fd:
        assert holder(fd) is None


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unable(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", unable)
    with opened(tmp_path) as fd:
        assert not lock(fd)


def test_names_of_users() -> None:
    assert user_name(0) == "root"
    nobody_has = max(each.pw_uid for each in pwd.getpwall()) + 1
    assert user_name(nobody_has) == str(nobody_has)
    assert Process(1, "u", "c").pid == 1
