"""Removing at the target, by directory descriptors: never through a link, never across a mount point.

Facts: a bind mount has the device number of what it shows, so only openat2(2) with RESOLVE_NO_XDEV (EXDEV) tells every
mount point; rmdir(2) and unlink(2) refuse a mount point (EBUSY).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct

from instep.engines.native.attributes import change_mode
from instep.engines.native.session import Session, join, reason_of
from instep.engines.native.tally import Tally
from instep.linux.fanotify import heed_in, ignore_in
from instep.linux.libc import libc
from instep.linux.openat import DIRECTORY, NR_OPENAT2, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS
from instep.paths import is_temporary

RESOLVE_NO_XDEV = 0x01
_UNMOUNTED_HOW = struct.pack("=QQQ", DIRECTORY, 0, RESOLVE_NO_XDEV | RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)

HUSH_FILES = 4
"""From so many removed files of a directory on it is worth while to keep the others from our own monitor (measured)."""

HARD = frozenset({errno.EPERM, errno.ENAMETOOLONG, errno.EINVAL, errno.EROFS, errno.EBUSY, errno.EXDEV})


def remove(session: Session, target: int, path: bytes, name: str | bytes, tally: Tally, *, is_dir: bool) -> bool:
    """Remove one name from the open directory ``target``, with everything below it; whether it is gone.

    What the filter excludes stays (unless ``delete_excluded``), and so do the directories that hold it.
    """
    if session.settings.dry_run:
        tally.planned.append("delete " + os.fsdecode(path) + ("/" if is_dir else ""))
        tally.deleted += 1
        return True
    try:
        if not is_dir:
            os.unlink(name, dir_fd=target)
            tally.deleted += 1
            return True
        return _remove_directory(session, target, path, name, tally)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return remove(session, target, path, name, tally, is_dir=True)
    except NotADirectoryError:
        return remove(session, target, path, name, tally, is_dir=False)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link took the place of the directory: O_NOFOLLOW refused it
            return remove(session, target, path, name, tally, is_dir=False)
        tally.failures.append((path, _reason(error), error.errno in HARD))
        return False


def _reason(error: OSError) -> str:
    if error.errno in (errno.EXDEV, errno.EBUSY):
        return "cannot delete at the target: a file system is mounted there"
    return reason_of(error, "cannot delete at the target")


def _remove_directory(session: Session, target: int, path: bytes, name: str | bytes, tally: Tally) -> bool:
    # Explicit stack: paths can be two thousand levels deep. A frame is open until all below it is gone.
    kept = failed = False
    frames: list[tuple[int, bytes, str | bytes, list[str]]] = []
    try:
        frames.append(_enter(session, target, path, name, tally))
        while frames:
            fd, here, own_name, subdirectories = frames[-1]
            if subdirectories:
                child = subdirectories.pop()
                child_path = join(here, child)
                if _stays(session, here, os.fsencode(child), is_dir=True):
                    kept = True
                    continue
                try:
                    frame = _enter(session, fd, child_path, child, tally)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    failed = True
                    tally.failures.append((child_path, _reason(error), error.errno in HARD))
                    continue
                frames.append(frame)
                continue
            frames.pop()
            gone = False
            try:
                os.rmdir(own_name, dir_fd=frames[-1][0] if frames else target)
                tally.deleted += 1
                gone = True
            except FileNotFoundError:
                pass
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or session.filters_nothing:
                    raise  # Someone else writes there: try again later.
                kept = True
            finally:
                _leave(session, fd, gone=gone)
    finally:
        for fd, _, _, _ in frames:
            _leave(session, fd, gone=False)
    return not (kept or failed)


def _stays(session: Session, path: bytes, name: bytes, *, is_dir: bool) -> bool:
    """Whether a name is the target's own; what was left under a temporary name goes with its directory."""
    if session.filters_nothing or session.settings.delete_excluded or is_temporary(name):
        return False
    return session.excludes(path, name, is_dir=is_dir)


def _leave(session: Session, directory: int, *, gone: bool) -> None:
    """Close a directory; one that stays is heard of again."""
    if session.group >= 0 and not gone:
        heed_in(session.group, directory)
    os.close(directory)


def _enter(
    session: Session, parent: int, path: bytes, name: str | bytes, tally: Tally
) -> tuple[int, bytes, str | bytes, list[str]]:
    """Open a directory, unlink what is no directory in it, and return its frame."""
    try:
        fd = _open(parent, name)
    except PermissionError:
        # Perhaps ours, but not readable: an ordinary user has to open it up first.
        change_mode(parent, name, 0o700, stat.S_IFDIR)
        fd = _open(parent, name)
    try:
        if not session.attributes.is_root and os.fstat(fd).st_mode & 0o300 != 0o300:
            os.fchmod(fd, 0o700)
        protected = not session.filters_nothing
        subdirectories: list[str] = []
        hush_at = tally.deleted + HUSH_FILES if session.group >= 0 else -1
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    subdirectories.append(entry.name)
                elif not (protected and _stays(session, path, os.fsencode(entry.name), is_dir=False)):
                    os.unlink(entry.name, dir_fd=fd)
                    tally.deleted += 1
                    if tally.deleted == hush_at:
                        ignore_in(session.group, fd)
    except BaseException:
        _leave(session, fd, gone=False)
        raise
    return fd, path, name, subdirectories


def _open(parent: int, name: str | bytes) -> int:
    """Open a directory unless something is mounted on it (EXDEV)."""
    fd: int = libc().syscall(NR_OPENAT2, parent, os.fsencode(name), _UNMOUNTED_HOW, len(_UNMOUNTED_HOW))
    if fd >= 0:
        return fd
    number = ctypes.get_errno()
    if number not in (errno.ENOSYS, errno.EPERM, errno.EINTR, errno.EAGAIN):
        raise OSError(number, os.strerror(number), name)
    fd = os.open(name, DIRECTORY, dir_fd=parent)
    if os.fstat(fd).st_dev != os.fstat(parent).st_dev:
        os.close(fd)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return fd
