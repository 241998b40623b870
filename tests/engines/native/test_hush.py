"""What we write ourselves, where our own monitor listens too: it is not told what nobody has to know."""

from __future__ import annotations

import os
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest

from instep.linux import fanotify
from instep.paths import Scope
from instep.rules import Rule
from instep.workers import Pool, WorkerDied
from tests.engines.native.rig import Rig

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="fanotify marks and mounts need root"),
]
_TOLD_OF_FILES_ALONE = fanotify.FAN_ATTRIB
"""The number of links changed: the kernel has no directory for that."""


@pytest.fixture
def disk(tmp_path: object) -> Iterator[bytes]:
    base = os.fsencode(str(tmp_path)) + b"/disk"
    os.mkdir(base)
    subprocess.run(["mount", "-t", "tmpfs", "instep-test", base], check=True)
    yield base
    subprocess.run(["umount", "-l", base], check=True)


@pytest.fixture
def group(disk: bytes) -> Iterator[int]:
    group = fanotify.init()
    fd = os.open(disk, os.O_RDONLY)
    fanotify.mark_file_system(group, fd)
    if not fanotify.ignore_in(group, fd):
        pytest.skip("before Linux 6.0 the kernel cannot leave out a directory")
    fanotify.heed_in(group, fd)
    os.close(fd)
    yield group
    os.close(group)


def heard(group: int) -> Counter[int]:
    """The masks of all events that are there."""
    found: Counter[int] = Counter()
    while True:
        try:
            buffer = os.read(group, 1 << 18)
        except BlockingIOError:
            return found
        at = 0
        while at < len(buffer):
            length, mask = struct.unpack_from("=I4xQ", buffer, at)
            found[mask] += 1
            at += length


def fill(directory: bytes, files: int) -> None:
    os.makedirs(directory)
    for number in range(files):
        with open(directory + b"/f%d" % number, "wb") as file:
            file.write(b"x" * 100)


@pytest.mark.parametrize("now", [True, False], ids=["at once", "by workers"])
def test_a_directory_filled_out_of_sight_is_one_matter(disk: bytes, group: int, now: bool) -> None:
    with Rig(disk) as rig:
        rig.engine.hush(group)
        fill(rig.src + b"/d", 100)
        heard(group)
        outcome = rig.bring(b"d", scope=Scope.TREE, now=now)
        rig.clean(outcome)
        assert heard(group).total() < 20
        with open(rig.dst + b"/d/mine", "wb"):
            pass
        assert heard(group).total() == 1, "once it is in its place, what others do in it counts"


@pytest.mark.parametrize("now", [True, False], ids=["at once", "by workers"])
def test_a_directory_that_is_removed_is_one_matter(disk: bytes, group: int, now: bool) -> None:
    with Rig(disk) as rig:
        rig.engine.hush(group)
        fill(rig.dst + b"/d", 100)
        heard(group)
        outcome = rig.bring(b"d", now=now)
        rig.clean(outcome)
        told = heard(group)
        assert told.pop(_TOLD_OF_FILES_ALONE) == 100
        assert told.total() < 20


def test_after_a_worker_has_died_everything_is_heard(disk: bytes, group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever directory it was at work."""
    with Rig(disk) as rig:
        rig.engine.hush(group)
        os.mkdir(rig.dst + b"/d")
        fd = os.open(rig.dst + b"/d", os.O_RDONLY)
        assert fanotify.ignore_in(group, fd)
        os.close(fd)

        async def died(*_: object) -> None:
            raise WorkerDied("killed")

        monkeypatch.setattr(Pool, "run", died)
        fill(rig.src + b"/new", 1)
        assert rig.bring(b"new", scope=Scope.TREE, now=False).failures
        heard(group)
        with open(rig.dst + b"/d/mine", "wb"):
            pass
        assert heard(group).total() == 1


def test_a_directory_that_stays_is_heard_again(disk: bytes, group: int) -> None:
    """Something excluded is in it."""
    with Rig(disk, rules=(Rule(include=False, pattern=b"keep"),)) as rig:
        rig.engine.hush(group)
        fill(rig.dst + b"/d", 100)
        with open(rig.dst + b"/d/keep", "wb"):
            pass
        rig.bring(b"d")
        assert os.listdir(rig.dst + b"/d") == [b"keep"]
        heard(group)
        with open(rig.dst + b"/d/mine", "wb"):
            pass
        assert heard(group).total() == 1
