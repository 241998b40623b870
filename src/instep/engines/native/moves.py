"""A rename in the source done as a rename at the target."""

from __future__ import annotations

import os
import stat

from instep.engines.native.session import Session
from instep.engines.native.stretch import Stretch
from instep.paths import RelPath


def move(session: Session, stretch: Stretch, old: RelPath, new: RelPath) -> bool:
    """Rename ``old`` to ``new`` at the target; False when both have to be brought in step the long way.

    The caller knows that the target held under ``old`` what the source held there before the rename. What is checked
    here is that the source still holds such an object under ``new``, and that the target's names are as expected.
    """
    if session.settings.dry_run or not session.settings.delete:
        return False  # Without deletions the old name has to stay.
    old_parent, _, old_name = old.rpartition(b"/")
    new_parent, _, new_name = new.rpartition(b"/")
    directories = stretch.directories
    try:
        source = directories.source(new_parent)
        old_target, new_target = directories.target(old_parent), directories.target(new_parent)
        ours = os.stat(new_name, dir_fd=source, follow_symlinks=False)
        theirs = os.stat(old_name, dir_fd=old_target, follow_symlinks=False)
    except OSError:
        return False
    is_dir = stat.S_ISDIR(ours.st_mode)
    if stat.S_IFMT(ours.st_mode) != stat.S_IFMT(theirs.st_mode) or theirs.st_dev != os.fstat(new_target).st_dev:
        return False
    if not session.filters_nothing:
        if session.filter.excludes(old, is_dir) or session.filter.excludes(new, is_dir):
            return False
        if is_dir and not session.filter.by_name_only:
            return False  # What is excluded below may differ under the new name.
    if is_dir:
        if _look(new_target, new_name) is not None:
            return False
    elif not _looks_moved(ours, theirs):
        return False
    else:
        present = _look(new_target, new_name)
        if present is not None and stat.S_ISDIR(present.st_mode):
            return False
    stretch.open_up(old_parent, old_target)
    stretch.open_up(new_parent, new_target)
    try:
        os.rename(old_name, new_name, src_dir_fd=old_target, dst_dir_fd=new_target)
    except OSError:
        return False  # Then the long way, which says what is in its way.
    directories.forget_target(old)
    stretch.tally.entries += 1
    stretch.touch(old_parent)
    stretch.touch(new_parent)
    return True


def _looks_moved(ours: os.stat_result, theirs: os.stat_result) -> bool:
    """Whether the target's file may be the one that was moved; linked ones have more than one name to mend."""
    if not stat.S_ISREG(ours.st_mode) or ours.st_nlink > 1 or theirs.st_nlink > 1:
        return False
    return ours.st_size == theirs.st_size and ours.st_mtime_ns == theirs.st_mtime_ns


def _look(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
