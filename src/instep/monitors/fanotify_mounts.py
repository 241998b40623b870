"""The file systems that a fanotify monitor has marked: the root's own, those mounted below it.

Facts: ``instep.linux.fanotify`` says which file systems refuse the mark, ``instep.linux.mounts`` what can be believed
of the mount table. A mark goes without an event when its file system is unmounted for the last time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable

from instep.linux import fanotify
from instep.linux.handles import file_system_id, handle_of, open_handle, path_of
from instep.linux.mounts import Mount, mount_id_of, mount_of
from instep.linux.openat import open_directory
from instep.monitors.places import GONE, Below
from instep.paths import RelPath

_PATH_ONLY = getattr(os, "O_PATH", 0) | os.O_CLOEXEC


def armed(root_fd: int) -> int:
    """A new group with a mark on the root's file system, once all that is needed to place its events has worked.

    Raises:
        OSError: ``refusal`` says what it means.
    """
    group = fanotify.init()
    try:
        mark(group, root_fd)
    except BaseException:
        os.close(group)
        raise
    return group


def mark(group: int, fd: int) -> None:
    """Mark the file system of ``fd``, trying that what it will say can be understood."""
    fanotify.mark_file_system(group, fd)
    itself = open_handle(fd, handle_of(fd))
    try:
        path_of(itself)
    finally:
        os.close(itself)


def refusal(error: OSError, fd: int) -> str:
    """What a failure of ``armed`` or ``mark`` means, for the operator."""
    mount = mount_of(fd)
    kind = mount.type if mount else "this file system"
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return "fanotify needs CAP_SYS_ADMIN and CAP_DAC_READ_SEARCH, outside any user namespace"
        case errno.ENOSYS:
            return "this kernel has no fanotify"
        case errno.EINVAL:
            return "fanotify needs Linux 5.17"
        case errno.EXDEV:
            return f"fanotify cannot watch a {kind} subvolume"
        case errno.ENODEV | errno.EOPNOTSUPP:
            return f"fanotify cannot watch {kind}"
        case errno.EMFILE:
            return "fanotify has no group left (fs.fanotify.max_user_groups)"
        case errno.ENOSPC:
            return "fanotify has no mark left (fs.fanotify.max_user_marks)"
        case errno.ENOENT:
            return "fanotify needs /proc"
        case _:
            return f"fanotify does not work here: {error.strerror}"


def is_seen(point: bytes, mount_id: int) -> bool:
    """Whether this mount is what one finds at its point: nothing has been mounted over it, or above."""
    try:
        fd = os.open(point, _PATH_ONLY)
    except OSError:
        return False
    try:
        return mount_id_of(fd) == mount_id
    finally:
        os.close(fd)


class MountsBelow:
    """Marks what is mounted below the root."""

    def __init__(
        self,
        root_fd: int,
        group: int,
        *,
        one_file_system: bool,
        ignore: Callable[[RelPath, bool], bool] | None,
    ) -> None:
        self.below: dict[RelPath, Below] = {}
        self._root_fd = root_fd
        self._group = group
        self._one_file_system = one_file_system
        self._ignore = ignore

    def renew(self, ignore: Callable[[RelPath, bool], bool] | None) -> None:
        """Other mounts are ignored: those that were, or are now, appear anew at the next ``look``."""
        before = {point for point in self.below if self._is_ignored(point)}
        self._ignore = ignore
        self.below = {
            point: below for point, below in self.below.items() if (point in before) == self._is_ignored(point)
        }

    def look(self, table: Iterable[Mount], root_path: bytes) -> set[RelPath]:
        """Mark what is new in the mount table; the points where something appeared, went or was replaced."""
        inside = root_path.rstrip(b"/") + b"/"
        marked = fanotify.marked_devices(self._group) if self.below else frozenset()
        found: dict[RelPath, Below] = {}
        for mount in table:
            if not mount.point.startswith(inside) or mount.point == inside or mount.type == "autofs":
                continue  # autofs: opening it would mount it; what it mounts has its own line.
            point = RelPath(mount.point[len(inside) :])
            known = self.below.get(point)
            if known and known[1:3] == mount[:2] and (not known.file_system or known.device in marked):
                found[point] = known
                continue
            below = self._mark(point, mount)
            if below is not None:
                found[point] = below
        before, self.below = self.below, found
        return {point for point in before.keys() | found.keys() if before.get(point) is not found.get(point)}

    def _mark(self, point: RelPath, mount: Mount) -> Below | None:
        """Watch a mount below the root; None when it is hidden by another one."""
        plain = Below(point, mount.mount_id, mount.device)
        if self._one_file_system or self._is_ignored(point):
            return plain
        if mount.is_remote:
            # Not even opened: that could wait for a server for ever.
            return plain._replace(why=f"{mount.type} does not tell what other machines change")
        try:
            fd = open_directory(self._root_fd, point)
        except OSError as error:
            if error.errno in GONE and not is_seen(mount.point, mount.mount_id):
                return None
            return plain._replace(why=f"cannot open it as a directory: {error.strerror}")
        try:
            if mount_id_of(fd) != mount.mount_id:
                return None
            mark(self._group, fd)
            return plain._replace(file_system=file_system_id(fd), seen_device=os.fstat(fd).st_dev)
        except OSError as error:
            return plain._replace(why=refusal(error, fd))
        finally:
            os.close(fd)

    def _is_ignored(self, point: RelPath) -> bool:
        if self._ignore is None:
            return False
        ends = [at for at, byte in enumerate(point) if byte == ord("/")]
        return any(self._ignore(RelPath(point[:end]), True) for end in (*ends, len(point)))
