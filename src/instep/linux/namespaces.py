"""Namespaces, mounts and the root directory of this process.

Facts (unshare(2), mount_namespaces(7), pivot_root(2)): a new mount namespace starts with the propagation of the old
one, so that an unmount in it reaches the host where mounts are shared (systemd makes them so), until all are made
private. ``pivot_root(".", ".")`` puts the old root on top of the new one, from where it can be detached: no directory
for it is needed. The new root has to be a mount point: binding a directory to itself makes it one. A bind mount takes
flags of its own only with a second call.
"""

from __future__ import annotations

import os

from instep.linux.libc import failure, libc
from instep.linux.mounts import MOUNTINFO, parse

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000

_MS_RDONLY = 1
_MS_REMOUNT = 32
_MS_BIND = 4096
_MS_REC = 16384
_MS_PRIVATE = 1 << 18
_MNT_DETACH = 2


def unshare(flags: int) -> None:
    """Have new namespaces of these kinds.

    Raises:
        OSError: EPERM, needs CAP_SYS_ADMIN; EINVAL, the kernel has no such namespaces.
    """
    if libc().unshare(flags) < 0:
        raise failure()


def own_mounts() -> None:
    """Have a mount namespace from which nothing reaches another one, and which nothing reaches from there."""
    unshare(CLONE_NEWNS)
    _mount(None, b"/", _MS_REC | _MS_PRIVATE)


def bind_to_itself(path: bytes, *, read_only: bool) -> None:
    """Make a directory a mount point, with all that is mounted below it; that keeps flags of its own."""
    _mount(path, path, _MS_BIND | _MS_REC)
    if read_only:
        _mount(None, path, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)


def detach(path: bytes) -> None:
    """Take a mount, and all on top of it, out of sight; it goes when nobody uses it any more.

    Raises:
        OSError: EINVAL, nothing is mounted there.
    """
    if libc().umount2(path, _MNT_DETACH) < 0:
        raise failure(path)


def change_root_mount(path: bytes) -> None:
    """Make this mount point the root of the mount namespace, and stand there; the old root is gone.

    Raises:
        OSError: EINVAL, it is no mount point, or mounts are shared.
    """
    os.chdir(path)
    if libc().pivot_root(b".", b".") < 0:
        raise failure(path)
    detach(b".")
    os.chdir(b"/")


def mount_points() -> list[bytes]:
    """Where something is mounted, in the order in which it was.

    Raises:
        OSError: there is no /proc.
    """
    with open(MOUNTINFO, "rb") as file:
        return [mount.point for mount in parse(file.read())]


def _mount(source: bytes | None, target: bytes, flags: int) -> None:
    if libc().mount(source, target, None, flags, None) < 0:
        raise failure(target)
