"""An attacker who swaps directories for links while we work: nothing outside is ever touched, or brought in."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from instep.engines.native import remove as removing
from instep.linux.openat import open_directory
from instep.paths import Scope
from tests.engines.native.rig import Rig, as_nobody, needs_root, read, temporaries, well, write
from tests.trees import assert_equal, inodes, snapshot, walk

SECRET = b"the secret of the outside"

ATTACKER = """
import ctypes, os, shutil, sys
libc = ctypes.CDLL(None)
pairs = list(zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]))  # name, spare beside it, where the link leads
def swap(one, other):
    return libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2)
rounds = 0
print("ready", flush=True)
while True:
    for name, spare, leads in pairs:
        if not os.path.islink(spare):
            shutil.rmtree(spare, ignore_errors=True)
            try:
                os.unlink(spare)
            except OSError:
                pass
            try:
                os.symlink(leads, spare)
            except OSError:
                continue  # not empty yet: a write was under way in it
        for _ in range(20):
            swap(name, spare)
            swap(name, spare)
"""


class Field:
    """A source with a directory and a file to be swapped, and a victim outside of both roots."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.outside = os.path.join(rig.base, b"outside")
        for root in (rig.s(b"d"), rig.s(b"e"), self.outside):
            os.makedirs(root + b"/sub/deep")
            for name in (b"f", b"gone", b"m", b"sub/f", b"sub/deep/f", b"sub/gone"):
                write(root + b"/" + name, SECRET if root == self.outside else b"ours", mode=0o600)
        write(rig.s(b"file"), b"ours")
        well(rig.tree(now=True))
        self.before = (snapshot(self.outside), inodes(self.outside))
        self.real = {name: os.open(rig.s(name), os.O_RDONLY | os.O_DIRECTORY) for name in (b"d", b"e")}

    def close(self) -> None:
        for fd in self.real.values():
            os.close(fd)

    def write(self, fd: int, name: bytes, data: bytes) -> None:
        opened = open_beneath(fd, name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(opened, data)
        os.close(opened)

    def check(self) -> None:
        """No name here is one with the outside, and no secret has come in."""
        for path, fd in walk(self.rig.dst):
            for name in os.listdir(fd):
                try:
                    opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=fd)
                except OSError:
                    continue
                try:
                    if stat.S_ISREG(os.fstat(opened).st_mode):
                        assert SECRET not in os.read(opened, 1000), (path, name)
                finally:
                    os.close(opened)

    def intact(self) -> None:
        assert (snapshot(self.outside), inodes(self.outside)) == self.before


def open_beneath(fd: int, path: bytes, flags: int) -> int:
    """Our own edits are not to be led outside either."""
    parent, _, name = path.rpartition(b"/")
    directory = open_directory(fd, parent)
    try:
        return os.open(name, flags | os.O_NOFOLLOW, 0o600, dir_fd=directory)
    finally:
        os.close(directory)


@contextlib.contextmanager
def attacking(*swaps: tuple[bytes, bytes, bytes]) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", ATTACKER, *(part for swap in swaps for part in swap)],
        stdout=subprocess.PIPE,
    ) as attacker:
        try:
            assert attacker.stdout is not None
            assert attacker.stdout.readline() == b"ready\n"
            yield
            assert attacker.poll() is None, "the attacker gave up"
        finally:
            attacker.kill()


def _swaps(field: Field, side: str) -> list[tuple[bytes, bytes, bytes]]:
    base, outside = field.rig.base, field.outside
    swaps = []
    for letter, root in ((b"s", field.rig.src), (b"t", field.rig.dst)):
        if side in ("both", "source" if letter == b"s" else "target"):
            swaps += [
                (root + b"/d", base + b"/spare-d-" + letter, outside),
                (root + b"/e/sub", base + b"/spare-sub-" + letter, outside + b"/sub"),
                (root + b"/file", base + b"/spare-file-" + letter, outside + b"/f"),
            ]
    return swaps


def _work(field: Field, until_s: float) -> None:
    """Every kind of work, over and over."""
    rig, rounds = field.rig, 0
    while time.monotonic() < until_s or rounds < ROUNDS_MIN:
        rounds += 1
        data = b"ours %d" % rounds
        for top, fd in field.real.items():
            for name in (b"f", b"gone", b"sub/f", b"sub/gone", b"m"):
                with contextlib.suppress(OSError):  # sub is swapped just now
                    field.write(fd, name, data)
            below = [b"f", b"sub/f", b"sub/deep/f", b"gone", b"sub/gone", b"m"]
            rig.bring(*(top + b"/" + name for name in below), b"file", content=rounds % 2 == 0)
            rig.bring(top, scope=Scope.TREE, content=rounds % 3 == 0)
            with contextlib.suppress(OSError):
                os.unlink(b"gone", dir_fd=fd)
            rig.bring(top + b"/gone", top + b"/sub/gone", top + b"/sub")
            for old, new in ((b"m", b"moved"), (b"moved", b"m")):
                os.rename(old, new, src_dir_fd=fd, dst_dir_fd=fd)
                here, before = top + b"/" + new, top + b"/" + old
                rig.bring(here, before, moves={here: before})
        if rounds % 20 == 0:
            rig.tree(now=False)
        field.check()


ROUNDS_MIN = 10
SECONDS = [1.2, 30.0] if os.environ.get("INSTEP_SIZES") == "full" else [1.2]
"""The soak goes on for longer."""


@pytest.mark.parametrize("side", ["source", "target", "both"])
@pytest.mark.slow
@pytest.mark.parametrize("seconds", SECONDS)
def test_nothing_outside_is_touched_or_read(rig: Rig, side: str, seconds: float) -> None:
    field = Field(rig)
    try:
        with attacking(*_swaps(field, side)):
            _work(field, time.monotonic() + seconds)
        field.intact()
        field.check()
        # And when it is over, all is well again.
        rig.tree(content=True, now=True)
        well(rig.tree(content=True, now=True))
        assert_equal(rig.src, rig.dst)
        assert not temporaries(rig.dst)
        field.intact()
    finally:
        field.close()


@pytest.mark.parametrize("swapped", [b"doomed", b"s"])
def test_deleting_follows_no_link_that_is_swapped_in(rig: Rig, monkeypatch: pytest.MonkeyPatch, swapped: bytes) -> None:
    """Between looking at a name and entering the directory that it was."""
    field = Field(rig)
    field.close()
    os.makedirs(rig.d(b"doomed/s"))
    genuine = removing._open
    up = b"../" if swapped == b"doomed" else b"../../"  # an absolute link would be stopped as leading to another mount

    def swap_then_open(parent: int, name: str | bytes) -> int:
        if os.fsencode(name) == swapped:
            os.rename(name, os.path.join(rig.base, b"aside"), src_dir_fd=parent)
            os.symlink(up + b"outside/sub", os.fsencode(name), dir_fd=parent)
        return genuine(parent, name)

    monkeypatch.setattr(removing, "_open", swap_then_open)
    rig.bring(b"doomed")
    field.intact()
    monkeypatch.undo()
    rig.clean(rig.bring(b"doomed"))
    field.intact()


@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("scope", [Scope.ENTRY, Scope.TREE])
def test_a_link_that_stands_still(rig: Rig, scope: Scope, side: str, now: bool) -> None:
    """A stale report below what is a link by now."""
    field = Field(rig)
    field.close()
    root = rig.src if side == "source" else rig.dst
    os.rename(root + b"/d", os.path.join(rig.base, b"aside"))
    os.symlink(field.outside, root + b"/d")
    outcome = rig.bring(b"d/f", b"d/none", b"d/sub/gone", b"d/moved", scope=scope, now=now, moves={b"d/moved": b"d/m"})
    well(outcome)
    field.intact()
    field.check()
    rig.clean(rig.bring(b"d", b"", now=now))
    field.intact()


@pytest.mark.root
@needs_root
def test_a_temporary_swapped_for_a_hard_link_changes_nothing_outside(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a fifo, which has to be given its owner by name: the name may be another file's by then."""
    victim = os.path.join(rig.base, b"victim")
    os.mkfifo(victim, 0o600)
    before = os.lstat(victim)
    os.mkfifo(rig.s(b"f"), 0o666)
    os.chown(rig.s(b"f"), 5, 5)
    genuine = os.mknod

    def mknod(name: bytes, *arguments: object, dir_fd: int) -> None:
        genuine(name, *arguments, dir_fd=dir_fd)  # type: ignore[arg-type]
        os.unlink(name, dir_fd=dir_fd)
        os.link(victim, name, dst_dir_fd=dir_fd)

    monkeypatch.setattr(os, "mknod", mknod)
    assert rig.bring(b"f").failures
    after = os.lstat(victim)
    assert (after.st_uid, after.st_mode) == (before.st_uid, before.st_mode)
    assert not temporaries(rig.dst)


@pytest.mark.root
@needs_root
def test_a_link_in_the_source_to_what_only_root_may_read(rig: Rig) -> None:
    """Our rights are not lent to whoever may write to the source."""
    os.chown(rig.src, 65534, 65534)
    secret = os.path.join(rig.base, b"secret")
    write(secret, SECRET, mode=0o600)

    def plant() -> None:
        os.symlink(secret, rig.s(b"link"))
        os.symlink(os.path.dirname(secret), rig.s(b"dir"))

    as_nobody(plant)
    rig.clean(rig.bring(b"", b"link", b"dir", b"dir/secret"))
    rig.clean(rig.tree(now=True))
    assert os.path.islink(rig.d(b"link"))
    assert read(secret) == SECRET
