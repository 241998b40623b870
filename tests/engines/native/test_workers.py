"""The worker processes come and go: none is left behind, whatever happens to them."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from instep import workers as module
from instep.model import Batch
from instep.workers import Pool
from tests.engines.native.rig import Rig, temporaries, well, write

MIB = 1 << 20


def _pool(rig: Rig) -> Pool:
    assert rig.engine._pool is not None
    return rig.engine._pool


def _children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def test_workers_that_cannot_be_started(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Python was replaced, or there are too many processes: said once, the paths fail, and later all is well."""
    for name in range(40):
        write(rig.s(b"%d" % name))
    names = [b"%d" % name for name in range(40)]
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", "/nowhere/python")

        async def prepare() -> None:
            rig.engine.prepare()
            await asyncio.sleep(0)

        rig.run(prepare())
        for _ in range(2):
            outcome = rig.bring(*names, now=False)
            assert {failure.change.path for failure in outcome.failures} == set(names)
            assert "cannot start a worker" in outcome.failures[0].reason
    assert [record.levelno for record in caplog.records if record.msg == "worker-not-started"] == [logging.ERROR]
    assert [record.msg for record in caplog.records] == ["worker-not-started"]
    rig.clean(rig.bring(*names, now=False))


def test_closed_while_workers_cannot_be_started(base: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with Rig(base) as rig:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")

        async def prepare() -> None:
            rig.engine.prepare()
            await asyncio.sleep(0.05)

        rig.run(prepare())
    gc.collect()


@pytest.mark.parametrize("after_ms", [0, 1, 5, 20, 80])
def test_closed_while_workers_start(base: bytes, after_ms: int) -> None:
    before = _children()
    rig = Rig(base)

    async def briefly() -> None:
        await rig.engine.open()
        rig.engine.prepare()
        await asyncio.sleep(after_ms / 1000)
        await rig.engine.close()
        assert _children() <= before

    with rig:
        rig.run(briefly())
    gc.collect()  # What was not let go of complains now.


def test_closed_right_after_a_batch_was_cancelled(base: bytes) -> None:
    before = _children()
    with Rig(base, bandwidth_bytes_per_s=300_000.0) as rig:
        write(rig.s(b"f"), os.urandom(2 * MIB))

        async def cut() -> None:
            task = asyncio.create_task(rig.engine.sync(Batch(rig.changes([b"f"]), time.monotonic())))
            deadline_s = time.monotonic() + 60
            while not temporaries(rig.dst):
                assert time.monotonic() < deadline_s
                await asyncio.sleep(0.005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await rig.engine.close()
            assert _children() <= before

        rig.run(cut())
    gc.collect()


def test_workers_go_home_after_a_rest(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    before = _children()
    monkeypatch.setattr(module, "IDLE_S", 0.05)
    for name in range(40):
        write(rig.s(b"%d" % name))

    async def rest() -> None:
        well(await rig.engine.sync(Batch(rig.changes([b"%d" % name for name in range(40)]), time.monotonic())))
        assert _children() - before
        deadline_s = time.monotonic() + 60
        while _children() - before:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.01)
        assert not _pool(rig)._all

    rig.run(rest())
    rig.clean(rig.bring(b"1", now=False))


@pytest.mark.parametrize("worker", ["instep.engines.native.worker", "instep.index.worker"])
def test_a_worker_loads_little(worker: str) -> None:
    """It is started for a piece of work, and dataclasses take half as long to load as all the rest."""
    code = f"import sys; sys.path.insert(0, {module._LIBRARY!r}); import {worker}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, check=True, text=True).stdout
    assert not {"dataclasses", "asyncio", "logging", "inspect", "instep.model", "instep.spec"} & set(loaded.split())
    assert worker in loaded.split()
