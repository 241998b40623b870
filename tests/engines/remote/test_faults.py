"""What goes wrong on the way and over there; the end is always that both sides are equal."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from instep.engines import ssh
from instep.engines.remote import agent
from instep.engines.remote.connection import NoPython
from instep.errors import TargetAway, TargetError
from instep.model import Batch, Change, Outcome
from instep.paths import ROOT, RelPath, Scope
from tests.engines import fake_ssh
from tests.engines.fake_ssh import FakeSsh
from tests.engines.remote.rig import Patience, Rig, needs_root, over_a_pipe, read, write

DEADLINE_S = 60.0
CUTTER = os.path.join(os.path.dirname(__file__), "cutter.py")


def wait_until(done: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < until_s, what
        time.sleep(0.005)


async def until(done: Callable[[], bool], what: str) -> None:
    until_s = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < until_s, what
        await asyncio.sleep(0.005)


def pid_of(rig: Rig) -> int:
    tie = rig.engine._tie
    assert tie is not None
    assert tie.connection._process is not None
    return tie.connection._process.pid


def partials(rig: Rig) -> list[bytes]:
    return [name for name in os.listdir(rig.dst) if name.startswith(b".instep")]


@pytest.mark.parametrize("then", fake_ssh.NEVER_IN)
@pytest.mark.parametrize("turns", [1, 2, 10])
def test_cancelled_while_ssh_starts_it_ends(tmp_path: Path, then: str, turns: int) -> None:
    """At whatever moment, and whoever has ssh's standard error open then."""
    fake = FakeSsh(tmp_path, then)
    rig = Rig(os.fsencode(tmp_path), command=lambda _: fake.words)

    async def work() -> None:
        await fake.cancel(asyncio.ensure_future(rig.engine.open()), turns)

    try:
        rig.run(work())
    finally:
        fake.kill()
        rig.__exit__()


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 6, 8, 11])
def test_a_connection_cut_at_every_message(tmp_path: Path, frames: int) -> None:
    counter = tmp_path / "starts"

    def command(place: ssh.Place) -> Sequence[bytes]:
        words = [sys.executable, CUTTER, str(frames), str(counter)]
        return [*map(os.fsencode, words), *over_a_pipe(place)]

    source = os.fsencode(tmp_path / "src")
    for i in range(3):
        os.makedirs(source + b"/d%d/e" % i)
        for j in range(150):
            write(source + b"/d%d/e/f%d" % (i, j), b"%d" % j)
    write(source + b"/middle", os.urandom(1_500_000))
    os.link(source + b"/d0/e/f1", source + b"/linked")
    try:
        with Rig(os.fsencode(tmp_path), command=command) as rig:
            bring_until_equal(rig)
    except TargetAway:  # It was cut before it was open.
        with Rig(os.fsencode(tmp_path), command=command) as rig:
            bring_until_equal(rig)
    # The tree needs some more frames than these: each of them was the last one.
    assert counter.stat().st_size == 2


def bring_until_equal(rig: Rig) -> None:
    outcome = rig.tree()
    if outcome.away is not None:
        assert rig.run(rig.engine.open())
        outcome = rig.tree()
    rig.clean(outcome)
    assert not partials(rig)


def test_a_killed_agent_is_away_and_comes_back(rig: Rig) -> None:
    write(rig.s(b"a"), b"a")
    rig.clean(rig.bring(b"a"))
    os.kill(pid_of(rig), signal.SIGKILL)
    write(rig.s(b"a"), b"b")
    outcome = Outcome()
    until_s = time.monotonic() + DEADLINE_S
    while outcome.away is None and time.monotonic() < until_s:
        outcome = rig.bring(b"a")
    assert outcome.away is not None
    assert rig.run(rig.engine.open())
    rig.clean(rig.bring(b"a"))


def test_a_large_transfer_is_taken_up_again(tmp_path: Path) -> None:
    size = 24 << 20
    with Rig(os.fsencode(tmp_path), bandwidth_bytes_per_s=float(30 << 20)) as rig:
        write(rig.s(b"big"), os.urandom(size))

        async def cut() -> Outcome:
            batch = Batch((Change(RelPath(b"big")),), time.monotonic())
            task = asyncio.ensure_future(rig.engine.sync(batch))
            await until(
                lambda: any(os.stat(rig.d(name)).st_size > 4 << 20 for name in partials(rig)), "some of it arrived"
            )
            os.kill(pid_of(rig), signal.SIGKILL)
            return await task

        assert rig.run(cut()).away is not None
        assert partials(rig)
        assert not os.path.exists(rig.d(b"big"))
        assert rig.run(rig.engine.open())
        outcome = rig.bring(b"big")
        rig.clean(outcome)
        assert 0 < outcome.bytes_copied < size - (3 << 20)
        assert not partials(rig)


@pytest.mark.parametrize("delete", [True, False])
@pytest.mark.parametrize("then", ["changed", "small", "gone"])
def test_what_came_of_a_cut_transfer_does_not_stay(tmp_path: Path, then: str, delete: bool) -> None:
    with Rig(os.fsencode(tmp_path), bandwidth_bytes_per_s=float(30 << 20), delete=delete) as rig:
        write(rig.s(b"big"), os.urandom(12 << 20))

        async def cut() -> Outcome:
            task = asyncio.ensure_future(rig.engine.sync(Batch((Change(RelPath(b"big")),), time.monotonic())))
            await until(
                lambda: any(os.stat(rig.d(name)).st_size > 2 << 20 for name in partials(rig)), "some of it arrived"
            )
            os.kill(pid_of(rig), signal.SIGKILL)
            return await task

        assert rig.run(cut()).away is not None
        assert partials(rig)
        if then == "gone":
            os.unlink(rig.s(b"big"))
        else:
            write(rig.s(b"big"), os.urandom(10 << 20 if then == "changed" else 100))
        assert rig.run(rig.engine.open())
        rig.clean(rig.bring(b"big"))
        assert not partials(rig)


def test_a_stopped_agent_is_found_dead(tmp_path: Path, patience: Patience) -> None:
    with Rig(os.fsencode(tmp_path)) as rig:
        write(rig.s(b"a"), b"a")
        # A shell that execs: the process is the agent itself.
        pid = pid_of(rig)
        os.kill(pid, signal.SIGSTOP)
        patience(0.6)
        try:
            outcome = rig.bring(b"a")
        finally:
            with contextlib.suppress(ProcessLookupError):  # It was ended once it was found dead.
                os.kill(pid, signal.SIGKILL)
        assert outcome.away is not None
        assert "no answer" in outcome.away


def test_an_agent_that_falls_silent_while_nothing_is_asked_of_it_is_told_of(tmp_path: Path, patience: Patience) -> None:
    said: list[str] = []
    rig = Rig(os.fsencode(tmp_path))
    rig.engine.lost = said.append
    with rig:
        pid = pid_of(rig)
        os.kill(pid, signal.SIGSTOP)
        patience(0.6)
        try:
            rig.run(until(lambda: bool(said), "the engine noticed"))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        patience(DEADLINE_S)
        assert "no answer" in said[0]
        assert rig.run(rig.engine.open())
        write(rig.s(b"a"), b"a")
        rig.clean(rig.bring(b"a"))
    assert len(said) == 1  # Whoever closes it is not told.


def test_a_slow_reader_does_not_fill_our_memory(rig: Rig) -> None:
    for i in range(60):
        write(rig.s(b"f%d" % i), bytes(400_000))
    pid = pid_of(rig)
    tie = rig.engine._tie
    assert tie is not None
    flow = tie.connection.flow
    os.kill(pid, signal.SIGSTOP)

    async def slow() -> Outcome:
        batch = Batch((Change(ROOT, Scope.TREE),), time.monotonic())
        task = asyncio.ensure_future(rig.engine.sync(batch))
        await asyncio.wait((task,), timeout=0.5)
        assert not task.done()
        assert sum(map(len, tie.connection._queue)) <= flow.window + (2 << 20)
        os.kill(pid, signal.SIGCONT)
        return await task

    try:
        rig.clean(rig.run(slow()))
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_root_that_goes_away(rig: Rig) -> None:
    write(rig.s(b"a"), b"a")
    rig.clean(rig.bring(b"a"))
    os.rename(rig.dst, rig.dst + b".away")
    write(rig.s(b"a"), b"b")
    outcome = rig.bring(b"a")
    assert outcome.away is not None
    assert "No such file" in outcome.away
    with pytest.raises(TargetAway):
        rig.run(rig.engine.open())
    assert not os.path.exists(rig.dst)
    os.mkdir(rig.dst)
    assert not rig.run(rig.engine.open())
    rig.clean(rig.tree())


@contextmanager
def small_disk(path: bytes, size: str) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@needs_root
def test_a_full_disk(tmp_path: Path) -> None:
    base = os.fsencode(tmp_path)
    os.mkdir(base + b"/dst")
    with small_disk(base + b"/dst", "3m"), Rig(base) as rig:
        write(rig.s(b"large"), os.urandom(2_000_000))
        write(rig.s(b"small"), b"x" * 100_000)
        rig.clean(rig.tree())
        for i in range(40):
            write(rig.s(b"more%d" % i), os.urandom(100_000))
        assert rig.tree().full is not None
        write(rig.s(b"large2"), os.urandom(2_000_000))
        assert rig.bring(b"large2").full is not None
        assert not partials(rig)
        for i in range(35):
            os.unlink(rig.s(b"more%d" % i))
        os.unlink(rig.s(b"large2"))
        outcome = rig.tree()
        while outcome.full is not None:
            outcome = rig.tree()
        rig.clean(outcome)


@needs_root
def test_a_disk_too_full_for_the_new_version_of_a_large_file(tmp_path: Path) -> None:
    base = os.fsencode(tmp_path)
    os.mkdir(base + b"/dst")
    with small_disk(base + b"/dst", "8m"), Rig(base) as rig:
        data = os.urandom(5 << 20)
        write(rig.s(b"large"), data)
        rig.clean(rig.tree())
        write(rig.s(b"large"), data[:-1] + b"x")
        outcome = rig.bring(b"large")
        assert outcome.full is not None
        assert outcome.away is None
        assert read(rig.d(b"large")) == data
        assert not partials(rig)


@pytest.mark.parametrize(("target", "words"), [("{}/file", "Not a directory"), ("{}/no/where", "No such file")])
def test_a_root_that_cannot_be_is_refused(tmp_path: Path, target: str, words: str) -> None:
    (tmp_path / "file").write_text("x")
    address = b"there:" + target.format(tmp_path).encode()
    with pytest.raises(TargetError, match=words), Rig(os.fsencode(tmp_path), target=address):
        pass


def test_no_python_is_told_apart(tmp_path: Path) -> None:
    rig = Rig(os.fsencode(tmp_path), command=lambda _: [b"/bin/sh", b"-c", b"exec /nowhere/python3"])
    with pytest.raises(NoPython), rig:
        pass


def test_an_old_python_is_told_apart(tmp_path: Path) -> None:
    rig = Rig(os.fsencode(tmp_path), command=lambda _: [b"/bin/sh", b"-c", b"exit 97"])
    with pytest.raises(NoPython, match="older"), rig:
        pass


def test_another_version_of_the_agent_is_refused(tmp_path: Path) -> None:
    hello = agent.HELLO_BODY.pack(agent.PROTOCOL + 1, 1, 0, 1, 1, 1)
    greeting = agent.MAGIC + agent.frame(agent.HELLO, 0, hello)
    script = b"import sys; sys.stdout.buffer.write(%r); sys.stdout.flush(); sys.stdin.buffer.read()" % greeting
    rig = Rig(os.fsencode(tmp_path), command=lambda _: [os.fsencode(sys.executable), b"-c", script])
    with pytest.raises(TargetError, match="version"), rig:
        pass


FAKE = """
import os, random, struct, sys
from instep.engines.remote import agent
dice = random.Random(int(sys.argv[1]))
read = lambda n: sys.stdin.buffer.read(n)
head = read(24); read(int(head[15:23], 16))
say = lambda data: os.write(1, data)
say(agent.MAGIC + agent.frame(agent.HELLO, 0, agent.HELLO_BODY.pack(agent.PROTOCOL, 1, 0, 1, 1, 1)))
while True:
    header = read(9)
    if len(header) < 9:
        break
    length, kind, number = agent.HEADER.unpack(header)
    read(length)
    if kind == agent.OPEN:
        say(agent.frame(agent.OPENED, number, agent.OPENED_BODY.pack(1, 2, 3, 4)))
        continue
    if kind != agent.BATCH:
        continue
    body = b""
    for _ in range(dice.randrange(4)):
        payload = dice.choice([b"", dice.randbytes(dice.randrange(40)), struct.pack("<HB", dice.randrange(140), 0),
            agent.pack_listed(dice.choice([b"x", b"..", b"a/b", b"new"]), agent.Entry(*[dice.randrange(9) for _ in range(6)], b""))])
        body += agent.RESULT.pack(dice.randrange(5), dice.randrange(8), len(payload)) + payload
    say(agent.frame(dice.choice([agent.ACK] * 9 + [agent.OPENED, agent.PART, agent.SIGNED, 77]), number, body))
"""


@pytest.mark.parametrize("seed", range(8))
def test_whatever_an_agent_answers_ends_well(tmp_path: Path, seed: int) -> None:
    command = [os.fsencode(sys.executable), b"-c", FAKE.encode(), b"%d" % seed]
    with Rig(os.fsencode(tmp_path), command=lambda _: command) as rig:
        os.mkdir(rig.s(b"d"))
        write(rig.s(b"d/f"), b"f")
        write(rig.s(b"large"), b"f" * 600_000)
        write(rig.s(b"a"), b"a")
        os.link(rig.s(b"a"), rig.s(b"b"))
        dice = random.Random(seed)
        for _ in range(4):
            scope = dice.choice(list(Scope))
            path = dice.choice([b"", b"d", b"d/f", b"a", b"large", b"gone"])
            outcome = rig.run(asyncio.wait_for(bring(rig, path, scope), DEADLINE_S))
            if outcome.away is not None:
                break
        assert read(rig.s(b"d/f")) == b"f"
        assert not os.listdir(rig.dst)


async def bring(rig: Rig, path: bytes, scope: Scope) -> Outcome:
    batch = Batch((Change(RelPath(path), scope),), time.monotonic())
    outcome, rest = rig.engine.sync_now(batch)
    if rest:
        outcome.add(await rig.engine.sync(batch))
    return outcome
