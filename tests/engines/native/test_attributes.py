"""Owner, mode, times, xattrs, ACLs and capabilities, by every road."""

from __future__ import annotations

import os
import socket
import stat
import struct
import subprocess
from collections.abc import Callable

import pytest

from instep.paths import ROOT, Scope
from instep.rules import Preserve
from tests.engines.native.rig import NOBODY, Rig, mounted, needs_root, read, well, write

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep, linux/capability.h
ROADS = [(Scope.ENTRY, True), (Scope.ENTRY, False), (Scope.TREE, True), (Scope.TREE, False)]


def _bring_all(rig: Rig, scope: Scope, *, now: bool, content: bool = False) -> None:
    if scope is Scope.TREE:
        rig.clean(rig.tree(now=now, content=content))
        return
    paths = [
        os.path.relpath(os.path.join(here, name), rig.src)
        for here, directories, files in os.walk(rig.src)
        for name in directories + files
    ]
    rig.clean(rig.bring(*paths, ROOT, content=content, now=now))


def _plain(rig: Rig) -> None:
    os.mkdir(rig.s(b"d"), 0o755)
    for name in (b"f", b"d/f"):
        write(rig.s(name), mode=0o644)


def _owners(rig: Rig) -> None:
    for number, name in enumerate([b"", b"f", b"d", b"d/f"]):
        os.chown(rig.s(name), 1000 + number, 2000 + number)
    os.symlink(b"x", rig.s(b"l"))
    os.chown(rig.s(b"l"), 7, 8, follow_symlinks=False)


def _set_id(rig: Rig) -> None:
    os.chown(rig.s(b"f"), NOBODY, NOBODY)
    os.chmod(rig.s(b"f"), 0o6755)
    os.chmod(rig.s(b"d"), 0o3777)
    write(rig.s(b"d/inherits"))  # its group would come from d


def _xattrs(rig: Rig) -> None:
    for name in (b"", b"f", b"d", b"d/f"):
        os.setxattr(rig.s(name), b"user.colour", name or b"root")
        os.setxattr(rig.s(name), b"trusted.key", b"\0\xff" * 50)


def _capabilities(rig: Rig) -> None:
    for name in (b"f", b"d/f"):
        os.chown(rig.s(name), 5, 5)
        os.setxattr(rig.s(name), b"security.capability", CAPABILITY)


def _acls(rig: Rig) -> None:
    def set_acl(*arguments: str | bytes) -> None:
        subprocess.run(["setfacl", *arguments], check=True)

    set_acl("-m", "u:1234:rw,m::rw", rig.s(b"f"))
    set_acl("-d", "-m", "u:4321:rwx,g:99:r", rig.s(b"d"))
    write(rig.s(b"d/born-with-acl"))
    set_acl("-b", rig.s(b"d/f"))


def _times(rig: Rig) -> None:
    for number, name in enumerate([b"", b"f", b"d", b"d/f"]):
        os.utime(rig.s(name), ns=(number, 10**18 + number))
    os.symlink(b"x", rig.s(b"l"))
    os.utime(rig.s(b"l"), ns=(3, 4), follow_symlinks=False)
    write(rig.s(b"before 1970"))
    os.utime(rig.s(b"before 1970"), ns=(-5, -5))


CHANGES: list[Callable[[Rig], None]] = [_owners, _set_id, _xattrs, _capabilities, _acls, _times]


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(("scope", "now"), ROADS)
@pytest.mark.parametrize("change", CHANGES)
def test_on_what_is_new(rig: Rig, change: Callable[[Rig], None], scope: Scope, now: bool) -> None:
    _plain(rig)
    change(rig)
    _bring_all(rig, scope, now=now, content=True)


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(("scope", "now"), ROADS)
@pytest.mark.parametrize("change", CHANGES)
def test_on_what_is_there(rig: Rig, change: Callable[[Rig], None], scope: Scope, now: bool) -> None:
    """Set, and taken away again: only attributes are reported."""
    _plain(rig)
    rig.clean(rig.tree(now=now))
    change(rig)
    _bring_all(rig, scope, now=now)
    subprocess.run(["setfacl", "-R", "-b", rig.src], check=True)
    for name in (b"", b"f", b"d", b"d/f"):
        for key in os.listxattr(rig.s(name)):
            os.removexattr(rig.s(name), key)
        os.chown(rig.s(name), 0, 0)
        os.chmod(rig.s(name), 0o755)
    _bring_all(rig, scope, now=now)


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(("scope", "now"), ROADS)
def test_a_default_acl_of_the_target_leaves_no_trace(rig: Rig, scope: Scope, now: bool) -> None:
    subprocess.run(["setfacl", "-d", "-m", "u:4321:rwx", rig.dst], check=True)
    _plain(rig)
    os.mkfifo(rig.s(b"fifo"), 0o640)
    _bring_all(rig, scope, now=now, content=True)


@pytest.mark.root
@needs_root
@pytest.mark.parametrize("kind", ["fifo", "device", "socket", "link"])
@pytest.mark.parametrize(("scope", "now"), ROADS)
def test_attributes_of_what_cannot_be_opened(rig: Rig, scope: Scope, now: bool, kind: str) -> None:
    path = rig.s(b"x")
    if kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "device":
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 99))
    elif kind == "link":
        os.symlink(b"text", path)
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path)
    os.setxattr(path, b"trusted.key", b"first", follow_symlinks=False)
    _bring_all(rig, scope, now=now, content=True)
    os.chown(path, 11, 12, follow_symlinks=False)
    if kind != "link":
        os.chmod(path, 0o6640)
        subprocess.run(["setfacl", "-m", "u:77:rw", path], check=True)
    _bring_all(rig, scope, now=now)
    os.setxattr(path, b"trusted.key", b"second", follow_symlinks=False)
    os.setxattr(path, b"trusted.other", b"", follow_symlinks=False)
    _bring_all(rig, scope, now=now)
    os.removexattr(path, b"trusted.key", follow_symlinks=False)
    _bring_all(rig, scope, now=now)


@pytest.mark.root
@needs_root
def test_a_target_without_xattrs_holds_the_rest(base: bytes) -> None:
    with Rig(base) as outer, mounted(outer.dst, "-t", "ramfs", "ramfs"), Rig(base) as rig:
        with pytest.raises(OSError, match="not supported"):
            os.setxattr(rig.dst, b"user.x", b"1")
        _plain(rig)
        os.setxattr(rig.s(b"f"), b"user.x", b"1")
        well(rig.tree(now=True))
        assert read(rig.d(b"d/f")) == b"content"


def test_what_is_not_asked_for_is_not_kept(base: bytes) -> None:
    preserve = Preserve(owner=False, mode=False, times=False, xattrs=False, acls=False)
    with Rig(base, preserve=preserve, umask=0o027) as rig:
        write(rig.s(b"f"), mode=0o4777, mtime_ns=5)
        os.setxattr(rig.s(b"f"), b"user.x", b"1")
        well(rig.tree(now=True))
        info = os.stat(rig.d(b"f"))
        assert stat.S_IMODE(info.st_mode) == 0o750
        assert info.st_mtime_ns != 5
        assert not os.listxattr(rig.d(b"f"))
        os.chmod(rig.d(b"f"), 0o604)
        write(rig.s(b"f"), b"changed")
        well(rig.bring(b"f"))
        assert stat.S_IMODE(os.stat(rig.d(b"f")).st_mode) == 0o604


@pytest.mark.parametrize("owner", [False, True])
def test_new_directories_with_times_but_not_modes(base: bytes, owner: bool) -> None:
    """What is made with the mode of its source, and what must not be; set-id bits and foreign files are never kept."""
    modes = {b"plain": 0o640, b"open": 0o666, b"tool": 0o4755, b"shut": 0o400}
    with Rig(base, preserve=Preserve(owner=owner, mode=False, xattrs=False, acls=False), umask=0o027) as rig:
        os.mkdir(rig.s(b"d"))
        for name, mode in modes.items():
            write(rig.s(b"d/" + name), mode=mode, mtime_ns=5)
        if os.geteuid() == 0:
            write(rig.s(b"d/foreign"), mode=0o640, mtime_ns=5)
            os.chown(rig.s(b"d/foreign"), 65534, 65534)
        well(rig.tree())
        for name in os.listdir(rig.s(b"d")):
            info, found = os.stat(rig.s(b"d/" + name)), os.stat(rig.d(b"d/" + name))
            assert stat.S_IMODE(found.st_mode) == info.st_mode & 0o750, name
            assert found.st_mtime_ns == 5
            assert found.st_uid == (info.st_uid if owner else os.geteuid())


@pytest.mark.root
@needs_root
def test_a_mount_point_below_the_source_when_on_one_file_system(base: bytes) -> None:
    with Rig(base, one_file_system=True) as rig:
        os.mkdir(rig.s(b"m"))
        with mounted(rig.s(b"m"), "-t", "tmpfs", "-o", "mode=0751", "tmpfs"):
            write(rig.s(b"m/inside"))
            well(rig.tree(now=True))
            assert os.listdir(rig.d(b"m")) == []
            assert stat.S_IMODE(os.stat(rig.d(b"m")).st_mode) == 0o751
