"""Which runs may be at work at once."""

from __future__ import annotations

import asyncio

import pytest

from instep.engines.rsync.gate import Gate
from tests.engines.rsync.places import run


@pytest.mark.parametrize(
    ("one", "other", "meet"),
    [
        (b"d/a", b"d/b", False),
        (b"d/a", b"d/ab", False),
        (b"d/a", b"d/a", True),
        # A name that turns out to be gone takes all below it along; the other may be bringing that anew.
        (b"d", b"d/a/b", True),
        (b"d/a/b", b"d", True),
        (b"", b"d", True),
    ],
)
def test_what_is_below_a_path_waits_for_it(one: bytes, other: bytes, *, meet: bool) -> None:
    async def both() -> None:
        gate = Gate()
        async with gate.enter({one}):
            second = asyncio.create_task(gate.enter({other}).__aenter__())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert second.done() is not meet
        await second

    run(both())


def test_who_waits_is_not_overtaken_by_one_that_meets_it() -> None:
    order: list[str] = []

    async def go(gate: Gate, name: str, path: bytes) -> None:
        async with gate.enter({path}):
            order.append(name)

    async def three() -> None:
        gate = Gate()
        async with gate.enter({b"a/b"}):
            tasks = [asyncio.create_task(go(gate, n, p)) for n, p in (("1", b"a"), ("2", b"a/c"), ("3", b"d"))]
            await tasks[2]
            assert order == ["3"]
        await asyncio.gather(*tasks)
        assert gate.empty

    run(three())
    assert order == ["3", "1", "2"]


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def cancelled() -> None:
        gate = Gate()
        async with gate.enter({b"a"}):
            waits = asyncio.create_task(gate.enter({b"a"}).__aenter__())
            await asyncio.sleep(0)
            waits.cancel()
            await asyncio.wait([waits])
        assert gate.empty

    run(cancelled())


def test_the_directories_of_runs_at_work_at_once_are_told() -> None:
    async def both() -> None:
        gate = Gate()
        async with gate.enter({b"d/e/a"}):
            pass
        async with gate.enter({b"d/e/b"}), gate.enter({b"d/f/c"}):
            pass
        assert gate.take_shared() == {b"", b"d"}
        assert gate.take_shared() == set()

    run(both())
