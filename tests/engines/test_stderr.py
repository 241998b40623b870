"""What is kept of a child's standard error, and that nobody waits for it without a bound."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from instep.engines.stderr import Stderr


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
