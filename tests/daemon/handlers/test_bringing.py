"""An engine put to work for a handler."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from instep.daemon.handlers.bringing import NO_SPACE, PARTIAL, UNREACHABLE, Bringing
from instep.engines.native.engine import NativeEngine
from instep.model import Batch, Bring, Change, Outcome, Postponed, ProgramEnd
from instep.paths import ROOT, RelPath, Scope
from instep.spec import EngineName, MirrorSpec, TargetSpec

Work = Callable[[Bringing], Awaitable[None]]


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    return source, target


def work(both: tuple[Path, Path], what: Work) -> None:
    source, target = both
    spec = MirrorSpec(os.fsencode(source), (TargetSpec(os.fsencode(target), EngineName.NATIVE),))

    async def run() -> None:
        bringing = Bringing(spec, umask=0o022)
        try:
            await what(bringing)
        finally:
            await bringing.close()

    asyncio.run(run())


def batch(*paths: bytes, scope: Scope = Scope.ENTRY, timeout_s: float = math.inf) -> Bring:
    return Bring(Batch(tuple(Change(RelPath(path), scope) for path in paths), 0.0, flushing=True), timeout_s)


def test_paths_are_brought_in_step(both: tuple[Path, Path]) -> None:
    source, target = both
    (source / "d").mkdir()
    (source / "d" / "f").write_text("content")
    (target / "old").write_text("")

    async def what(bringing: Bringing) -> None:
        assert await bringing.bring(batch(ROOT, scope=Scope.TREE)) == ProgramEnd(0)
        assert (target / "d" / "f").read_text() == "content"
        assert not (target / "old").exists()
        (source / "d" / "f").unlink()
        ends = await asyncio.gather(bringing.bring(batch(b"d/f")), bringing.bring(batch(b"d")))
        assert set(ends) == {ProgramEnd(0)}
        assert not (target / "d" / "f").exists()

    work(both, what)


def test_what_failed_is_named(both: tuple[Path, Path]) -> None:
    source, target = both
    (source / "f").write_text("content")
    (source / "g").write_text("content")
    (target / "f").mkdir()
    (target / "f" / ".instep-in-the-way").mkdir()

    async def what(bringing: Bringing, monkeypatch: pytest.MonkeyPatch) -> None:
        async def sync(_: object, given: Batch) -> Outcome:
            return Outcome(postponed=[Postponed(given.changes[0], 0.0)])

        with monkeypatch.context() as patch:
            patch.setattr(NativeEngine, "sync_now", lambda _, given: (Outcome(), given.changes))
            patch.setattr(NativeEngine, "sync", sync)
            end = await bringing.bring(batch(b"f", b"g"))
        assert (end.status, end.failed) == (PARTIAL, (b"f",))
        assert "f:" in end.trouble

    with pytest.MonkeyPatch.context() as monkeypatch:
        work(both, lambda bringing: what(bringing, monkeypatch))


def test_a_full_target(both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeEngine, "sync_now", lambda *_: (Outcome(full="no space left"), ()))

    async def what(bringing: Bringing) -> None:
        assert await bringing.bring(batch(b"f")) == ProgramEnd(NO_SPACE, trouble="no space left")

    work(both, what)


def test_a_target_that_is_away_is_found_again(both: tuple[Path, Path]) -> None:
    source, target = both
    (source / "f").write_text("content")

    async def what(bringing: Bringing) -> None:
        assert (await bringing.bring(batch(b"f"))).status == 0
        target.rename(target.with_name("elsewhere"))
        (source / "f").write_text("other content")
        away = await bringing.bring(batch(b"f"))
        assert away.status == UNREACHABLE
        assert away.trouble
        target.with_name("elsewhere").rename(target)
        assert (await bringing.bring(batch(b"f"))).status == 0
        assert (target / "f").read_text() == "other content"

    work(both, what)


def test_a_source_that_is_gone(both: tuple[Path, Path]) -> None:
    both[0].rmdir()

    async def what(bringing: Bringing) -> None:
        end = await bringing.bring(batch(b"f"))
        assert end.status == UNREACHABLE
        assert os.strerror(errno.ENOENT) in end.trouble

    work(both, what)


@pytest.mark.parametrize("how", ["interrupted", "timed out"])
def test_work_that_is_broken_off(both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """Also what waits for its turn; the next work finds an engine that is as good as new."""
    source, target = both
    (source / "f").write_text("content")
    begun = asyncio.Event()

    async def hang(*_: object) -> Outcome:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def what(bringing: Bringing) -> None:
        interrupts: list[Callable[[int], None]] = []
        with monkeypatch.context() as patch:
            patch.setattr(NativeEngine, "sync_now", lambda _, given: (Outcome(), given.changes))
            patch.setattr(NativeEngine, "sync", hang)
            timeout_s = 0.01 if how == "timed out" else math.inf
            works = [
                asyncio.create_task(bringing.bring(batch(b"f", timeout_s=timeout_s), started=interrupts.append))
                for _ in range(2)
            ]
            async with asyncio.timeout(60):
                await begun.wait()
                for interrupt in interrupts if how == "interrupted" else ():
                    interrupt(signal.SIGINT)
                    interrupt(signal.SIGKILL)
                ends = await asyncio.gather(*works)
            for interrupt in interrupts:
                interrupt(signal.SIGTERM)  # It has ended: nothing happens.
        number = signal.SIGINT if how == "interrupted" else signal.SIGTERM
        assert ends == [ProgramEnd(128 + number, signal=number, timed_out=how == "timed out")] * 2
        assert (await bringing.bring(batch(b"f"))).status == 0
        assert (target / "f").read_text() == "content"

    work(both, what)


def test_work_that_is_cancelled_with_the_daemon(both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    begun = asyncio.Event()

    async def hang(*_: object) -> Outcome:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(NativeEngine, "sync_now", lambda _, given: (Outcome(), given.changes))
    monkeypatch.setattr(NativeEngine, "sync", hang)

    async def what(bringing: Bringing) -> None:
        task = asyncio.create_task(bringing.bring(batch(b"f")))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    work(both, what)
