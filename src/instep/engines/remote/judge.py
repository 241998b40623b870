"""In what one name differs between the two sides, from what a listing tells of it. Pure."""

from __future__ import annotations

import os
import stat

from instep.engines.remote import agent
from instep.engines.remote.session import Session
from instep.linux.look import as_good_as_it_gets, kind_words, time_words
from instep.model import Aspect


class Judge:
    """Compares single names; what the far user could not mend is no difference."""

    def __init__(self, session: Session, *, checksum: bool) -> None:
        self._session = session
        self._preserve = session.settings.preserve
        self._checksum = checksum

    def compare(self, ours: agent.Entry, theirs: agent.Entry) -> tuple[Aspect, str, bool]:
        """What differs, the same in words, and whether the contents have to be compared besides."""
        kind = stat.S_IFMT(ours.st_mode)
        if kind != stat.S_IFMT(theirs.st_mode):
            return Aspect.TYPE, f"{kind_words(ours.st_mode)}, at the target {kind_words(theirs.st_mode)}", False
        what = Aspect(0)
        words: list[str] = []
        here, _, here_more = ours.extra.partition(b"\0")
        there, _, there_more = theirs.extra.partition(b"\0")
        reads = False
        if kind == stat.S_IFREG:
            if ours.st_size != theirs.st_size:
                what = Aspect.SIZE
                words.append(f"{ours.st_size} bytes, at the target {theirs.st_size}")
            else:
                reads = bool(ours.st_size) and self._is_to_be_read(ours, theirs)
        elif kind == stat.S_IFLNK and here != there:
            what = Aspect.LINK_TEXT
            words.append(f"leads to {os.fsdecode(here)}, at the target to {os.fsdecode(there)}")
        elif kind in (stat.S_IFCHR, stat.S_IFBLK) and ours.st_rdev != theirs.st_rdev:
            what = Aspect.DEVICE
            words.append(f"device {_device(ours.st_rdev)}, at the target {_device(theirs.st_rdev)}")
        what |= self._attributes(ours, theirs, words)
        if here_more != there_more:
            # Only their digests are known here.
            both = self._preserve.xattrs and self._preserve.acls
            what |= Aspect.XATTRS if self._preserve.xattrs else Aspect.ACL
            words.append("other extended attributes" + (" or ACLs" if both else ""))
        return what, "; ".join(words), reads

    def is_left_out(self, mode: int) -> bool:
        """Devices, fifos and sockets that are not to be made, or not by the far user."""
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
            return False
        if not self._preserve.devices:
            return True
        return not self._session.far.is_root and (stat.S_ISCHR(mode) or stat.S_ISBLK(mode))

    def _is_to_be_read(self, ours: agent.Entry, theirs: agent.Entry) -> bool:
        # As at start: if the source's inode changed after the copy was written, size and time prove nothing.
        changed_ns = theirs.st_ctime_ns - self._session.far.ahead_ns
        return self._checksum or (ours.st_ctime_ns >= changed_ns and ours.st_mtime_ns == theirs.st_mtime_ns)

    def _attributes(self, ours: agent.Entry, theirs: agent.Entry, words: list[str]) -> Aspect:
        preserve = self._preserve
        what = Aspect(0)
        if preserve.mode and (ours.st_mode ^ theirs.st_mode) & 0o7777 and not stat.S_ISLNK(ours.st_mode):
            what |= Aspect.MODE
            words.append(f"mode {ours.st_mode & 0o7777:04o}, at the target {theirs.st_mode & 0o7777:04o}")
        if self._session.owners and (wanted := self._session.owner(ours)) != (theirs.st_uid, theirs.st_gid):
            what |= Aspect.OWNER
            by_name = "" if wanted == (ours.st_uid, ours.st_gid) else f" (by name {wanted[0]}:{wanted[1]} there)"
            words.append(f"owner {ours.st_uid}:{ours.st_gid}{by_name}, at the target {theirs.st_uid}:{theirs.st_gid}")
        if (
            preserve.times
            and ours.st_mtime_ns != theirs.st_mtime_ns
            and not as_good_as_it_gets(ours.st_mtime_ns, theirs.st_mtime_ns, theirs.st_ctime_ns)
        ):
            what |= Aspect.TIME
            words.append(f"time {time_words(ours.st_mtime_ns)}, at the target {time_words(theirs.st_mtime_ns)}")
        return what


def _device(number: int) -> str:
    return f"{os.major(number)}:{os.minor(number)}"
