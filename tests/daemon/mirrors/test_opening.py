"""Targets while they are being opened: who waits for them is told how that ended, or not to wait any longer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from instep.daemon.mirrors.opening import EndedEarly, Opening
from instep.daemon.targets.target import Target
from instep.errors import OperatorError


class Opened:
    """A target whose opening takes what it is given."""

    def __init__(self, how: Callable[[], Awaitable[object]]) -> None:
        self._how = how
        self.is_claimed = False

    def claim(self) -> None:
        self.is_claimed = True

    async def open(self) -> None:
        assert self.is_claimed
        await self._how()


async def at_once() -> None:
    pass


async def never() -> None:
    await asyncio.Event().wait()


async def refused() -> None:
    await asyncio.sleep(0)
    raise OperatorError("code", "what")


async def begun(*hows: Callable[[], Awaitable[object]], near: int) -> tuple[Opening, list[BaseException]]:
    failed: list[BaseException] = []
    opening = Opening(failed.append)
    targets = [cast("Target", Opened(how)) for how in hows]
    await opening.begin(targets, [number < near for number in range(len(hows))])
    return opening, failed


def test_what_is_near_is_waited_for() -> None:
    async def life() -> None:
        opening, failed = await begun(at_once, never, near=1)
        near, far = opening.opened.values()
        await near
        assert not far.done()
        opening.end_early()
        with pytest.raises(EndedEarly):
            await far
        await opening.close()
        assert not failed

    asyncio.run(life())


def test_one_that_can_never_be_opened_is_told_to_all() -> None:
    async def life() -> None:
        opening, failed = await begun(at_once, refused, near=1)
        _, far = opening.opened.values()
        with pytest.raises(OperatorError):
            await far
        assert [str(error) for error in failed] == [str(far.exception())]
        await opening.close()

    asyncio.run(life())


def test_one_that_is_near_and_can_never_be_opened_ends_it_at_once() -> None:
    async def life() -> None:
        with pytest.raises(OperatorError):
            await begun(refused, near=1)

    asyncio.run(life())


def test_who_waits_at_the_end_is_cancelled_too() -> None:
    async def life() -> None:
        opening, _ = await begun(never, near=0)
        (far,) = opening.opened.values()
        await opening.close()
        await asyncio.sleep(0)
        assert far.cancelled()

    asyncio.run(life())
