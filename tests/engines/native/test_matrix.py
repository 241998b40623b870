"""Every type becomes every other type, by every road."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable

import pytest

from instep.paths import Scope
from tests.engines.native.rig import IS_ROOT, Rig, temporaries, well, write
from tests.trees import assert_equal


def _directory(path: bytes) -> None:
    os.mkdir(path, 0o750)


def _full_directory(path: bytes) -> None:
    os.mkdir(path, 0o711)
    os.mkdir(path + b"/deeper")
    write(path + b"/deeper/file", os.path.basename(path), mode=0o640)
    os.symlink(b"nowhere", path + b"/link")


def _link_to_directory(path: bytes) -> None:
    os.symlink(os.path.dirname(os.path.dirname(path)) + b"/elsewhere", path)


def _socket(path: bytes) -> None:
    # The address is limited to 108 bytes, the path is not.
    fd = os.open(os.path.dirname(path), os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(b"/proc/self/fd/%d/%s" % (fd, os.path.basename(path)))
    finally:
        os.close(fd)
    os.chmod(path, 0o640)


MAKERS: dict[str, Callable[[bytes], None]] = {
    "absent": lambda _: None,
    "file": lambda path: write(path, path, mode=0o604),
    "directory": _directory,
    "full": _full_directory,
    "link": lambda path: os.symlink(b"dangling", path),
    "dirlink": _link_to_directory,
    "fifo": lambda path: os.mkfifo(path, 0o620),
    "socket": _socket,
}
if IS_ROOT:
    MAKERS["device"] = lambda path: os.mknod(path, stat.S_IFCHR | 0o640, os.makedev(1, 3))

PAIRS = [f"{one}-{other}".encode() for one in MAKERS for other in MAKERS]


def _plant(rig: Rig) -> None:
    os.mkdir(os.path.join(rig.base, b"elsewhere"))
    write(os.path.join(rig.base, b"elsewhere/secret"), b"outside")
    for pair in PAIRS:
        ours, theirs = pair.decode().split("-")
        MAKERS[ours](rig.s(pair))
        MAKERS[theirs](rig.d(pair))


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("now", [True, False])
@pytest.mark.parametrize("scope", [Scope.ENTRY, Scope.TREE, Scope.LIST])
def test_one_report_a_name(rig: Rig, scope: Scope, now: bool, content: bool) -> None:
    """A directory that the target lacks comes whole, whatever the scope; one that it has is compared by TREE alone."""
    _plant(rig)
    if now:
        for pair in PAIRS:
            well(rig.bring(pair, scope=scope, content=content))
    else:
        well(rig.bring(*PAIRS, scope=scope, content=content, now=False))
    if scope is not Scope.TREE:
        well(rig.bring(b"full-directory", b"directory-full", b"full-full", scope=Scope.TREE, content=content))
        well(rig.bring(b"", content=content))
    well(rig.bring(b"", scope=Scope.ENTRY, content=content))
    assert_equal(rig.src, rig.dst)
    assert os.listdir(rig.base + b"/elsewhere") == [b"secret"]
    assert not temporaries(rig.dst)


@pytest.mark.parametrize("content", [True, False])
@pytest.mark.parametrize("now", [True, False])
def test_one_report_for_all(rig: Rig, now: bool, content: bool) -> None:
    _plant(rig)
    rig.clean(rig.tree(content=content, now=now))
    again = rig.tree(content=False, now=now)
    assert (again.entries, again.deleted, again.files) == (0, 0, 0)


def test_one_listing_for_all(rig: Rig) -> None:
    _plant(rig)
    well(rig.bring(b"", scope=Scope.LIST))
    both = [pair for pair in PAIRS if not {*pair.split(b"-")} - {b"full", b"directory"}]  # a listing is of names only
    well(rig.bring(*both, scope=Scope.TREE))
    assert_equal(rig.src, rig.dst)
