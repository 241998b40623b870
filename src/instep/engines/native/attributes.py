"""Owner, mode, xattrs, ACLs and times, from one open object to another.

Facts, measured: chown clears set-id bits and security.capability, so it goes first and the capability goes last; a
file made in a directory with a default ACL inherits an access ACL, so the target's own list is looked at too; a
directory's time changes with every child, so times go last of all. flistxattr costs 0.3 us: always look.
"""

from __future__ import annotations

import errno
import os
import stat

from instep.linux.libc import failure, libc
from instep.rules import Preserve

AT_EMPTY_PATH = 0x1000

_CAPABILITY = "security.capability"
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM, errno.EACCES})
_MAY_NOT = frozenset({errno.EPERM, errno.EINVAL})


class Attributes:
    """Knows what to keep, and what this user may."""

    def __init__(self, preserve: Preserve, *, umask: int) -> None:
        self.preserve = preserve
        self.uid = os.geteuid()
        self.is_root = self.uid == 0
        self._umask = umask
        self.looks_at_xattrs = preserve.xattrs or preserve.acls

    def to_file(self, source: int | None, target: int, info: os.stat_result, replaced: os.stat_result | None) -> None:
        """Give the freshly written ``target`` all attributes of ``source``; ``replaced`` is what it will replace.

        ``source`` is None for one that is known to have no xattrs.
        """
        preserve = self.preserve
        made = os.fstat(target)
        owned = False
        if preserve.owner and (made.st_uid != info.st_uid or made.st_gid != info.st_gid):
            owned = self._owner(target, info)
        if preserve.mode:
            if owned or (made.st_mode ^ info.st_mode) & 0o7777:
                os.fchmod(target, info.st_mode & 0o7777)
        elif replaced is not None:
            os.fchmod(target, replaced.st_mode & 0o7777)
        else:
            os.fchmod(target, info.st_mode & 0o777 & ~self._umask)
        if self.looks_at_xattrs:
            try:
                plain = (source is None or not os.listxattr(source)) and not os.listxattr(target)
            except OSError:
                plain = False
            if not plain:  # Nearly all are, so without another call.
                self._xattrs(source, target)
        if preserve.times:
            os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))

    def mode_to_make(self, info: os.stat_result) -> int:
        """The mode to create a file with: already the right one where nobody could use it too early."""
        return info.st_mode & 0o777 if info.st_uid == self.uid and self.preserve.mode else 0o600

    def to_existing(self, source: int, target: int, info: os.stat_result, target_info: os.stat_result) -> bool:
        """Mend what differs on a file or directory that stays; whether anything did."""
        preserve = self.preserve
        changed = False
        if preserve.owner and (info.st_uid, info.st_gid) != (target_info.st_uid, target_info.st_gid):
            changed = self._owner(target, info)
        if preserve.mode and (changed or (info.st_mode ^ target_info.st_mode) & 0o7777):
            os.fchmod(target, info.st_mode & 0o7777)
            changed = True
        if self.looks_at_xattrs and self._xattrs(source, target):
            changed = True
        if preserve.times and (changed or info.st_mtime_ns != target_info.st_mtime_ns):
            os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
            changed = True
        return changed

    def to_name(
        self, source: int, source_name: str | bytes, target: int, name: str | bytes, info: os.stat_result
    ) -> None:
        """Everything of a link, device, fifo or socket: what cannot be opened.

        Raises:
            OSError: also ELOOP when something else has taken the name, or it has a second name: whoever may write to
                the target could have put a hard link to anything there.
        """
        preserve = self.preserve
        is_link = stat.S_ISLNK(info.st_mode)
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=target)
        try:
            present = os.fstat(fd)
            if stat.S_IFMT(present.st_mode) != stat.S_IFMT(info.st_mode) or present.st_nlink > 1:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if preserve.owner:
                uid = info.st_uid if self.is_root else -1
                if libc().fchownat(fd, b"", uid, info.st_gid, AT_EMPTY_PATH) != 0:
                    error = failure()
                    if self.is_root or error.errno not in _MAY_NOT:
                        raise error
            itself = f"/proc/self/fd/{fd}"
            if preserve.mode and not is_link:
                os.chmod(itself, info.st_mode & 0o7777)
            if self.looks_at_xattrs:
                ours = f"/proc/self/fd/{source}/{os.fsdecode(source_name)}"
                # Through the descriptor all but a link is reached; a link has no ACL, and what it may have is root's.
                theirs = f"/proc/self/fd/{target}/{os.fsdecode(name)}" if is_link else itself
                self._xattrs(ours, theirs, follow=not is_link)
        finally:
            os.close(fd)
        if preserve.times:
            os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def has_xattrs(self, fd: int) -> bool:
        """Whether there is any xattr that would be kept."""
        return self.looks_at_xattrs and bool(self._listed(fd))

    def xattrs_differ(self, source_path: str, target_path: str) -> bool:
        """Whether two names (through /proc/self/fd) carry other xattrs; for files that look equal otherwise.

        Raises:
            OSError: one of them vanished, or lost an xattr, meanwhile.
        """
        try:
            if not os.listxattr(source_path, follow_symlinks=False) and not os.listxattr(
                target_path, follow_symlinks=False
            ):
                return False  # Nearly always, so without another call.
        except OSError as error:
            if error.errno not in _NO_XATTRS:
                raise
        ours, theirs = self._listed(source_path), self._listed(target_path)
        if ours != theirs:
            return True
        return any(
            os.getxattr(source_path, name, follow_symlinks=False)
            != os.getxattr(target_path, name, follow_symlinks=False)
            for name in ours
        )

    def xattrs_of(self, path: str) -> dict[str, bytes]:
        """The xattrs and ACLs of a name (through /proc/self/fd) that would be kept, with their values."""
        return {name: os.getxattr(path, name, follow_symlinks=False) for name in self._listed(path)}

    def _owner(self, target: int, info: os.stat_result) -> bool:
        if self.is_root:
            os.fchown(target, info.st_uid, info.st_gid)
            return True
        try:
            os.fchown(target, -1, info.st_gid)
        except OSError as error:
            if error.errno not in _MAY_NOT:
                raise
            return False  # Not a member of that group; as rsync, an ordinary user keeps what it may.
        return True

    def _xattrs(self, source: int | str | None, target: int | str, *, follow: bool = True) -> bool:
        """Make the xattrs of ``target`` those of ``source``; ``follow``: a path ``target`` is a link in /proc."""
        theirs = self._listed(target, follow=follow)
        ours = [] if source is None else self._listed(source)
        if not ours and not theirs:
            return False
        changed = False
        for name in theirs:
            if name not in ours:
                changed |= self._drop(target, name, follow=follow)
        ordered = sorted(ours, key=_CAPABILITY.__eq__) if _CAPABILITY in ours else ours
        for name in ordered:
            assert source is not None
            value = os.getxattr(source, name, follow_symlinks=isinstance(source, int))
            if name not in theirs or os.getxattr(target, name, follow_symlinks=follow) != value:
                changed |= self._put(target, name, value, follow=follow)
        return changed

    def _listed(self, where: int | str, *, follow: bool = False) -> list[str]:
        try:
            names = os.listxattr(where, follow_symlinks=follow or isinstance(where, int))
        except OSError as error:
            if error.errno in _NO_XATTRS:
                return []
            raise
        return [name for name in names if self._wanted(name)] if names else names

    def _wanted(self, name: str) -> bool:
        if name in _ACLS:
            return self.preserve.acls
        if not self.preserve.xattrs or name.startswith(("system.", "trusted.SGI_ACL", "trusted.overlay.")):
            return False
        return self.is_root or name.startswith("user.")

    def _put(self, target: int | str, name: str, value: bytes, *, follow: bool) -> bool:
        try:
            os.setxattr(target, name, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno in _NO_XATTRS and (error.errno != errno.EPERM or not self.is_root):
                return False  # The target's file system cannot hold it, or this user may not: as far as allowed.
            raise
        return True

    def _drop(self, target: int | str, name: str, *, follow: bool) -> bool:
        try:
            os.removexattr(target, name, follow_symlinks=follow)
        except OSError as error:
            if error.errno == errno.ENODATA or error.errno in _NO_XATTRS:
                return False
            raise
        return True


def change_mode(parent: int, name: str | bytes, mode: int, kind: int) -> None:
    """Change the mode of one name without following a link; fchmodat(2) has no flag for that before Linux 6.6.

    Raises:
        OSError: also ELOOP when something of another kind (a link) has taken the name.
    """
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode) != kind:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        os.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        os.close(fd)
