"""A mirror that is built again and again, for as long as the process lives."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from instep.daemon.mirrors import kept as module
from instep.daemon.mirrors.kept import KeptMirror
from instep.spec import MirrorSpec, TargetSpec


@pytest.mark.parametrize("how", [KeptMirror.stop, KeptMirror.end])
def test_a_stop_does_not_wait_for_the_pause_after_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: Callable[[KeptMirror], None]
) -> None:
    (tmp_path / "s").mkdir()
    pausing = asyncio.Event()

    def backoff_s(crashes: int) -> float:
        assert crashes == 1
        pausing.set()
        return 600.0

    monkeypatch.setattr(module, "backoff_s", backoff_s)
    monkeypatch.setattr(module, "CRASH_PAUSE_MAX_S", 600.0)
    spec = MirrorSpec(os.fsencode(tmp_path / "s"), (TargetSpec(os.fsencode(tmp_path / "t")),))
    kept = KeptMirror(spec, umask=0o022)

    async def life() -> int:
        running = asyncio.create_task(kept.run())
        async with asyncio.timeout(60):
            while kept._mirror is None or not kept._mirror.following:  # noqa: ASYNC110  # told to the log alone
                await asyncio.sleep(0.001)
            kept.crashed()
            await pausing.wait()
            how(kept)
            return await running

    assert asyncio.run(life()) == 0
