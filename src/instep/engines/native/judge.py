"""In what one name differs between two open directories: looks, and changes nothing.

What counts is what a mirror keeps, as far as this user may: what it could not mend is no difference. Reading leaves no
trace where that is allowed (O_NOATIME: the owner, root).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from instep.engines.native.content import CHUNK_BYTES
from instep.engines.native.session import Session
from instep.engines.native.small import READ
from instep.linux.look import as_good_as_it_gets, difference, kind_words, time_words
from instep.model import Aspect, Difference

_NOTHING = Aspect(0)
_ACLS = frozenset({"system.posix_acl_access", "system.posix_acl_default"})


class Judge:
    """Compares single names. Blocks while it reads."""

    def __init__(self, session: Session, *, checksum: bool) -> None:
        self._session = session
        self._checksum = checksum
        self._preserve = session.settings.preserve
        self._groups = {os.getegid(), *os.getgroups()}
        self._buffers: tuple[()] | tuple[bytearray, bytearray] = ()

    def compare(
        self,
        source: int,
        target: int,
        path: bytes,
        name: str | bytes,
        ours: os.stat_result,
        theirs: os.stat_result,
    ) -> Difference | None:
        """What differs, given lstat of both sides; None when nothing does."""
        kind = stat.S_IFMT(ours.st_mode)
        if kind != stat.S_IFMT(theirs.st_mode):
            words = f"{kind_words(ours.st_mode)}, at the target {kind_words(theirs.st_mode)}"
            return difference(path, Aspect.TYPE, words, ours)
        what = _NOTHING
        words_of: list[str] = []
        try:
            if kind == stat.S_IFREG:
                if ours.st_size != theirs.st_size:
                    what = Aspect.SIZE
                    words_of.append(f"{ours.st_size} bytes, at the target {theirs.st_size}")
                elif ours.st_size and self._to_be_read(ours, theirs):
                    same, ours = self._same(source, target, name)
                    if not same:
                        what = Aspect.CONTENT
                        words_of.append("same size, other content")
            elif kind == stat.S_IFLNK:
                encoded = os.fsencode(name)
                here, there = os.readlink(encoded, dir_fd=source), os.readlink(encoded, dir_fd=target)
                if here != there:
                    what = Aspect.LINK_TEXT
                    words_of.append(f"leads to {os.fsdecode(here)}, at the target to {os.fsdecode(there)}")
            elif kind in (stat.S_IFCHR, stat.S_IFBLK) and ours.st_rdev != theirs.st_rdev:
                what = Aspect.DEVICE
                words_of.append(f"device {_device(ours)}, at the target {_device(theirs)}")
            what |= self._attributes(source, target, name, ours, theirs, words_of)
        except OSError as error:
            what |= Aspect.UNREADABLE
            words_of.append(f"cannot be compared: {error.strerror}")
        return difference(path, what, "; ".join(words_of), ours) if what else None

    def _to_be_read(self, ours: os.stat_result, theirs: os.stat_result) -> bool:
        # As at start: if the source's inode changed after the copy was written, size and time prove nothing.
        return self._checksum or (ours.st_ctime_ns >= theirs.st_ctime_ns and ours.st_mtime_ns == theirs.st_mtime_ns)

    def _attributes(
        self,
        source: int,
        target: int,
        name: str | bytes,
        ours: os.stat_result,
        theirs: os.stat_result,
        words_of: list[str],
    ) -> Aspect:
        preserve = self._preserve
        what = _NOTHING
        if preserve.mode and (ours.st_mode ^ theirs.st_mode) & 0o7777 and not stat.S_ISLNK(ours.st_mode):
            what |= Aspect.MODE
            words_of.append(f"mode {ours.st_mode & 0o7777:04o}, at the target {theirs.st_mode & 0o7777:04o}")
        if preserve.owner and not self._same_owner(ours, theirs):
            what |= Aspect.OWNER
            words_of.append(f"owner {ours.st_uid}:{ours.st_gid}, at the target {theirs.st_uid}:{theirs.st_gid}")
        if (
            preserve.times
            and ours.st_mtime_ns != theirs.st_mtime_ns
            and not as_good_as_it_gets(ours.st_mtime_ns, theirs.st_mtime_ns, theirs.st_ctime_ns)
        ):
            what |= Aspect.TIME
            words_of.append(f"time {time_words(ours.st_mtime_ns)}, at the target {time_words(theirs.st_mtime_ns)}")
        attributes = self._session.attributes
        if attributes.looks_at_xattrs:
            here, there = (f"/proc/self/fd/{fd}/{os.fsdecode(name)}" for fd in (source, target))
            if attributes.xattrs_differ(here, there):
                what |= self._xattrs(here, there, words_of)
        return what

    def _same_owner(self, ours: os.stat_result, theirs: os.stat_result) -> bool:
        if self._session.attributes.is_root:
            return (ours.st_uid, ours.st_gid) == (theirs.st_uid, theirs.st_gid)
        # An ordinary user can give files to groups of its own, and to nobody else.
        return ours.st_gid == theirs.st_gid or ours.st_gid not in self._groups

    def _xattrs(self, here: str, there: str, words_of: list[str]) -> Aspect:
        ours, theirs = (self._session.attributes.xattrs_of(path) for path in (here, there))
        what = _NOTHING
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                what |= Aspect.ACL if name in _ACLS else Aspect.XATTRS
                alone = " (not at the target)" if name in ours else " (only at the target)"
                words_of.append(name + ("" if name in ours and name in theirs else alone))
        return what

    def _same(self, source: int, target: int, name: str | bytes) -> tuple[bool, os.stat_result]:
        """Whether two files hold the same bytes, and the source's state after it was read."""
        here = _open(source, name)
        try:
            there = _open(target, name)
            try:
                same = self._same_bytes(here, there, os.fstat(here).st_size)
            finally:
                os.close(there)
            return same, os.fstat(here)
        finally:
            os.close(here)

    def _same_bytes(self, here: int, there: int, size: int) -> bool:
        brake = self._session.brake
        if size < CHUNK_BYTES:
            if brake is not None:
                brake.passed(size)
            return os.pread(here, size + 1, 0) == os.pread(there, size + 1, 0)
        if not self._buffers:  # Kept: to make them anew costs more than to read most files.
            self._buffers = (bytearray(CHUNK_BYTES), bytearray(CHUNK_BYTES))
        ours, theirs = self._buffers
        offset = 0
        while True:
            count = os.preadv(here, [ours], offset)
            if os.preadv(there, [theirs], offset) != count:
                return False
            if not count:
                return True
            if ours != theirs if count == CHUNK_BYTES else ours[:count] != theirs[:count]:
                return False
            offset += count
            if brake is not None:
                brake.passed(count)


def leave_no_trace(fd: int) -> None:
    """Let reading an open file or directory not change its access time, where that is allowed."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NOATIME | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.EPERM:
            raise


def _open(parent: int, name: str | bytes) -> int:
    try:
        fd = os.open(name, READ | os.O_NOATIME, dir_fd=parent)
    except PermissionError:
        fd = os.open(name, READ, dir_fd=parent)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))  # swapped since lstat
    return fd


def _device(info: os.stat_result) -> str:
    return f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
