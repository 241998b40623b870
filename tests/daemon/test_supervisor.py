"""Several mirrors in one process: they follow side by side, and end together."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from instep.daemon.mirrors.kept import KeptMirror
from instep.daemon.run import run_mirrors
from instep.daemon.supervisor import Supervisor
from instep.errors import SourceError
from instep.spec import MirrorSpec, TargetSpec

DEADLINE_S = 60.0


def spec(top: Path, name: str, *, once: bool = False) -> MirrorSpec:
    (top / name).mkdir()
    (top / name / "file").write_text(name)
    return MirrorSpec(os.fsencode(top / name), (TargetSpec(os.fsencode(top / f"{name}-copy")),), once=once)


def _exists(path: Path) -> bool:
    return path.exists()


async def there(path: Path) -> None:
    while not _exists(path):  # noqa: ASYNC110  # worker processes make it
        await asyncio.sleep(0.01)


def test_several_passes_at_once(tmp_path: Path) -> None:
    ended = run_mirrors([spec(tmp_path, name, once=True) for name in "abc"])
    assert (ended.status, ended.signal) == (0, 0)
    assert [(tmp_path / f"{name}-copy/file").read_text() for name in "abc"] == ["a", "b", "c"]


def test_one_that_cannot_begin_ends_the_others(tmp_path: Path) -> None:
    gone = MirrorSpec(os.fsencode(tmp_path / "none"), (TargetSpec(os.fsencode(tmp_path / "t")),))
    with pytest.raises(SourceError):
        run_mirrors([spec(tmp_path, "a"), gone])


def test_they_follow_and_stop_together(tmp_path: Path) -> None:
    async def run() -> int:
        units = [KeptMirror(spec(tmp_path, name), umask=0o022) for name in "ab"]
        supervisor = Supervisor(units)
        running = asyncio.create_task(supervisor.run())
        async with asyncio.timeout(DEADLINE_S):
            for name in "ab":
                await there(tmp_path / f"{name}-copy/file")
            supervisor.log_status()
            supervisor.crashed()  # both are made anew
            for name in "ab":
                (tmp_path / name / "new").write_text("new")
                await there(tmp_path / f"{name}-copy/new")
            supervisor.resync()
            supervisor.reload()
            supervisor.stop()
            return await running

    assert asyncio.run(run()) == 0
