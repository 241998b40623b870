"""Names and paths that only bytes can hold."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from instep.linux.openat import open_directory
from instep.paths import ROOT, Scope
from tests.engines.native.rig import Rig, read, well, write
from tests.trees import assert_equal, snapshot

NAMES = [
    b"\xff\xfe not UTF-8",
    b"new\nline",
    b"-leading",
    b"--delete",
    b"x" * 255,
    b"\xc3\xa4" * 127,
    b"100%s%d%",
    b"[ab]*?{c}",
    b" spaces ",
    b"\x01\x7f\t\r",
    b"back\\slash",
    b"'\"$(x)`y`",
    b"...",
    b"..a",
    b"~",
    b"#x",
    b".instep-almost",
]


@pytest.mark.parametrize("now", [True, False])
def test_every_name_is_a_name(rig: Rig, now: bool) -> None:
    """As file, directory, link and link text; made, changed, moved and removed."""
    for name in NAMES:
        os.mkdir(rig.s(name))
        write(rig.s(name + b"/" + name), name)
        os.symlink(name, rig.s(name + b"/link"))
    rig.clean(rig.bring(*NAMES, scope=Scope.TREE, now=now))
    files = [name + b"/" + name for name in NAMES]
    for file in files:
        write(rig.s(file), b"other")
    rig.clean(rig.bring(*files, now=now))
    moves = {}
    for name, file in zip(NAMES, files, strict=True):
        os.rename(rig.s(file), rig.s(name + b"/m"))
        moves[name + b"/m"] = file
    rig.clean(rig.bring(*moves, *files, moves=moves, now=now))
    for name in NAMES:
        shutil.rmtree(rig.s(name))
    rig.clean(rig.bring(*NAMES, now=now))
    assert os.listdir(rig.dst) == []


def _descend(root: bytes, names: list[bytes]) -> int:
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for name in names:
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


@pytest.mark.parametrize("length", [1, 50, 254])
@pytest.mark.parametrize("now", [True, False])
def test_paths_of_four_thousand_bytes(rig: Rig, length: int, now: bool) -> None:
    """The absolute path is longer than PATH_MAX: only descriptors lead there."""
    names = [b"d" * length] * (4_000 // (length + 1))
    path = b"/".join([*names, b"file"])
    fd = _descend(rig.src, names)
    try:
        opened = os.open(b"file", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=fd)
        os.write(opened, b"deep")
        os.close(opened)
        rig.clean(rig.tree(now=now))
        os.unlink(b"file", dir_fd=fd)
        os.mkfifo(b"file", dir_fd=fd)
        rig.clean(rig.bring(path, now=now))
    finally:
        os.close(fd)
    subprocess.run(["rm", "-rf", rig.s(names[0])], check=True)  # shutil.rmtree recurses, two thousand levels deep
    rig.clean(rig.bring(names[0], now=now))
    assert os.listdir(rig.dst) == []


def test_paths_longer_than_path_max_fail_alone(rig: Rig) -> None:
    """The kernel takes no such path in one piece; the rest is brought over all the same."""
    names = [b"d" * 200] * 25
    os.close(_descend(rig.src, names))
    write(rig.s(b"other"))
    outcome = rig.tree()
    assert read(rig.d(b"other")) == b"content"
    ours, theirs = snapshot(rig.src), snapshot(rig.dst)
    missing = ours.keys() - theirs.keys()
    assert bool(missing) == bool(outcome.failures)
    assert len(theirs) > 19
    well(rig.bring(b"other"))


def test_open_directory_takes_no_way_out(rig: Rig) -> None:
    fd = os.open(rig.src, os.O_RDONLY)
    try:
        for path in (b"..", b"../src", b"/etc"):
            with pytest.raises(OSError):
                os.close(open_directory(fd, path))
    finally:
        os.close(fd)


def test_the_root_itself(rig: Rig) -> None:
    os.chmod(rig.src, 0o751)
    os.utime(rig.src, ns=(1, 1_234_567_890))
    rig.clean(rig.bring(ROOT, content=False))
    assert_equal(rig.src, rig.dst)
