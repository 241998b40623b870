"""What is kept of a child's standard error, how a child ends, and that nobody waits for either without a bound."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from instep.engines.child import Stderr, end
from tests.processes import lives


@pytest.mark.parametrize(("latest", "expected"), [(False, b"0123456789"), (True, b"9876543210")])
def test_a_part_is_kept_and_all_of_it_is_read(latest: bool, expected: bytes) -> None:
    async def work() -> bytes:
        stderr = Stderr(10, latest=latest)
        try:
            child = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                "printf 0123456789; head -c 1000000 /dev/zero >&2; printf 9876543210",
                stdout=stderr.write,
                stderr=stderr.write,
            )
            stderr.started()
            assert await asyncio.wait_for(child.wait(), 60) == 0
            return await stderr.said(60)
        finally:
            stderr.close()

    assert asyncio.run(work()) == expected


def test_who_holds_it_open_is_not_waited_for() -> None:
    async def work() -> tuple[bytes, float]:
        stderr = Stderr(100)
        other = os.dup(stderr.write)
        stderr.started()
        try:
            os.write(other, b"words")
            began_s = time.monotonic()
            return await stderr.said(0.2), time.monotonic() - began_s
        finally:
            os.close(other)
            stderr.close()

    said, took_s = asyncio.run(work())
    assert said == b"words"
    assert 0.1 < took_s < 30


def test_closed_it_is_over_for_all() -> None:
    async def work() -> bytes:
        stderr = Stderr(100)
        waiting = asyncio.ensure_future(stderr.said(60))
        await asyncio.sleep(0)
        stderr.close()
        stderr.close()
        return await asyncio.wait_for(waiting, 10)

    before = set(os.listdir("/proc/self/fd"))
    assert asyncio.run(work()) == b""
    assert set(os.listdir("/proc/self/fd")) == before


DEAF = "trap '' TERM; sleep 300 & echo $!; wait; wait"


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("ask", [False, True])
def test_one_that_does_not_end_is_killed_with_all_it_has_started(cancelled: bool, ask: bool) -> None:
    async def work() -> None:
        child = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", DEAF, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert child.stdout is not None
        other = int(await asyncio.wait_for(child.stdout.readline(), 60))
        ending = asyncio.ensure_future(end(child, 60 if cancelled else 0.1, ask=ask))
        if cancelled:
            await asyncio.sleep(0)
            ending.cancel()
            await asyncio.wait([ending], timeout=30)
            assert ending.cancelled()
        else:
            await asyncio.wait_for(ending, 30)
        async with asyncio.timeout(30):
            while lives(other):  # noqa: ASYNC110  # a process tells nobody
                await asyncio.sleep(0.01)
            await child.wait()

    asyncio.run(work())


def test_one_that_ends_by_itself_is_let_be() -> None:
    async def work() -> int | None:
        child = await asyncio.create_subprocess_exec("/bin/sh", "-c", "sleep 0.2; exit 3", start_new_session=True)
        await end(child, 60, ask=False)
        return child.returncode

    assert asyncio.run(work()) == 3
