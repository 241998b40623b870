"""Filling a directory that was made just now: the bulk of every first copy, so each system call counts.

What ``entry`` does step by step for one name is done here in one stretch, with what a fresh directory allows to leave
out: nothing stands at the target, so nothing is compared; the new file belongs to whoever makes it, so owner and mode
are set only where they differ. Measured on tmpfs: 13 us a file instead of 20.
"""

from __future__ import annotations

import contextlib
import os
import stat

from instep.engines.native.remove import remove
from instep.engines.native.session import Session
from instep.engines.native.small import READ, is_plain, put
from instep.engines.native.tally import Tally
from instep.linux.fanotify import heed_in, ignore_in
from instep.linux.openat import DIRECTORY, open_directory


class Filler:
    """Copies plain small files into one new directory that nobody else can see yet."""

    def __init__(self, session: Session, source: int, target: int) -> None:
        self._session = session
        self._source = source
        self._target = target
        self.info: os.stat_result
        """The file that was copied last, as it was when it was opened."""
        made = os.fstat(target)
        attributes = session.attributes
        preserve = session.settings.preserve
        self._owner = (os.geteuid(), made.st_gid if made.st_mode & stat.S_ISGID else os.getegid())
        self._keeps = preserve.mode
        self._umask = session.settings.umask
        inherits = attributes.has_xattrs(target)  # a default ACL, most likely
        # With one of them alone (rsync -rt keeps neither) there is more to think of.
        self._plain = preserve.owner == preserve.mode and preserve.times and not inherits

    def copy(self, name: str, tally: Tally) -> bool:
        """Copy one regular file; False when it is not for here (large, linked, changing …): nothing was done then.

        Raises:
            OSError: it cannot be read, or the target cannot be written.
        """
        if not self._plain or tally.full:
            return False
        opened = os.open(name, READ, dir_fd=self._source)
        try:
            info = os.fstat(opened)
            if not is_plain(info):
                return False
            as_made = info.st_uid == self._owner[0] and (
                info.st_gid == self._owner[1] if self._keeps else not info.st_mode & 0o777 & self._umask
            )
            if not put(self._session.attributes, opened, info, self._target, name, as_made=as_made):
                return False
        finally:
            os.close(opened)
        self.info = info
        tally.files += 1
        tally.entries += 1
        tally.bytes_copied += info.st_size
        return True


class Hidden:
    """A new directory filled under a temporary name, then renamed over the empty one that has its place.

    Until then nobody can open a file in it, so the files are written under their real names: one rename for all of
    them instead of one for each. Nor need our own monitor hear of them, where it listens on this file system: that
    would take half of the time again (measured, tmpfs: 1.15 instead of 2.0 s of CPU for 20,000 files).
    """

    def __init__(self, session: Session, path: bytes) -> None:
        """Make it beside ``path``, at the target. OSError as mkdir(2) and ``open_directory``."""
        self._session = session
        self._path = path
        self._parent, _, self._name = path.rpartition(b"/")
        self._above = open_directory(session.target, self._parent)
        self._temporary = session.temporary()
        try:
            os.mkdir(self._temporary, 0o700, dir_fd=self._above)
            self.fd = os.open(self._temporary, DIRECTORY, dir_fd=self._above)
        except BaseException:
            os.close(self._above)
            raise
        self._hushed = session.group >= 0 and ignore_in(session.group, self.fd)

    def show(self) -> bool:
        """Put it in its place; False when something was put there meanwhile: then it is gone again."""
        if self._hushed:
            heed_in(self._session.group, self.fd)  # Once others can see it, it may be moved to where its events count.
        try:
            os.rename(self._temporary, self._name, src_dir_fd=self._above, dst_dir_fd=self._above)
        except OSError:
            return False
        self._temporary = b""
        return True

    def close(self) -> None:
        """Let go of it; what was not shown is removed."""
        os.close(self.fd)
        if self._temporary:
            remove(self._session, self._above, self._path, self._temporary, Tally(), is_dir=True)
        if self._session.settings.preserve.times:
            # The directory above was complete, times and all; our name in it has touched it again.
            with contextlib.suppress(OSError):
                source = open_directory(self._session.source, self._parent)
                try:
                    info = os.fstat(source)
                finally:
                    os.close(source)
                os.utime(self._above, ns=(info.st_atime_ns, info.st_mtime_ns))
        os.close(self._above)
