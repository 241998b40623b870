"""Bringing one name of one open directory in step: the smallest piece of native work.

Everything goes through the two directory descriptors that the caller opened beneath the roots, and through names
without a slash: nothing that is swapped for a link on the way can lead outside. A file's bytes are written under a
temporary name and renamed into place, so a reader of the target sees the old or the new file, never half of one.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import errno
import math
import os
import stat

from instep.core.reconcile import DIRECTORY_STAYS, Step, step
from instep.engines.native import content as bytes_of
from instep.engines.native.extra import count_below
from instep.engines.native.remove import HARD, remove
from instep.engines.native.session import Session, reason_of
from instep.engines.native.small import READ, WRITE
from instep.engines.native.tally import Tally
from instep.linux.libc import libc

RENAME_EXCHANGE = 2
RACES_MAX = 3
"""So often a file that changes while it is copied is copied again at once, before it is left for later."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
RACED = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ESTALE})


class Brought(enum.IntEnum):
    """What ``bring`` did or found."""

    DONE = 0
    GONE = 1
    """The source has no such name; neither has the target now."""
    DIRECTORY = 2
    """A directory on both sides; its own attributes are left to whoever looks into it."""
    NEW_DIRECTORY = 3
    """A directory that the target did not have; made empty."""
    LEFT = 4
    """Too large, with several names, or not sure to be gone: noted in the tally for others."""
    FAILED = 5


# Python 3.11 takes 0.25 us to get a member from its class.
_KEEP, _ATTRIBUTES, _COMPARE, _WRITE, _REPLACE = Step
_DONE, _GONE, _DIRECTORY, _NEW_DIRECTORY, _LEFT, _FAILED = Brought


def bring(
    session: Session,
    source: int,
    target: int,
    path: bytes,
    name: str | bytes,
    tally: Tally,
    *,
    content: bool,
    leave: bool = True,
    stamp: bool = False,
) -> Brought:
    """Make ``name`` in ``target`` what it is in ``source`` now.

    Args:
        session: Both roots, and what was asked for.
        source: Directory descriptor on the source side.
        target: The same directory on the target side.
        path: The name's path below the root, for messages.
        name: The last component.
        tally: Takes the counts and failures.
        content: Whether the content may have been touched even though size and time agree.
        leave: Leave large files and those with several names alone, and note them.
        stamp: A copy that had to be read to be found equal gets a newer ctime, so that the next comparison need not
            read it again. For comparisons only: where the target is mirrored back, each side would report the other's
            stamps for ever.
    """
    for attempt in range(RACES_MAX):
        try:
            ours = os.stat(name, dir_fd=source, follow_symlinks=False)
        except FileNotFoundError:
            return _gone(session, target, path, name, tally)
        except OSError as error:
            return failed(tally, path, error, "cannot read the source")
        if session.filter.leaves_out(path, is_dir=stat.S_ISDIR(ours.st_mode)):
            return _gone(session, target, path, name, tally)
        try:
            theirs: os.stat_result | None = os.stat(name, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            theirs = None
        except OSError as error:
            return failed(tally, path, error, "cannot look at the target")
        try:
            return reconcile(
                session, source, target, path, name, ours, theirs, tally, content=content, leave=leave, stamp=stamp
            )
        except OSError as error:
            # What lstat saw may have been replaced before it was opened: look again, then believe the error.
            if error.errno not in RACED or attempt == RACES_MAX - 1:
                return failed(tally, path, error, "cannot bring over")
    raise AssertionError("unreachable")


def reconcile(
    session: Session,
    source: int,
    target: int,
    path: bytes,
    name: str | bytes,
    ours: os.stat_result,
    theirs: os.stat_result | None,
    tally: Tally,
    *,
    content: bool,
    leave: bool,
    stamp: bool,
) -> Brought:
    """``bring`` for a caller that has both lstat results. May raise OSError when they are out of date."""
    mode = ours.st_mode
    what = step(ours, theirs, content=content)
    tally.compared += 1
    blocked = False
    if what is _REPLACE and theirs is not None and stat.S_ISDIR(theirs.st_mode):
        blocked = not session.settings.delete
        if not blocked and _is_too_much(session, path, tally):
            return _LEFT
    if stat.S_ISREG(mode):
        if what is _KEEP and (not leave or ours.st_nlink == 1):
            return _DONE
        if leave:
            if ours.st_nlink > 1 and session.settings.preserve.hard_links:
                touched = what is not _ATTRIBUTES and what is not _KEEP
                tally.linked.append((path, ours.st_dev, ours.st_ino, ours.st_nlink, touched))
                return _LEFT
            if what is _KEEP:
                return _DONE
            if ours.st_size >= session.settings.large_bytes and what is not _ATTRIBUTES and not blocked:
                tally.large.append((path, ours.st_size))
                return _LEFT
        if blocked:  # Before all of it is copied.
            return failed(tally, path, _in_the_way(), "cannot bring over")
        return _regular(session, source, target, path, name, theirs, what, tally, stamp=stamp)
    if stat.S_ISDIR(mode):
        if what is _WRITE or what is _REPLACE:
            if session.settings.dry_run:
                tally.planned.append("make " + os.fsdecode(path) + "/")
                tally.entries += 1
                return _NEW_DIRECTORY
            if theirs is not None and not remove(session, target, path, name, tally, is_dir=False):
                return _FAILED
            os.mkdir(name, 0o700, dir_fd=target)
            tally.entries += 1
            return _NEW_DIRECTORY
        return _DIRECTORY
    if leave and ours.st_nlink > 1 and not stat.S_ISLNK(mode) and session.settings.preserve.hard_links:
        tally.linked.append((path, ours.st_dev, ours.st_ino, ours.st_nlink, True))
        return _LEFT
    if blocked:
        return failed(tally, path, _in_the_way(), "cannot bring over")
    return _special(session, source, target, path, name, ours, theirs, what, tally)


def _regular(
    session: Session,
    source: int,
    target: int,
    path: bytes,
    name: str | bytes,
    theirs: os.stat_result | None,
    what: Step,
    tally: Tally,
    *,
    stamp: bool,
) -> Brought:
    if session.settings.dry_run:
        if what is not _COMPARE or theirs is None or not _holds_same(source, target, name, theirs.st_size):
            tally.planned.append(("update " if theirs else "create ") + os.fsdecode(path))
            tally.entries += 1
        return _DONE
    opened = os.open(name, READ, dir_fd=source)
    try:
        info = os.fstat(opened)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))  # swapped since lstat: look again
        if theirs is not None and (what is _COMPARE or what is _ATTRIBUTES):
            kept = _mend(session, opened, target, name, info, theirs, what, tally, stamp=stamp)
            if kept:
                return _DONE
        if tally.full and not _fits(session, target, info.st_size):
            return _FAILED  # Said already. Tried again, all that does not fit would be written each time.
        for left in range(RACES_MAX - 1, -1, -1):
            after = write(session, opened, target, path, name, info, theirs, tally, publish_racy=not left)
            if not _changed(info, after):
                break
            info = after
            os.lseek(opened, 0, os.SEEK_SET)
        else:
            tally.racy.append(path)
    finally:
        os.close(opened)
    tally.files += 1
    tally.entries += 1
    return _DONE


def _fits(session: Session, target: int, size: int) -> bool:
    """Whether a new file of this size has a chance on a file system that was found full a moment ago."""
    room = os.fstatvfs(target)
    blocks, inodes = (room.f_bfree, room.f_ffree) if session.attributes.is_root else (room.f_bavail, room.f_favail)
    return blocks * room.f_frsize >= size and (inodes > 0 or not room.f_files)


def _holds_same(source: int, target: int, name: str | bytes, size: int) -> bool:
    opened = os.open(name, READ, dir_fd=source)
    try:
        existing = os.open(name, READ, dir_fd=target)
        try:
            return bytes_of.same(opened, existing, size)
        finally:
            os.close(existing)
    finally:
        os.close(opened)


def _mend(
    session: Session,
    opened: int,
    target: int,
    name: str | bytes,
    info: os.stat_result,
    theirs: os.stat_result,
    what: Step,
    tally: Tally,
    *,
    stamp: bool,
) -> bool:
    """Keep the target's file if its content is right, mending attributes; False when it has to be written."""
    try:
        existing = os.open(name, READ, dir_fd=target)
    except PermissionError:
        return False
    try:
        present = os.fstat(existing)
        if not stat.S_ISREG(present.st_mode) or (present.st_dev, present.st_ino) != (theirs.st_dev, theirs.st_ino):
            return False
        if what is _COMPARE and (present.st_size != info.st_size or not bytes_of.same(opened, existing, info.st_size)):
            return False
        if present.st_nlink > 1 and present.st_nlink != info.st_nlink:
            return False  # It shares its inode with a name that is none of ours: attributes must not reach that one.
        try:
            if session.attributes.to_existing(opened, existing, info, present):
                tally.entries += 1
            elif (
                stamp
                and what is _COMPARE
                and info.st_ctime_ns >= present.st_ctime_ns
                and session.settings.preserve.times
            ):
                # Proven equal: let the target's ctime say so, or the next comparison would read both again.
                os.utime(existing, ns=(info.st_atime_ns, info.st_mtime_ns))
        except PermissionError:
            return False  # Not ours: writing a new file is the way that rename allows.
    finally:
        os.close(existing)
    return True


def write(
    session: Session,
    opened: int,
    target: int,
    path: bytes,
    name: str | bytes,
    info: os.stat_result,
    theirs: os.stat_result | None,
    tally: Tally,
    *,
    publish_racy: bool,
) -> os.stat_result:
    """Put the whole content of ``opened`` in place of ``name``, atomically.

    Returns:
        fstat of the source after it was read. If it is another than ``info``, the copy may hold parts of two versions,
        and was only put in place if ``publish_racy``.
    """
    settings = session.settings
    worth_patching = min(bytes_of.CLONE_MIN_BYTES, settings.inplace_bytes)
    if theirs is not None and stat.S_ISREG(theirs.st_mode) and info.st_size >= worth_patching:
        patched = _patch(session, opened, target, name, info, theirs)
        if patched is not None:
            tally.bytes_copied += patched
            return os.fstat(opened)
    temporary = session.temporary()
    made = os.open(temporary, WRITE, session.attributes.mode_to_make(info), dir_fd=target)
    try:
        try:
            count = bytes_of.copy(opened, made, info, sparse=settings.preserve.sparse, brake=session.brake)
            session.attributes.to_file(opened, made, info, theirs)
        finally:
            os.close(made)
        tally.bytes_copied += count
        after = os.fstat(opened)
        if publish_racy or not _changed(info, after):
            put_in_place(session, target, path, temporary, name, tally)
        else:
            os.unlink(temporary, dir_fd=target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=target)
        raise
    return after


def _changed(before: os.stat_result, after: os.stat_result) -> bool:
    return (
        after.st_mtime_ns != before.st_mtime_ns
        or after.st_ctime_ns != before.st_ctime_ns
        or after.st_size != before.st_size
    )


def put_in_place(session: Session, target: int, path: bytes, temporary: bytes, name: str | bytes, tally: Tally) -> None:
    """Rename ``temporary`` to ``name``; a directory that stands there is swapped out and removed."""
    try:
        os.rename(temporary, name, src_dir_fd=target, dst_dir_fd=target)
    except IsADirectoryError:
        pass
    else:
        return
    if not session.settings.delete:
        raise _in_the_way()
    encoded = os.fsencode(name)
    if libc().renameat2(target, temporary, target, encoded, RENAME_EXCHANGE) == 0:
        if not remove(session, target, path, temporary, tally, is_dir=True):
            # What must stay in it (excluded, or a mount point) must not stay under a temporary name.
            libc().renameat2(target, temporary, target, encoded, RENAME_EXCHANGE)
            raise OSError(errno.ENOTEMPTY, "a directory stands there that cannot be removed")
        return
    if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if remove(session, target, path, name, tally, is_dir=True):
        os.rename(temporary, name, src_dir_fd=target, dst_dir_fd=target)


def _in_the_way() -> OSError:
    return OSError(errno.EISDIR, DIRECTORY_STAYS)


def _patch(
    session: Session, opened: int, target: int, name: str | bytes, info: os.stat_result, theirs: os.stat_result
) -> int | None:
    """Write only the blocks that differ, where that is atomic (a clone) or was asked for; None where it is neither."""
    if theirs.st_nlink > 1 or theirs.st_size < info.st_size // 2:
        return None
    if info.st_size < session.settings.inplace_bytes:
        try:
            return _patch_clone(session, opened, target, name, info, theirs)
        except PermissionError:
            return None
    try:
        existing = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=target)
    except PermissionError:
        return None  # Read-only for us: a new file needs no leave of the old one.
    try:
        present = os.fstat(existing)
        if not stat.S_ISREG(present.st_mode) or present.st_nlink > 1:
            return None
        count = bytes_of.patch(opened, existing, info.st_size, session.brake)
        session.attributes.to_file(opened, existing, info, theirs)
    finally:
        os.close(existing)
    return count


def _patch_clone(
    session: Session, opened: int, target: int, name: str | bytes, info: os.stat_result, theirs: os.stat_result
) -> int | None:
    if os.fstat(opened).st_dev == theirs.st_dev:
        return None  # One file system: sharing the source's extents is cheaper still.
    temporary = session.temporary()
    existing = os.open(name, READ, dir_fd=target)
    try:
        made = os.open(temporary, (WRITE & ~os.O_WRONLY) | os.O_RDWR, 0o600, dir_fd=target)
        try:
            if not bytes_of.clone(existing, made):
                os.unlink(temporary, dir_fd=target)
                return None
            count = bytes_of.patch(opened, made, info.st_size, session.brake)
            session.attributes.to_file(opened, made, info, theirs)
            os.rename(temporary, name, src_dir_fd=target, dst_dir_fd=target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=target)
            raise
        finally:
            os.close(made)
    finally:
        os.close(existing)
    return count


def _special(
    session: Session,
    source: int,
    target: int,
    path: bytes,
    name: str | bytes,
    ours: os.stat_result,
    theirs: os.stat_result | None,
    what: Step,
    tally: Tally,
) -> Brought:
    """A symbolic link, device, fifo or socket."""
    mode = ours.st_mode
    text: str | bytes = b""
    is_link = stat.S_ISLNK(mode)
    if is_link:
        text = os.readlink(os.fsencode(name), dir_fd=source)
        if what is _COMPARE:
            same = os.readlink(os.fsencode(name), dir_fd=target) == text
            what = _KEEP if same else _WRITE
            if same and theirs is not None:
                owner = (ours.st_uid, ours.st_gid) != (theirs.st_uid, theirs.st_gid) and session.attributes.is_root
                if owner or ours.st_mtime_ns != theirs.st_mtime_ns:
                    what = _ATTRIBUTES
    elif not _may_make(session, mode):
        return _DONE
    if what is _KEEP and session.attributes.looks_at_xattrs:
        ours_path, theirs_path = (f"/proc/self/fd/{fd}/{os.fsdecode(name)}" for fd in (source, target))
        if session.attributes.xattrs_differ(ours_path, theirs_path):
            what = _ATTRIBUTES
    if what is _ATTRIBUTES and theirs is not None and theirs.st_nlink > 1:
        what = _WRITE  # The other name may be anybody's.
    if what is _KEEP:
        return _DONE
    tally.entries += 1
    if session.settings.dry_run:
        tally.planned.append(("update " if theirs else "create ") + os.fsdecode(path))
        return _DONE
    if what is _ATTRIBUTES and is_link:
        session.attributes.to_name(source, name, target, name, ours)
        return _DONE
    temporary = session.temporary()
    if is_link:
        os.symlink(text, temporary, dir_fd=target)
    else:
        os.mknod(temporary, stat.S_IFMT(mode) | 0o600, ours.st_rdev, dir_fd=target)
    try:
        session.attributes.to_name(source, name, target, temporary, ours)
        put_in_place(session, target, path, temporary, name, tally)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=target)
        raise
    return _DONE


def _may_make(session: Session, mode: int) -> bool:
    """Devices need root; without it they are left out, as rsync does. Fifos and sockets anyone may make."""
    if not session.settings.preserve.devices:
        return False
    return session.attributes.is_root or not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode))


def _gone(session: Session, target: int, path: bytes, name: str | bytes, tally: Tally) -> Brought:
    if not session.settings.delete:
        return _GONE
    try:
        theirs = os.stat(name, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        return _GONE
    except OSError as error:
        return failed(tally, path, error, "cannot look at the target")
    is_dir = stat.S_ISDIR(theirs.st_mode)
    if not session.settings.delete_excluded and session.filter.leaves_out(path, is_dir=is_dir):
        return _GONE
    if session.mounted.mounts and not session.mounted.vouches(path):
        tally.unsure.append(path)
        return _LEFT
    if is_dir and _is_too_much(session, path, tally):
        return _LEFT
    remove(session, target, path, name, tally, is_dir=is_dir)
    return _GONE


def _is_too_much(session: Session, path: bytes, tally: Tally) -> bool:
    """Whether a directory of the target has more in it than may be removed here; then it is noted for others."""
    if session.removes_max == math.inf:
        return False
    count = count_below(session, [path], int(session.removes_max))
    if count <= session.removes_max:
        return False
    tally.large.append((path, count))
    return True


def failed(tally: Tally, path: bytes, error: OSError, what: str) -> Brought:
    """Note that this path could not be brought over; a full target is told apart."""
    if error.errno in _FULL:
        tally.full = tally.full or (error.strerror or "no space left")
    tally.failures.append((path, reason_of(error, what), error.errno in HARD))
    return _FAILED
