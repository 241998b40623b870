"""Of all agents that were started for one engine only the last one writes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from instep.engines import ssh
from instep.engines.remote import agent, connection
from instep.engines.remote.connection import bootstrap
from tests.engines.remote.peer import Peer, attributes
from tests.engines.remote.rig import Patience, Rig, over_a_pipe, read, write
from tests.engines.remote.test_faults import DEADLINE_S, pid_of, wait_until
from tests.processes import lives

WHOSE = bytes(range(16))


def relayed(place: ssh.Place) -> Sequence[bytes]:
    """The agent behind a process that passes on what it is given, and does not end it when it is killed itself."""
    shell, option, words = over_a_pipe(place)
    return [shell, option, b"cat | (" + words + b")"]


def behind(pid: int) -> int:
    """The agent below a relaying shell."""
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{int(name)}/stat", "rb") as status:
            parent = int(status.read().rpartition(b")")[2].split()[1])
            with open(f"/proc/{name}/cmdline", "rb") as words:
                if parent == pid and b"instep-agent" in words.read() and int(name) != pid:
                    return int(name)
    raise AssertionError("no agent")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_what_is_still_on_its_way_over_a_connection_given_up_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience: Patience
) -> None:
    with Rig(os.fsencode(tmp_path), command=relayed) as rig:
        write(rig.s(b"a"), b"first")
        rig.clean(rig.bring(b"a"))
        older = behind(pid_of(rig))
        greeted = asyncio.Event()
        begin = connection.Connection._begin

        async def noted(self: connection.Connection, hello: bytes, wanted: connection.Wanted) -> connection.Far:
            greeted.set()
            return await begin(self, hello, wanted)

        monkeypatch.setattr(connection.Connection, "_begin", noted)

        async def open_again() -> bool:
            opening = asyncio.ensure_future(rig.engine.open())
            await greeted.wait()
            await asyncio.wait((opening,), timeout=0.5)
            assert not opening.done()  # The older one has an order in hand, and may carry it out at any time.
            os.kill(older, signal.SIGCONT)
            return await opening

        with stopped(older):
            patience(0.6)
            write(rig.s(b"a"), b"on its way")
            assert rig.bring(b"a").away is not None
            patience(DEADLINE_S)
            write(rig.s(b"a"), b"newest")
            assert rig.run(open_again())
        rig.clean(rig.bring(b"a"))
        wait_until(lambda: not lives(older), "the older one ended")
        assert read(rig.d(b"a")) == b"newest"


def test_one_that_does_not_end_keeps_the_next_one_out(tmp_path: Path) -> None:
    target = os.fsencode(tmp_path)
    with Peer() as older, Impatient() as newer:
        older.hello()
        opened = older.open(target, whose=WHOSE)
        assert opened is not None
        assert opened[0] == agent.OPENED
        newer.hello()
        with stopped(older.process.pid):
            refused = newer.open(target, whose=WHOSE)
        assert refused is not None
        assert refused[0] == agent.REFUSED
        assert struct.unpack_from("<H", refused[2]) == (16,)  # EBUSY
        # It was called all the same.
        wait_until(lambda: not lives(older.process.pid), "the older one ended")


def test_agents_of_two_engines_and_one_that_only_looks_leave_each_other_alone(tmp_path: Path) -> None:
    target = os.fsencode(tmp_path)
    with Peer() as one, Peer() as other, Peer() as looker:
        for peer, whose, flags in (
            (one, WHOSE, agent.MAY_DELETE),
            (other, WHOSE[::-1], agent.MAY_DELETE),
            (looker, WHOSE, agent.LOOKS_ONLY),
        ):
            peer.hello()
            opened = peer.open(target, flags, whose)
            assert opened is not None
            assert opened[0] == agent.OPENED
        for number, peer in enumerate((one, other)):
            peer.batch(agent.operation(agent.CD, 0, b""), put(b"f%d" % number))
        assert sorted(os.listdir(target)) == [b"f0", b"f1"]


def test_an_agent_that_ends_by_itself_is_not_waited_for(tmp_path: Path) -> None:
    target = os.fsencode(tmp_path)
    for number in range(3):
        with Peer() as peer:
            peer.hello()
            assert peer.open(target, whose=WHOSE) is not None
            peer.batch(agent.operation(agent.CD, 0, b""), put(b"f%d" % number))
    assert len(os.listdir(target)) == 3


def put(name: bytes) -> bytes:
    return agent.operation(agent.PUT, 0, name, attributes() + b"content")


class Impatient(Peer):
    """An agent that waits only shortly for the one before."""

    def send(self, data: bytes) -> None:
        if data == bootstrap():
            source = zlib.decompress(data[len(agent.BOOT % 0) :])
            changed = source.replace(b"SUCCESSION_S = 10.0", b"SUCCESSION_S = 0.3")
            assert changed != source
            packed = zlib.compress(changed)
            data = agent.BOOT % len(packed) + packed
        super().send(data)
