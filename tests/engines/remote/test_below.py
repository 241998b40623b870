"""Comparing whole trees: what is equal costs few messages, and what differs is found wherever it is."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from instep.engines.remote import agent, source
from instep.engines.remote.connection import Connection
from tests.engines.remote.rig import Rig, write
from tests.engines.remote.test_faults import wait_until

WIDE, DEEP = 100, 20


def plant(rig: Rig) -> None:
    """Wide, deep and small directories: some hundred in all."""
    for number in range(WIDE):
        os.makedirs(rig.s(b"wide/d%03d" % number))
        write(rig.s(b"wide/d%03d/f" % number), b"%d" % number)
    here = b"deep"
    for number in range(DEEP):
        os.makedirs(rig.s(here + b"/a"))
        os.makedirs(rig.s(here + b"/z"))
        write(rig.s(here + b"/z/f"), b"%d" % number)
        here += b"/m"
        os.makedirs(rig.s(here))
    write(rig.s(here + b"/last"), b"last")


def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all frames of operations that are sent from now on."""
    seen: list[int] = []
    original = Connection.request

    def noting(self: Connection, parts: Sequence[bytes], size: int, *, bulk: bool) -> object:
        seen.append(size)
        return original(self, parts, size, bulk=bulk)

    monkeypatch.setattr(Connection, "request", noting)
    return seen


def bring_later(rig: Rig) -> None:
    """Were the copies made at almost the same time as the files, times would prove nothing."""
    tie = rig.engine._tie
    assert tie is not None
    until_ns = time.time_ns() + tie.far.ahead_ns + 10**7
    wait_until(lambda: time.time_ns() > until_ns, "a younger clock")
    rig.clean(rig.tree())


def test_equal_trees_cost_few_messages(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(rig)
    directories = sum(1 for _ in os.walk(rig.src))
    bring_later(rig)
    seen = sizes(monkeypatch)
    outcome = rig.tree()
    rig.clean(outcome)
    assert outcome.entries == 0
    assert len(seen) <= 10
    assert sum(seen) < 16 * directories


def test_one_difference_has_one_directory_listed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(rig)
    directories = sum(1 for _ in os.walk(rig.src))
    bring_later(rig)
    write(rig.s(b"deep" + b"/m" * DEEP + b"/last"), b"changed")
    listed: list[bytes] = []
    original = agent.unpack_listing

    def noting(body: bytes) -> dict[bytes, agent.Entry]:
        listed.append(body)
        return original(body)

    monkeypatch.setattr(agent, "unpack_listing", noting)
    seen = sizes(monkeypatch)
    outcome = rig.tree()
    rig.clean(outcome)
    assert outcome.files == 1
    assert len(listed) == 1
    assert len(seen) <= 12 + 2 * DEEP
    assert sum(seen) < 16 * directories + source.BELOW_AT_ONCE * 100


def test_a_difference_is_found_wherever_it_is(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BELOW_AT_ONCE", 7)
    plant(rig)
    rig.clean(rig.tree())
    deepest = b"deep" + b"/m" * DEEP

    def no_directory() -> None:
        shutil.rmtree(rig.d(b"wide/d099"))
        write(rig.d(b"wide/d099"), b"no directory")

    harms: list[Callable[[], object]] = [
        lambda: os.unlink(rig.d(deepest + b"/last")),
        lambda: os.chmod(rig.d(b"wide/d098"), 0o711),
        lambda: os.unlink(rig.d(b"wide/d000/f")),
        lambda: shutil.rmtree(rig.d(b"deep/m/m/m")),
        lambda: os.makedirs(rig.d(b"wide/d070/extra/more")),
        lambda: os.rename(rig.d(b"wide/d097"), rig.d(b"wide/d097-aside")),
        no_directory,
    ]
    for harm in harms:
        harm()
        rig.clean(rig.tree())


def test_same_size_and_time_is_looked_into(rig: Rig) -> None:
    plant(rig)
    rig.clean(rig.tree())
    for path in (b"wide/d077/f", b"deep/m/m/m/z/f"):
        info = os.stat(rig.s(path))
        content = b"x" * info.st_size
        write(rig.s(path), content)
        os.utime(rig.s(path), ns=(info.st_atime_ns, info.st_mtime_ns))
    outcome = rig.tree()
    rig.clean(outcome)
    assert outcome.files == 2


def test_random_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dice = random.Random(5)
    monkeypatch.setattr(source, "BELOW_AT_ONCE", 5)

    def somewhere(top: bytes) -> bytes:
        found = [here for here, _, _ in os.walk(top)]
        return dice.choice(found)

    with Rig(os.fsencode(tmp_path)) as rig:
        for number in range(120):
            os.mkdir(os.path.join(somewhere(rig.src), b"d%d" % number))
            write(os.path.join(somewhere(rig.src), b"f%d" % number), b"%d" % number)
        rig.clean(rig.tree())
        for round_ in range(8):
            for number in range(dice.randrange(4)):
                here = somewhere(dice.choice([rig.src, rig.dst]))
                name = b"%d-%d" % (round_, number)
                match dice.randrange(4):
                    case 0:
                        os.mkdir(os.path.join(here, b"new" + name))
                    case 1:
                        write(os.path.join(here, b"f" + name), name)
                    case 2 if here not in (rig.src, rig.dst):
                        shutil.rmtree(here)
                    case _:
                        os.chmod(here, dice.choice([0o700, 0o755, 0o750]))
            rig.clean(rig.tree())
