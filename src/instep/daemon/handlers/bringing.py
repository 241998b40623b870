"""An engine put to work for a handler: no change log, no retries; what becomes of a failure is the handler's matter."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from instep.daemon.build import Ground, build_engine
from instep.engines.command.program import Interruption
from instep.errors import OperatorError, TargetAway
from instep.linux.openat import DIRECTORY
from instep.model import Batch, Bring, Change, Failure, Outcome, ProgramEnd
from instep.paths import RelPath
from instep.ports import Engine
from instep.spec import MirrorSpec

PARTIAL = 23
"""rsync's exit codes, which those who had rsync run know: some paths were not brought over,"""
NO_SPACE = 11
"""something could not be written,"""
UNREACHABLE = 12
"""the other side does not answer."""
ROUNDS_MAX = 1000
"""So often the engine may ask for another look at some path before that counts as failed."""


class Bringing:
    """One source, one target. Used in the loop's thread."""

    def __init__(self, spec: MirrorSpec, *, umask: int) -> None:
        """Nothing is opened yet; of the targets the first is served."""
        self._spec = spec
        self._umask = umask
        self._engine: Engine | None = None
        self._source = -1
        self._alone = asyncio.Lock()

    async def bring(self, work: Bring, *, started: Callable[[Interruption], None] | None = None) -> ProgramEnd:
        """Bring the paths of a batch in step; one batch after the other, and the time it waits for its turn counts.

        Args:
            work: what to do, and how long it may take.
            started: given what breaks it off, whatever the signal; it has then ended as a program by that signal.
        """
        task = asyncio.create_task(self._in_turn(work.batch))
        ended_by = 0
        timed_out = False

        def interrupt(number: int) -> None:
            nonlocal ended_by
            if not ended_by and task.cancel():
                ended_by = number

        def expire() -> None:
            nonlocal timed_out
            timed_out = not ended_by
            interrupt(signal.SIGTERM)

        if started is not None:
            started(interrupt)
        timer = None
        if work.timeout_s != float("inf"):
            timer = asyncio.get_running_loop().call_later(work.timeout_s, expire)
        try:
            return await task
        except asyncio.CancelledError:
            if not ended_by:
                raise
            return ProgramEnd(128 + ended_by, signal=ended_by, timed_out=timed_out)
        finally:
            if timer is not None:
                timer.cancel()

    async def _in_turn(self, batch: Batch) -> ProgramEnd:
        async with self._alone:
            try:
                return await self._bring(batch)
            except asyncio.CancelledError:
                await self._shut()  # It is opened anew the next time.
                raise

    async def _bring(self, batch: Batch) -> ProgramEnd:
        try:
            engine = await self._opened()
        except TargetAway as away:
            return ProgramEnd(UNREACHABLE, trouble=str(away))
        except (OperatorError, OSError) as error:
            return ProgramEnd(UNREACHABLE, trouble=str(error))
        outcome, left = engine.sync_now(batch)
        if left:
            outcome.add(await engine.sync(replace(batch, changes=tuple(left))))
        for _ in range(ROUNDS_MAX):
            put_off = _put_off(outcome)
            if not put_off:
                break
            outcome.add(await engine.sync(Batch(put_off, time.monotonic(), flushing=True)))
        outcome.failures += [Failure(change, "it does not come to rest") for change in _put_off(outcome)]
        if outcome.away is not None:
            await self._shut()  # It is opened anew the next time.
        return _end(outcome)

    async def close(self) -> None:
        """Let go of both sides."""
        await self._shut()

    async def _shut(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()
        if self._source >= 0:
            os.close(self._source)
            self._source = -1

    async def _opened(self) -> Engine:
        if self._engine is None:
            self._source = os.open(self._spec.source, DIRECTORY)
            engine = build_engine(Ground(self._spec, self._source, self._umask), self._spec.targets[0])
            try:
                await engine.open()
            except BaseException:
                await engine.close()
                os.close(self._source)
                self._source = -1
                raise
            self._engine = engine
        return self._engine


def _put_off(outcome: Outcome) -> tuple[Change, ...]:
    """What the engine wants to be given once more. What changed while it was read is told by an event of its own."""
    again = tuple(each.change for each in outcome.postponed if not each.racy)
    outcome.postponed = []
    return again


def _end(outcome: Outcome) -> ProgramEnd:
    if outcome.away is not None:
        return ProgramEnd(UNREACHABLE, trouble=outcome.away)
    if outcome.full is not None:
        return ProgramEnd(NO_SPACE, trouble=outcome.full)
    if outcome.failures:
        first = outcome.failures[0]
        more = len(outcome.failures) - 1
        text = f"{os.fsdecode(first.change.path)}: {first.reason}" + (f" (and {more} more)" if more else "")
        failed = tuple(RelPath(failure.change.path) for failure in outcome.failures)
        return ProgramEnd(PARTIAL, trouble=text, failed=failed)
    return ProgramEnd(0)
