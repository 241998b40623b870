"""Large files that change again and again: the second time the target need not be read."""

from __future__ import annotations

import asyncio
import math
import os
import random
from pathlib import Path

import pytest

from instep.engines.remote import agent
from instep.engines.remote.left import KEPT_BYTES, AsLeft, Left
from instep.engines.remote.reading import rested
from instep.engines.remote.shifted import Suspicion
from instep.engines.remote.stream import Sender
from tests.engines.remote.rig import Rig, read, write

SIZE = 6_000_000


def touch(path: bytes, offset: int, data: bytes = b"changed") -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def count_signings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What ends up in the list: one entry each time that the target has to sign its blocks."""
    seen: list[str] = []
    original = Sender._compare

    async def counted(self: Sender, fd: int, info: os.stat_result, suspicion: Suspicion) -> int:
        seen.append("signed")
        return await original(self, fd, info, suspicion)

    monkeypatch.setattr(Sender, "_compare", counted)
    return seen


def test_after_a_loss_what_was_left_there_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By this agent and by those after it."""
    seen = count_signings(monkeypatch)
    with Rig(os.fsencode(tmp_path)) as rig:

        def change() -> int:
            touch(rig.s(b"big"), 1000 + 100 * len(seen))
            rig.clean(rig.bring(b"big"))
            return len(seen)

        write(rig.s(b"big"), os.urandom(SIZE))
        rig.clean(rig.bring(b"big"))
        assert [change() for _ in range(2)] == [1, 1]
        rig.engine.distrust([])
        assert [change() for _ in range(2)] == [2, 3]
        rig.run(rig.engine.open())
        assert [change() for _ in range(2)] == [4, 5]


@pytest.mark.parametrize("inplace", [False, True])
def test_what_was_left_there_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, inplace: bool
) -> None:
    seen = count_signings(monkeypatch)
    with Rig(os.fsencode(tmp_path), inplace_bytes=1 if inplace else math.inf) as rig:
        write(rig.s(b"big"), os.urandom(SIZE))
        rig.clean(rig.bring(b"big"))
        for round_ in range(4):
            touch(rig.s(b"big"), 1000 + round_ * 1_400_000)
            outcome = rig.bring(b"big")
            rig.clean(outcome)
            assert outcome.bytes_copied == agent.BLOCK
        assert seen == ["signed"]  # The first time it was not known.

        # Somebody else wrote to it: known by its inode, size and times no more.
        touch(rig.d(b"big"), 3_000_000, b"not ours")
        touch(rig.s(b"big"), 0)
        outcome = rig.bring(b"big")
        rig.clean(outcome)
        assert outcome.bytes_copied == 2 * agent.BLOCK
        assert seen == ["signed"] * 2

        # Growing, shrinking, and being another file.
        with open(rig.s(b"big"), "ab") as file:
            file.write(os.urandom(700_001))
        outcome = rig.bring(b"big")
        rig.clean(outcome)
        assert outcome.bytes_copied < 700_001 + 2 * agent.BLOCK
        touch(rig.s(b"big"), SIZE + 500_000)
        outcome = rig.bring(b"big")
        rig.clean(outcome)
        assert outcome.bytes_copied <= agent.BLOCK
        os.truncate(rig.s(b"big"), SIZE - 5)
        rig.clean(rig.bring(b"big"))
        touch(rig.s(b"big"), SIZE - 10, b"tail")
        rig.clean(rig.bring(b"big"))
        assert seen == ["signed"] * 2
        write(rig.s(b"big"), os.urandom(SIZE))
        rig.clean(rig.bring(b"big"))
        rig.clean(rig.tree(content=True))


@pytest.mark.parametrize("seed", [0, 2])
def test_random_changes_of_a_large_file(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    with Rig(os.fsencode(tmp_path), inplace_bytes=1 if seed == 2 else math.inf) as rig:
        path = rig.s(b"big")
        write(path, dice.randbytes(SIZE))
        for _ in range(25):
            for _ in range(dice.randrange(4)):
                size = os.stat(path).st_size
                match dice.randrange(6):
                    case 0:
                        os.truncate(path, dice.randrange(4_200_000, 8_000_000))
                    case 1:
                        touch(path, size, dice.randbytes(dice.randrange(500_000)))
                    case 2:
                        touch(path, dice.randrange(size), bytes(dice.randrange(600_000)))
                    case 3:
                        touch(path, size + dice.randrange(1_000_000), b"after a hole")
                        os.truncate(path, min(os.stat(path).st_size, 9_000_000))
                    case _:
                        touch(path, dice.randrange(size), dice.randbytes(dice.randrange(300_000)))
            if dice.random() < 0.1:
                touch(rig.d(b"big"), 100_000, b"theirs") if os.path.exists(rig.d(b"big")) else None
            outcome = rig.bring(b"big")
            assert not outcome.failures
            assert read(rig.d(b"big")) == read(path)
        rig.clean(rig.tree())
        assert not [name for name in os.listdir(rig.dst) if name.startswith(b".instep")]


def test_after_another_connection_it_is_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = count_signings(monkeypatch)
    with Rig(os.fsencode(tmp_path)) as rig:
        write(rig.s(b"big"), os.urandom(SIZE))
        rig.clean(rig.bring(b"big"))
        for _ in range(2):
            touch(rig.s(b"big"), 1000)
            rig.clean(rig.bring(b"big"))
        assert rig.run(rig.engine.open())
        touch(rig.s(b"big"), 1000, b"again")
        rig.clean(rig.bring(b"big"))
        assert seen == ["signed"] * 2


@pytest.mark.parametrize("inplace", [False, True])
def test_what_is_written_meanwhile_costs_the_target_no_other_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, inplace: bool
) -> None:
    seen = count_signings(monkeypatch)
    writes: list[bytes] = []
    original = Sender._compare_known

    async def compared(self: Sender, fd: int, info: os.stat_result, suspicion: Suspicion | None) -> None:
        await original(self, fd, info, suspicion)
        if writes:
            touch(rig.s(b"big"), 2_000_000, writes.pop())

    with Rig(os.fsencode(tmp_path), inplace_bytes=1 if inplace else math.inf) as rig:
        write(rig.s(b"big"), os.urandom(SIZE))
        rig.clean(rig.bring(b"big"))
        touch(rig.s(b"big"), 1000)
        rig.clean(rig.bring(b"big"))
        monkeypatch.setattr(Sender, "_compare_known", compared)
        writes += [b"meanwhile", b"once more"]
        touch(rig.s(b"big"), 1000, b"again")
        outcome = rig.bring(b"big")
        rig.clean(outcome)
        assert outcome.bytes_copied == 3 * agent.BLOCK
        touch(rig.s(b"big"), 3_000_000)
        outcome = rig.bring(b"big")
        rig.clean(outcome)
        assert outcome.bytes_copied == agent.BLOCK
        assert seen == ["signed"]
        # One that never rests is brought over all the same, and said to be looked at again.
        writes += [b"%d" % number for number in range(20)]
        touch(rig.s(b"big"), 1000, b"and again")
        outcome = rig.bring(b"big")
        assert [put_off.racy for put_off in outcome.postponed] == [True]
        writes.clear()
        rig.clean(rig.bring(b"big"))


def test_the_largest_files_are_given_a_moment_to_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def slept(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 2:
            os.utime(tmp_path / "f", (1, 1))

    monkeypatch.setattr("asyncio.sleep", slept)

    def rest(size: int, mtime_s: float) -> int:
        (tmp_path / "f").touch()
        os.truncate(tmp_path / "f", size)
        os.utime(tmp_path / "f", (mtime_s, mtime_s))
        pauses.clear()
        fd = os.open(tmp_path / "f", os.O_RDONLY)
        assert asyncio.run(rested(fd)).st_size == size
        os.close(fd)
        return len(pauses)

    monkeypatch.setattr("time.time", lambda: 2000.0)
    assert rest(1 << 30, 2000.0) == 2
    assert rest(1 << 30, 1999.0) == 0
    assert rest(1 << 30, 2001.0) == 0, "who knows when"
    assert rest(1 << 20, 2000.0) == 0
    assert pauses == []


def test_the_memory_is_bounded() -> None:
    left = AsLeft()
    blocks = KEPT_BYTES // agent.DIGEST // 4
    for number in range(6):
        left.keep(b"%d" % number, Left(b"token", bytes(blocks * agent.DIGEST)), blocks * agent.BLOCK)
    assert [number for number in range(6) if left.take(b"%d" % number) is not None] == [2, 3, 4, 5]
    left.keep(b"a", Left(b"token", b"\0" * agent.DIGEST), 2 * agent.BLOCK)
    assert left.take(b"a") is None, "not of all blocks"
    left.keep(b"a", Left(b"token", b"\0" * agent.DIGEST), 7)
    assert left.take(b"a") is not None
    assert left.take(b"a") is None, "taken"
