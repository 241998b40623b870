"""What is mounted in a source: when a name that is not found there counts as gone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from instep.engines.mounted import MISSING, Mounted
from instep.linux.mount_watch import MountWatch

NOBODY_HAS = 1 << 30
"""No mount has this id."""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "a" / "disk").mkdir(parents=True)
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def mounted(source: int) -> Iterator[Mounted]:
    made = Mounted(source)
    yield made
    made.close()
    made.close()


@pytest.fixture
def disk(tmp_path: Path, source: int, mounted: Mounted) -> Iterator[Path]:
    """Really mounted, and known to be."""
    place = tmp_path / "a" / "disk"
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    watch = MountWatch(source)
    mounted.mounts = tuple(watch.mounts)
    watch.close()
    assert [point for _, point in mounted.mounts] == [b"a/disk"]
    yield place
    subprocess.run(["umount", "-lq", tmp_path / "a" / "disk", tmp_path / "b" / "disk"], check=False)


def answers(mounted: Mounted, *paths: bytes) -> list[tuple[bool, bool]]:
    return [(mounted.carries(path), mounted.vouches(path)) for path in paths]


def test_where_nothing_is_mounted_all_is_believed(mounted: Mounted) -> None:
    assert answers(mounted, b"", b"a", b"x/y") == [(True, True)] * 3


@pytest.mark.parametrize("number", [NOBODY_HAS, MISSING])
def test_what_was_mounted_is_not(mounted: Mounted, number: int) -> None:
    mounted.mounts = ((number, b"a/disk"),)
    assert answers(mounted, b"a/disk/x", b"a/disk") == [(False, False)] * 2
    assert answers(mounted, b"a", b"") == [(True, False)] * 2
    assert answers(mounted, b"a/x", b"a/disks", b"b") == [(True, True)] * 3


@pytest.mark.root
def test_what_is_mounted_is_believed_until_it_is_unmounted(mounted: Mounted, disk: Path) -> None:
    assert answers(mounted, b"a/disk/x", b"a/disk", b"a", b"") == [(True, True)] * 4
    subprocess.run(["umount", disk], check=True)
    assert answers(mounted, b"a/disk/x", b"a") == [(False, False), (True, False)]
    subprocess.run(["mount", "-t", "tmpfs", "none", disk], check=True)
    (Path(disk) / "x").touch()
    mounted.mounts = ((NOBODY_HAS, b"a/disk"),)
    assert not mounted.carries(b"a/disk/x")  # It is another one.


@pytest.mark.root
def test_who_is_told_of_a_new_name_finds_it_under_that(mounted: Mounted, disk: Path, tmp_path: Path) -> None:
    """A directory above it is renamed: of that the mount table tells nobody."""
    assert mounted.carries(b"a/disk/x")
    (tmp_path / "a").rename(tmp_path / "b")
    ((number, _),) = mounted.mounts
    mounted.mounts = ((number, b"b/disk"),)
    assert answers(mounted, b"b/disk/x", b"b", b"a") == [(True, True)] * 3
    mounted.mounts = ((number, b"a/disk"),)
    assert not mounted.vouches(b"a/disk/x")


@pytest.mark.root
def test_held_it_can_be_unmounted_lazily_alone(mounted: Mounted, disk: Path) -> None:
    async def hold(paths: Sequence[bytes], *, heeded: bool = False) -> tuple[Sequence[bytes], bool]:
        async with mounted.held(paths, heeded=heeded) as lost:
            unmounting = await asyncio.create_subprocess_exec("umount", "-q", disk)
            return lost, await unmounting.wait() == 0

    assert asyncio.run(hold([b"a/disk/x", b"a/x"])) == ([], False)
    assert asyncio.run(hold([b"a"])) == ([], False)
    assert asyncio.run(hold([b"a/x", b"b"])) == ([], True)
    assert asyncio.run(hold([b"a/disk/x", b"b", b""])) == ([b"a/disk/x", b""], False)
    mounted.mounts = ((MISSING, b"a/disk"),)
    assert asyncio.run(hold([b"a/disk/x", b"a/x", b""])) == ([b"a/disk/x", b""], False)
    assert asyncio.run(hold([b"a/disk/x", b"a/x", b""], heeded=True)) == ([], False)


@pytest.mark.root
def test_who_is_cancelled_while_it_is_opened_holds_nothing(
    mounted: Mounted, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_open, opened = threading.Event(), Mounted._open

    def slowly(self: Mounted, points: set[bytes]) -> list[int]:
        assert may_open.wait(10)
        return opened(self, points)

    monkeypatch.setattr(Mounted, "_open", slowly)

    async def hold() -> None:
        async with mounted.held([b"a"], heeded=False):
            raise AssertionError("it is not open")

    async def cancelled() -> None:
        holding = asyncio.create_task(hold())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding
        may_open.set()
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
        await asyncio.sleep(0)

    asyncio.run(cancelled())
    subprocess.run(["umount", disk], check=True)
