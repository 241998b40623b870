"""The mount table as this process sees it.

Facts (proc_pid_mountinfo(5), measured on 6.18): a line holds mount id, parent id, major:minor, the root within the file
system, the mount point, options, optional fields up to a lone ``-``, then type, source, super options. Blank, tab,
newline and backslash stand as octal escapes. Hidden mounts (one mounted over another, or over a parent) are listed too:
only the mount id of an opened descriptor (``mnt_id`` in its fdinfo) tells which one is seen. Mount ids are used again
at once.
A change makes the open file ready for POLLPRI once per descriptor, and asking clears that: behind a nested epoll,
whoever looks second sees nothing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MOUNTINFO = "/proc/self/mountinfo"

_ESCAPE = re.compile(rb"\\([0-7]{3})")

REMOTE_TYPES = frozenset(
    {
        "9p", "acfs", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs",
        "nfs", "nfs4", "ocfs2", "orangefs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs",
    }
)  # fmt: skip
"""File systems that others can change behind this kernel's back, so that it has nothing to report."""


class Mount(NamedTuple):
    """One line of the mount table."""

    mount_id: int
    device: int
    """The superblock's number as the kernel has it inside, ``major << 20 | minor``."""
    point: bytes
    type: str

    @property
    def is_remote(self) -> bool:
        """Whether changes can come from where this kernel does not see them."""
        # fuseblk (ntfs-3g, exfat) is a local disk behind a local server.
        return self.type in REMOTE_TYPES or self.type.startswith("fuse.")


def parse(table: bytes) -> list[Mount]:
    """The mounts in a mountinfo text, in its order: a mount comes after the one it stands on."""
    mounts = []
    for line in table.split(b"\n"):
        left, dash, right = line.partition(b" - ")
        if not dash:
            continue
        words = left.split(b" ")
        major, _, minor = words[2].partition(b":")
        kind = right.partition(b" ")[0].decode("ascii", "replace")
        mounts.append(Mount(int(words[0]), int(major) << 20 | int(minor), _plain(words[4]), kind))
    return mounts


def _plain(escaped: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes((int(found[1], 8) & 0xFF,)), escaped) if b"\\" in escaped else escaped


def read_mounts() -> list[Mount]:
    """The mount table now; empty where there is none (other systems, no /proc)."""
    try:
        with open(MOUNTINFO, "rb") as file:
            return parse(file.read())
    except OSError:
        return []


def mount_id_of(fd: int) -> int:
    """The id of the mount through which ``fd`` was opened; -1 where that cannot be told."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
            for line in file:
                if line.startswith(b"mnt_id:"):
                    return int(line[7:])
    except OSError:
        pass
    return -1


def mount_of(fd: int) -> Mount | None:
    """The mount through which ``fd`` was opened; None where that cannot be told."""
    mount_id = mount_id_of(fd)
    return next((mount for mount in read_mounts() if mount.mount_id == mount_id), None)
