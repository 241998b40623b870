"""Small plain files, in as few steps as there can be: nearly all of what a mirror ever does.

``put`` writes one file from an open source. ``express`` is the whole road of a single live change, from path to rename;
whatever is out of the ordinary makes it step back before it has touched anything, and ``Stretch`` takes the long road.
``LastRead`` lets the targets of one mirror share what was read.
A process that slept finds its caches cold, so each call left out counts several times over (measured: 60 us warm,
400 us cold for the long road).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from instep.engines.native.attributes import Attributes
from instep.engines.native.content import SMALL_BYTES
from instep.engines.native.session import Session
from instep.linux.openat import open_directory

if TYPE_CHECKING:
    from instep.model import Change  # a worker has no use for all the rest

SHARED_S = 0.02
"""What was read serves the other targets so long: those of the same turn. Where no events are seen (monitor poll) the
index takes a file for held that rested before the batch for 0.05 s: this and a tick of the clock have to be less."""

# NONBLOCK: a fifo put there meanwhile must not hang us.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_KIND_AND_SPECIAL = 0o170000 | stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX


def is_plain(info: os.stat_result) -> bool:
    """Whether this is a regular file with one name, small, without holes and without set-id bits."""
    return (
        info.st_mode & _KIND_AND_SPECIAL == stat.S_IFREG
        and info.st_nlink == 1
        and info.st_size < SMALL_BYTES
        and info.st_blocks * 512 >= info.st_size
    )


class LastRead:
    """The file that was read last, for the other targets of the same mirror: a change is read once, not once a target.

    What was read for a change serves for that very change only, and for SHARED_S. The change log never adds to one that
    it has given out: what happens to the file after it was read is another change, and is read anew.
    """

    __slots__ = ("_change", "_until_s", "above", "data", "info")

    def __init__(self) -> None:
        self._change: Change | None = None
        self._until_s = 0.0
        self.info: os.stat_result
        """The fstat of the file; this and the others are there once something was kept."""
        self.above: os.stat_result
        """The fstat of its directory."""
        self.data = b""
        """The content, whole as it was at the fstat."""

    def keep(self, change: Change, now_s: float, info: os.stat_result, above: os.stat_result, data: bytes) -> None:
        """Remember a plain file without xattrs that was read for this change, not before ``now_s``."""
        self._change, self._until_s = change, now_s + SHARED_S
        self.info, self.above, self.data = info, above, data

    def is_of(self, change: Change, now_s: float) -> bool:
        """Whether what is kept was read for this change, and just now."""
        return change is self._change and now_s < self._until_s


def put(
    attributes: Attributes, opened: int, info: os.stat_result, target: int, name: str | bytes, *, as_made: bool = False
) -> bool:
    """Make the new file ``name`` in ``target`` with content and attributes of ``opened``, which is plain.

    Args:
        attributes: What to keep.
        opened: The source, just opened.
        info: Its fstat.
        target: The directory.
        name: A name that is free there.
        as_made: A file made there by us has the right owner and mode, and inherits no ACL.

    Returns:
        False when the source changed meanwhile: then there is no such file.

    Raises:
        OSError: it cannot be read or written; then there is no such file either.
    """
    data = os.read(opened, info.st_size + 1)
    return len(data) == info.st_size and _put(attributes, opened, info, data, target, name, as_made=as_made)


def _put(
    attributes: Attributes,
    opened: int | None,
    info: os.stat_result,
    data: bytes,
    target: int,
    name: str | bytes,
    *,
    as_made: bool = False,
) -> bool:
    """``put`` of what was read; ``opened`` is None when that was known to be whole before, and has no xattrs."""
    size = info.st_size
    made = os.open(name, WRITE, info.st_mode & 0o777 if info.st_uid == attributes.uid else 0o600, dir_fd=target)
    try:
        try:
            if size and os.write(made, data) != size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # what a short write means
            if as_made and opened is not None and not attributes.has_xattrs(opened):
                os.utime(made, ns=(info.st_atime_ns, info.st_mtime_ns))
            else:
                attributes.to_file(opened, made, info, None)
        finally:
            os.close(made)
        if opened is None:
            return True
        after = os.fstat(opened)
        if after.st_ctime_ns == info.st_ctime_ns and after.st_size == size:
            return True
        os.unlink(name, dir_fd=target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=target)
        raise
    return False


def express(session: Session, change: Change, now_s: float, last: LastRead | None) -> os.stat_result | None:
    """Bring one changed small file over at once; its fstat as it was read, or None when it has to go the long road.

    None means that nothing was done, errors included: the long road meets them again and tells them apart. ``now_s``:
    the monotonic clock. ``last`` is shared by all targets of a mirror; None where there is only one.
    """
    parent, _, name = change.path.rpartition(b"/")
    read = last if last is not None and last.is_of(change, now_s) else None
    if session.filter.leaves_out(change.path, is_dir=False):
        return None
    try:
        if not parent:
            if read is not None:
                return _again(session, session.target, name, read)
            return _express(session, session.source, session.target, name, change, now_s, last)
        target = open_directory(session.target, parent)
        try:
            if read is not None:
                return _again(session, target, name, read)
            source = open_directory(session.source, parent)
            try:
                return _express(session, source, target, name, change, now_s, last)
            finally:
                os.close(source)
        finally:
            os.close(target)
    except OSError:
        return None


def _express(
    session: Session, source: int, target: int, name: bytes, change: Change, now_s: float, last: LastRead | None
) -> os.stat_result | None:
    if not is_plain(os.stat(name, dir_fd=source, follow_symlinks=False)):
        return None
    opened = os.open(name, READ, dir_fd=source)
    try:
        info = os.fstat(opened)
        if not is_plain(info):
            return None
        data = os.read(opened, info.st_size + 1)
        if not _replace(session, opened, info, data, target, name):
            return None
        above = os.fstat(source)
        if last is not None and not session.attributes.has_xattrs(opened):
            last.keep(change, now_s, info, above, data)
    finally:
        os.close(opened)
    os.utime(target, ns=(above.st_atime_ns, above.st_mtime_ns))
    return info


def _again(session: Session, target: int, name: bytes, read: LastRead) -> os.stat_result | None:
    """``_express`` of what another target of the mirror has just been given."""
    info, above = read.info, read.above
    if not _replace(session, None, info, read.data, target, name):
        return None
    os.utime(target, ns=(above.st_atime_ns, above.st_mtime_ns))
    return info


def _replace(session: Session, opened: int | None, info: os.stat_result, data: bytes, target: int, name: bytes) -> bool:
    """Put what was read in place of what stands there; False when that is not for here, or it changed meanwhile."""
    if len(data) != info.st_size:
        return False
    try:
        theirs = os.stat(name, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        pass
    else:
        if theirs.st_mode & 0o170000 != stat.S_IFREG or (
            theirs.st_mtime_ns == info.st_mtime_ns and theirs.st_size == info.st_size
        ):
            return False  # Most likely brought over already: comparing is cheaper, and keeps the inode.
    temporary = session.temporary()
    if not _put(session.attributes, opened, info, data, target, temporary):
        return False
    try:
        os.rename(temporary, name, src_dir_fd=target, dst_dir_fd=target)
    except OSError:
        os.unlink(temporary, dir_fd=target)
        return False
    return True
