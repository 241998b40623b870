"""Owners by name: a far side where the same people have other numbers."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from instep.engines import ssh
from instep.engines.remote import agent, connection, owners
from instep.engines.remote.contents import Contents
from instep.engines.remote.owners import Numbers
from instep.engines.remote.verifier import RemoteVerifier
from instep.errors import TargetAway
from instep.model import Aspect, Difference
from instep.rules import Preserve
from instep.spec import MaxDelete
from tests.engines.remote.peer import Peer
from tests.engines.remote.rig import Rig, needs_root, well, write

HERE = ({b"ann": 70001, b"bob": 70002, b"only here": 70003}, {b"staff": 80001, b"nobody's": 80002})
THERE = ({"ann": 71001, "bob": 70001}, {"staff": 81001})
"""Her number there is another one, and his is hers here."""


def there(_: ssh.Place) -> Sequence[bytes]:
    """Starts an agent that finds other users and groups."""
    begin = (
        f"import pwd,grp,types;users,groups={THERE!r};"
        "pwd.getpwnam=lambda name:types.SimpleNamespace(pw_uid=users[name]);"
        "grp.getgrnam=lambda name:types.SimpleNamespace(gr_gid=groups[name]);"
    ).encode()
    return [os.fsencode(sys.executable), b"-S", b"-E", b"-c", begin + connection._STUB]


@pytest.fixture
def by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Rig]:
    """Makes engines that go by names."""
    monkeypatch.setattr(owners, "_listed", lambda: HERE)
    return lambda: Rig(
        os.fsencode(tmp_path), command=there, preserve=Preserve(owner_names=True), max_delete=MaxDelete(percent=100)
    )


def owner(path: bytes) -> tuple[int, int]:
    info = os.lstat(path)
    return info.st_uid, info.st_gid


CASES = {
    b"hers": ((70001, 80001), (71001, 81001)),
    b"his": ((70002, 0), (70001, 0)),
    b"only here": ((70003, 80002), (70003, 80002)),
    b"nameless": ((70009, 80009), (70009, 80009)),
    b"root's": ((0, 0), (0, 0)),
}


def plant(rig: Rig) -> None:
    os.mkdir(rig.s(b"d"))
    os.symlink(b"nowhere", rig.s(b"d/link"))
    write(rig.s(b"d/large"), os.urandom(700_000))
    for path in (b"d", b"d/link", b"d/large"):
        os.lchown(rig.s(path), 70001, 80001)
    for name, (here, _) in CASES.items():
        write(rig.s(name), name)
        os.chown(rig.s(name), *here)


def check(rig: Rig) -> None:
    for name, (_, over_there) in CASES.items():
        assert owner(rig.d(name)) == over_there, name
    for path in (b"d", b"d/link", b"d/large"):
        assert owner(rig.d(path)) == (71001, 81001), path


@needs_root
def test_owners_get_the_numbers_of_their_names(by_name: Callable[[], Rig]) -> None:
    with by_name() as rig:
        plant(rig)
        well(rig.tree())
        check(rig)
        again = rig.tree()
        well(again)
        assert not again.entries, "compared by name as well"
        os.chown(rig.d(b"hers"), 70001, 80001)
        os.lchown(rig.d(b"d/link"), 70001, 80001)
        well(rig.tree())
        check(rig)
        # Live: one name after the other.
        for name, (here, _) in CASES.items():
            write(rig.s(name), b"changed")
            os.chown(rig.s(name), *here)
            well(rig.bring(name))
            os.chown(rig.s(b"d/large"), 70002, 80001)
            well(rig.bring(b"d/large", content=False))
            assert owner(rig.d(b"d/large")) == (70001, 81001)
        os.chown(rig.s(b"d/large"), 70001, 80001)
        well(rig.bring(b"d/large", content=True))
        check(rig)


@needs_root
def test_what_one_target_read_is_not_the_other_s_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "_listed", lambda: HERE)
    contents = Contents()
    (tmp_path / "other").mkdir()
    with (
        Rig(os.fsencode(tmp_path), command=there, contents=contents, preserve=Preserve(owner_names=True)) as named,
        Rig(os.fsencode(tmp_path), contents=contents, target=b"there:" + os.fsencode(tmp_path / "other")) as plain,
    ):
        write(named.s(b"a"), b"a")
        os.chown(named.s(b"a"), 70001, 80001)
        well(named.bring(b"a"))
        well(plain.bring(b"a"))
        assert owner(named.d(b"a")) == (71001, 81001)
        assert owner(os.fsencode(tmp_path / "other/a")) == (70001, 80001)
        os.unlink(named.d(b"a"))
        well(named.bring(b"a"))
        assert owner(named.d(b"a")) == (71001, 81001)


@needs_root
def test_verifying_goes_by_names_as_well(by_name: Callable[[], Rig]) -> None:
    with by_name() as rig:
        plant(rig)
        well(rig.tree())
        assert not differences(rig)
        os.chown(rig.d(b"his"), 70002, 0)
        (one,) = differences(rig)
        assert (one.path, one.what) == (b"his", Aspect.OWNER)
        assert one.text == "owner 70002:0 (by name 70001:0 there), at the target 70002:0"


def differences(rig: Rig) -> list[Difference]:
    async def all_of_it() -> list[Difference]:
        verifier = RemoteVerifier(
            b"there:" + rig.dst, source_fd=rig.source_fd, settings=rig.settings, checksum=False, command=there
        )
        try:
            await verifier.open()
            return [one async for some in verifier.differences() for one in some]
        finally:
            await verifier.close()

    return asyncio.run(all_of_it())


def test_without_being_asked_for_it_is_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not() -> None:
        raise AssertionError

    monkeypatch.setattr(owners, "_listed", must_not)
    with Rig(os.fsencode(tmp_path), command=there) as rig:
        assert rig.engine._tie is not None
        assert rig.engine._tie.session.numbers is None


def test_numbers_of_names() -> None:
    numbers = Numbers({5: 6}, {7: 8})
    head = agent.ATTRIBUTES.pack(0o644, 5, 7, 1, 2, 0)
    assert numbers.put_in(head + b"more") == agent.ATTRIBUTES.pack(0o644, 6, 8, 1, 2, 0) + b"more"
    other = agent.ATTRIBUTES.pack(0o644, 9, 9, 1, 2, 0)
    assert numbers.put_in(other) is other
    assert owners._first([(0, "root"), (7, "a"), (7, "b"), (8, "c")]) == {b"a": 7, b"c": 8}


def test_an_agent_tells_numbers(tmp_path: Path) -> None:
    with Peer() as peer:
        peer.hello()
        peer.open(os.fsencode(tmp_path), flags=agent.LOOKS_ONLY)
        answers = peer.batch(
            agent.operation(agent.NUMBERS, 0, b"", b"root\0no such user\0\xff"),
            agent.operation(agent.NUMBERS, agent.GROUPS, b"", b"root"),
        )
        unknown = agent.NO_NUMBER.to_bytes(4, "little")
        assert answers == {0: (agent.OK, bytes(4) + 2 * unknown), 1: (agent.OK, bytes(4))}


@pytest.mark.parametrize("answer", [b"", b"\0" * 3])
def test_an_answer_that_does_not_fit_ends_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(owners, "_listed", lambda: HERE)

    def wrong(place: ssh.Place) -> Sequence[bytes]:
        *words, script = there(place)
        asked = b"import struct;pack=struct.pack;struct.pack=lambda f,*v:%r if v==(71001,) else pack(f,*v);" % answer
        return [*words, asked + script]

    rig = Rig(os.fsencode(tmp_path), command=wrong, preserve=Preserve(owner_names=True))
    with pytest.raises(TargetAway, match="does not fit"), rig:
        pass
