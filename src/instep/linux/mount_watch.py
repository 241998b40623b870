"""Learning of mounts that come and go below a root, which inotify is silent about.

Facts: see ``instep.linux.mounts``. Asking a descriptor whether the table has changed clears the answer, for that open
file. So one is for waiting, where a nested epoll may ask at any time, and another is asked by us alone.
"""

from __future__ import annotations

import os
import select
from collections.abc import Set as AbstractSet

from instep.linux.mounts import MOUNTINFO, read_mounts
from instep.paths import RelPath


class MountWatch:
    """The mount points below a directory that is held open."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._waiting = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        self._asked = os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._asked, select.POLLPRI)
        self._poll.poll(0)
        self._known = self._below()

    def fileno(self) -> int:
        """To wait for, with EPOLLPRI."""
        return self._waiting

    def changed(self) -> set[RelPath]:
        """The mount points, relative to the root, where something was mounted or unmounted since the last call."""
        if not self._poll.poll(0):
            return set()
        before, self._known = self._known, self._below()
        return {point for _, point in before ^ self._known}

    @property
    def mounts(self) -> AbstractSet[tuple[int, RelPath]]:
        """Each one's id and its mount point, relative to the root, as ``changed`` or ``refresh`` last found them."""
        return self._known

    def refresh(self) -> None:
        """Find the mount points anew: a directory above one may have been renamed, which changes no mount."""
        self._known = self._below()

    def close(self) -> None:
        """Close both descriptors."""
        os.close(self._waiting)
        os.close(self._asked)

    def _below(self) -> set[tuple[int, RelPath]]:
        # Asked anew each time: a directory above the root may have been renamed.
        root = os.readlink(b"/proc/self/fd/%d" % self._root).rstrip(b"/") + b"/"
        return {
            (mount.mount_id, RelPath(mount.point[len(root) :]))
            for mount in read_mounts()
            if mount.point.startswith(root) and len(mount.point) > len(root)
        }
