"""Where what handlers ask for is done."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from instep.daemon.handlers.workshop import Workshop
from instep.engines.command.program import Interruption
from instep.model import Batch, Bring, Call, Change, Interrupt, Program, ProgramEnd
from instep.paths import RelPath


class Telling:
    """A module and an engine that tell what they are asked."""

    workshop: Workshop

    def __init__(self) -> None:
        self.told: list[object] = []

    async def open(self) -> None:
        self.told.append("open")

    async def call(self, call: Call, *, started: Callable[[Interruption], None] | None = None) -> ProgramEnd:
        assert started is not None
        started(self.told.append)
        self.told.append(call)
        self.workshop.interrupt(Interrupt(2, signal.SIGTERM))
        return ProgramEnd(3)

    async def bring(self, work: Bring, *, started: Callable[[Interruption], None] | None = None) -> ProgramEnd:
        assert started is not None
        self.told.append(work)
        return ProgramEnd(4)

    async def close(self) -> None:
        self.told.append("close")


def test_each_kind_of_work_has_its_place() -> None:
    module, engine = Telling(), Telling()
    batch, call = Bring(Batch((Change(RelPath(b"f")),), 0.0)), Call()

    async def run() -> None:
        workshop = module.workshop = Workshop(umask=0o022, module=module, engine=engine)
        await workshop.open(lambda: None)
        assert (await workshop.begin(1, batch)).status == 4
        assert (await workshop.begin(2, call)).status == 3
        assert (await workshop.begin(3, Program((b"sh", b"-c", b"exit 5")))).status == 5
        workshop.interrupt(Interrupt(2, signal.SIGTERM))  # It has ended.
        await workshop.close()

    asyncio.run(run())
    assert module.told == ["open", call, signal.SIGTERM, "close"]
    assert engine.told == [batch, "close"]


def test_a_program_is_interrupted_with_all_that_it_started() -> None:
    async def run() -> ProgramEnd:
        workshop = Workshop(umask=0o022)
        running = asyncio.create_task(workshop.begin(7, Program((b"sh", b"-c", b"sleep 60; exit 0"))))
        async with asyncio.timeout(60):
            while not workshop.running:  # noqa: ASYNC110  # what is waited for happens in another task
                await asyncio.sleep(0.005)
            workshop.interrupt(Interrupt(8, signal.SIGTERM))
            workshop.interrupt(Interrupt(7, signal.SIGTERM))
            return await running

    assert asyncio.run(run()).signal == signal.SIGTERM
