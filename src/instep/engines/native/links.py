"""Making names of the target one file that are one in the source."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from instep.engines.hardlinks import Inode, Links, lstat_named, was_touched
from instep.engines.native.entry import failed, put_in_place
from instep.engines.native.session import Session
from instep.engines.native.stretch import Stretch
from instep.engines.native.tally import Tally
from instep.paths import Scope


def bring_linked(session: Session, links: Links, inode: Inode, *, content: bool) -> Tally:
    """Make all known names of one inode one file at the target too, with the right content.

    Args:
        session: Both roots.
        links: What is known of its names.
        inode: Device and inode in the source.
        content: Whether the content may have been touched.
    """
    stretch = Stretch(session)
    try:
        names = links.names(inode)
        if not names:
            return stretch.finish()
        before = lstat_named(session.source, names[0], inode)
        leader, others = _lead(stretch, names, content=content)
        if leader is None:
            return stretch.finish()
        leading = _look(stretch, leader)
        if leading is None and not session.settings.dry_run:
            if not stretch.tally.levels:  # It went just now; else its directory comes whole, and its name with it.
                stretch.tally.racy += [leader, *others]
            return stretch.finish()
        for path in others:
            _link(session, stretch, leader, path, leading)
            if lstat_named(session.source, path, inode) is None:
                # Gone since it was looked at; whoever works on that report may have been here before us.
                stretch.tally.racy.append(path)
        after = lstat_named(session.source, leader, inode)
        if after is None:
            # So has the name that they were linked to, perhaps at the target before all of them were.
            stretch.tally.racy += others
        elif before is None or was_touched(before, after):
            # Whoever worked on a report about its last name may have been faster, with newer content.
            stretch.tally.racy.append(leader)
        return stretch.finish()
    finally:
        stretch.directories.close()


def _lead(stretch: Stretch, names: list[bytes], *, content: bool) -> tuple[bytes | None, list[bytes]]:
    """Bring one of these names over, to which the others can be linked; it (None: none can be had), and the others."""
    tally = stretch.tally
    # First those that the target already has, so that as little as possible is written.
    todo = sorted(names, key=lambda path: not _is_file(_look(stretch, path)))
    while todo and not tally.full:  # Without room for one there is none for any.
        leader = todo.pop(0)
        failures = len(tally.failures)
        stretch.bring(leader, Scope.ENTRY, content=content, leave=False)
        if len(tally.failures) == failures:
            return leader, todo
    return None, []


def _look(stretch: Stretch, path: bytes) -> os.stat_result | None:
    parent, _, name = path.rpartition(b"/")
    try:
        return os.stat(name, dir_fd=stretch.directories.target(parent), follow_symlinks=False)
    except OSError:
        return None


def _is_file(info: os.stat_result | None) -> bool:
    """Whether there is something that others can be linked to."""
    return info is not None and not stat.S_ISDIR(info.st_mode)


def _link(session: Session, stretch: Stretch, leader: bytes, path: bytes, leading: os.stat_result | None) -> None:
    there = _look(stretch, path)
    if there is not None and leading is not None and (there.st_dev, there.st_ino) == (leading.st_dev, leading.st_ino):
        return
    tally = stretch.tally
    if session.settings.dry_run:
        tally.planned.append(f"link {os.fsdecode(path)} to {os.fsdecode(leader)}")
        return
    parent, _, name = path.rpartition(b"/")
    leader_parent, _, leader_name = leader.rpartition(b"/")
    temporary = session.temporary()
    try:
        target = stretch.directories.target(parent)
        stretch.open_up(parent, target)
        stretch.touch(parent)  # Also if it fails below.
        os.link(
            leader_name,
            temporary,
            src_dir_fd=stretch.directories.target(leader_parent),
            dst_dir_fd=target,
            follow_symlinks=False,
        )
        try:
            put_in_place(session, target, path, temporary, name, tally)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=target)
            raise
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            # The directory is not at the target yet; when it comes, so does this name.
            stretch.bring(path, Scope.ENTRY, content=True, leave=False)
            return
        if error.errno is not None and _cannot_link(error.errno):
            stretch.bring(path, Scope.ENTRY, content=True, leave=False)
            return
        failed(tally, path, error, "cannot link")
        return
    tally.entries += 1


def _cannot_link(number: int) -> bool:
    """Different file systems at the target, a full inode, or a file system without links: two files then."""
    return number in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP)
