"""Ends that do not keep to the protocol: bytes that were damaged, that are none of it, other versions, nobody reading."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import mmap
import os
import random
import struct
import sys
import termios
import threading
from pathlib import Path

import pytest

from instep.engines.remote import agent
from instep.engines.remote.agent import operation
from instep.errors import TargetAway, TargetError
from instep.model import Outcome
from instep.paths import Scope
from tests.engines.remote.peer import Peer, attributes
from tests.engines.remote.rig import Rig, read, write
from tests.engines.remote.test_faults import DEADLINE_S, bring, wait_until

NAMES, ASKED = 400, 60
GROWTH_BYTES = 4 << 20
"""So much may an agent need to make one answer, and for what it has been sent; all answers are more."""


def conversation(dice: random.Random) -> bytes:
    """Frames as our side sends them, with some bytes of them changed, left out or doubled."""
    frames = []
    for number in range(1, 20):
        name = b"n%d" % dice.randrange(6)
        operations = [
            operation(agent.CD, 0, dice.choice([b"", b"d"])),
            operation(agent.PUT, 0, name, attributes() + dice.randbytes(20)),
            operation(agent.MKDIR, 0, b"d"),
            operation(agent.CHECK, 0, b"", dice.randbytes(agent.DIGEST) + bytes(8)),
            operation(agent.BEGIN, 0, b"big", struct.pack("<I", number) + attributes() + dice.randbytes(30)),
            operation(agent.MOVE, 0, name, agent.MOVED.pack(1, 0o100644, 20, 10**18) + b"m"),
            operation(agent.DELETE, agent.RECURSIVE, b"n%d" % dice.randrange(6)),
        ]
        dice.shuffle(operations)
        frames.append(bytearray(agent.frame(agent.BATCH, number, b"".join(operations))))
    for _ in range(dice.randrange(1, 8)):
        one = dice.choice(frames)
        at = dice.randrange(len(one))
        match dice.randrange(3):
            case 0:
                one[at] = dice.randrange(256)
            case 1:
                del one[at : at + dice.randrange(1, 9)]
            case _:
                one[at:at] = one[at : at + dice.randrange(1, 9)]
    return b"".join(frames)


def frames_until_the_end(peer: Peer) -> list[int]:
    kinds = []
    while (received := peer.receive()) is not None:
        kinds.append(received[0])
    return kinds


@pytest.mark.parametrize("seed", range(10))
def test_damaged_frames_harm_nothing_but_the_root(tmp_path: Path, seed: int) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for directory in (root, outside):
        directory.mkdir()
        (directory / "kept").write_text("kept")
    (root / "d").mkdir()
    (root / "out").symlink_to(outside)
    with Peer() as peer:
        peer.hello()
        peer.open(os.fsencode(root))
        stream = conversation(random.Random(seed))
        assert peer.process.stdin is not None
        try:
            peer.send(stream)
            peer.process.stdin.close()
        except BrokenPipeError:
            pass  # It had enough of it.
        known = {agent.ACK, agent.PART, agent.REFUSED, agent.PONG, agent.SIGNED}
        assert set(frames_until_the_end(peer)) <= known
        assert peer.process.wait(DEADLINE_S) in (0, 3)
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert (outside / "kept").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "root"]
    assert not [name for name in os.listdir(root) if name.startswith(".instep")]


NOISE = """
import os, random, sys
from instep.engines.remote import agent
dice = random.Random(int(sys.argv[1]))
read = lambda n: sys.stdin.buffer.read(n)
head = read(24); read(int(head[15:23], 16))
greeting = agent.MAGIC + agent.frame(agent.HELLO, 0, agent.HELLO_BODY.pack(agent.PROTOCOL, 1, 0, 1, 1, 1))
opened = agent.frame(agent.OPENED, 1, agent.OPENED_BODY.pack(1, 2, 3, 4))
stage = int(sys.argv[2])
os.write(1, greeting if stage else b"")
if stage > 1:
    read(9)
    os.write(1, opened)
noise = dice.randbytes(200_000)
os.write(1, noise if dice.randrange(2) else opened[: dice.randrange(1, len(opened))] + noise)
"""


@pytest.mark.parametrize("stage", [0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_noise_in_the_place_of_an_agent_is_a_target_that_is_away(tmp_path: Path, stage: int, seed: int) -> None:
    command = [os.fsencode(sys.executable), b"-c", NOISE.encode(), b"%d" % seed, b"%d" % stage]
    outcome = Outcome()
    try:
        with Rig(os.fsencode(tmp_path), command=lambda _: command) as rig:
            write(rig.s(b"a"), b"a")
            for _ in range(3):
                if outcome.away is None:
                    outcome = rig.run(asyncio.wait_for(bring(rig, b"a", Scope.ENTRY), DEADLINE_S))
        assert outcome.away is not None
        assert read(rig.s(b"a")) == b"a"
    except (TargetAway, TargetError):
        pass  # It was not even opened.
    assert not os.listdir(tmp_path / "dst")


AT_ONCE = NOISE[: NOISE.index("opened = ")] + 'os.write(1, greeting + b"\\xff" * 99); read(-1)'


def test_noise_right_behind_the_greeting(tmp_path: Path) -> None:
    """It is read together with that, before anything was asked; and the process lives on."""
    command = [os.fsencode(sys.executable), b"-c", AT_ONCE.encode(), b"0"]
    with pytest.raises(TargetAway), Rig(os.fsencode(tmp_path), command=lambda _: command):
        pass


def test_our_side_of_another_version_is_refused(tmp_path: Path) -> None:
    for length in (2, 20, 200):
        with Peer() as peer:
            peer.hello()
            peer.send(agent.frame(agent.OPEN, 1, struct.pack("<H", agent.PROTOCOL + 1) + bytes(length)))
            received = peer.receive()
            assert received is not None
            assert received[0] == agent.REFUSED
            assert struct.unpack_from("<H", received[2]) == (errno.EPROTO,)
            assert b"protocol %d" % agent.PROTOCOL in received[2]
    assert not os.listdir(tmp_path)


def test_an_agent_whose_answers_nobody_reads_waits_in_bounded_memory(tmp_path: Path) -> None:
    for number in range(NAMES):
        (tmp_path / f"{number:0200}").touch()
    with Peer() as peer:
        peer.hello()
        peer.open(os.fsencode(tmp_path), agent.LOOKS_ONLY)

        def ask() -> None:
            for number in range(ASKED):
                peer.send(agent.frame(agent.BATCH, number, operation(agent.CHECK, 0, b"")))

        before = resident_bytes(peer.process.pid)
        asking = threading.Thread(target=ask)
        asking.start()
        assert peer.process.stdout is not None
        answered = peer.process.stdout.fileno()
        full = fcntl.fcntl(answered, fcntl.F_GETPIPE_SZ) - mmap.PAGESIZE
        wait_until(lambda: waiting_bytes(answered) > full, "the agent waits for a reader")
        assert resident_bytes(peer.process.pid) - before < GROWTH_BYTES
        answers = length = 0
        while answers < ASKED:
            received = peer.receive()
            assert received is not None
            length += len(received[2])
            answers += received[0] == agent.ACK
        asking.join(DEADLINE_S)
    assert length > GROWTH_BYTES  # It would have shown.


def waiting_bytes(fd: int) -> int:
    """How much can be read from a pipe."""
    length: int = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))[0]
    return length


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmRSS:"))
