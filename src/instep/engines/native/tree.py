"""Comparing directories level by level: the road of the first sync, of new directories, and of every doubt.

One level is one directory: its entries are brought in step, what the source no longer has is removed, its own
attributes are set last (a directory's time changes with every entry). Its subdirectories are levels of their own, so
the work can be cut anywhere and handed to whoever is free.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
import time
from collections.abc import Iterable

from instep.core.reconcile import Step, step
from instep.engines.native.entry import RACED, Brought, bring, failed, reconcile
from instep.engines.native.extra import EXAMPLES
from instep.engines.native.fresh import Filler, Hidden
from instep.engines.native.remove import remove
from instep.engines.native.session import Session, join, reason_of
from instep.engines.native.tally import Tally
from instep.linux.openat import open_directory
from instep.paths import TEMPORARY_PREFIX, is_temporary
from instep.records import encoded, named

_TEMPORARY = os.fsdecode(TEMPORARY_PREFIX)
_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_KEEP = Step.KEEP  # Python 3.11 takes 0.25 us to get a member from its class.
_DONE, _DIRECTORY, _NEW_DIRECTORY = Brought.DONE, Brought.DIRECTORY, Brought.NEW_DIRECTORY
LOOKS = 3
"""At a directory that another worker replaces; it does so once."""


class Page:
    """What one directory of the source held when it was brought over.

    A name counts only as it was before the reading began: what changes later has a later time, and is no more the same.
    """

    __slots__ = ("began_ns", "complete", "pieces")

    def __init__(self) -> None:
        self.began_ns = time.time_ns()
        self.complete = True
        """Nothing in it is in doubt."""
        self.pieces: list[bytes] = []

    def note(self, name: str, info: os.stat_result) -> None:
        """This was read, and the target has it."""
        if info.st_ctime_ns < self.began_ns:
            self.pieces.append(named(encoded(name), info))
        else:
            self.complete = False


def walk(
    session: Session, levels: list[tuple[bytes, bool, bool]], tally: Tally, *, entries_max: int, deep: bool = True
) -> None:
    """Work off ``levels`` (path, content, fresh), depth first; what is over ``entries_max`` is left in the tally.

    Args:
        session: Both roots.
        levels: Directories; consumed. ``content``: compare content even where size and time agree. ``fresh``: the
            target's directory was made just now, so there is nothing to compare with.
        tally: Takes counts, failures and leftovers.
        entries_max: Stop between two directories once so many entries were looked at.
        deep: Also walk the subdirectories found; else only those that the target did not have.
    """
    limit = tally.compared + entries_max
    while levels:
        if tally.compared >= limit:
            tally.levels += levels
            levels.clear()
            return
        path, content, fresh = levels.pop()
        found = level(session, path, tally, content=content, fresh=fresh)
        levels += found if deep else [each for each in found if each[2]]


def count_entries(session: Session, path: bytes, most: int) -> int:
    """How many entries the source directory has, counted up to ``most``; 0 when it cannot be read."""
    try:
        fd = open_directory(session.source, path)
    except OSError:
        return 0
    try:
        with os.scandir(fd) as entries:
            return sum(1 for _ in itertools.islice(entries, most))
    except OSError:
        return 0
    finally:
        os.close(fd)


def level(session: Session, path: bytes, tally: Tally, *, content: bool, fresh: bool) -> list[tuple[bytes, bool, bool]]:
    """Bring one directory in step; returns its subdirectories as levels."""
    tally.directories += 1
    try:
        source = open_directory(session.source, path)
    except OSError as error:
        if error.errno not in _VANISHED:
            tally.failures.append((path, reason_of(error, "cannot read the source directory"), False))
        return []  # Vanished meanwhile: its own report, or its parent's, says so.
    try:
        elsewhere = session.settings.one_file_system and os.fstat(source).st_dev != session.device
        if fresh and path and not elsewhere and not session.settings.dry_run and session.brake is None:
            hidden = _fill(session, source, path, tally, content=content)
            if hidden is not None:
                return hidden
            fresh = False
        for _ in range(LOOKS):
            failures = len(tally.failures)
            below = _existing(session, source, path, tally, content=content, fresh=fresh, elsewhere=elsewhere)
            if below is not None:
                return below
            del tally.failures[failures:]
        tally.failures.append((path, "the target directory was replaced whenever it was looked at", False))
        return []
    finally:
        os.close(source)


def _existing(
    session: Session, source: int, path: bytes, tally: Tally, *, content: bool, fresh: bool, elsewhere: bool
) -> list[tuple[bytes, bool, bool]] | None:
    """Bring a directory in step where it stands; None when it was no longer there at the end."""
    below: list[tuple[bytes, bool, bool]] = []
    try:
        target = open_directory(session.target, path)
    except OSError as error:
        if session.settings.dry_run and error.errno in _VANISHED:
            _level(session, source, -1, path, tally, below, content=content, fresh=True)
        else:
            tally.failures.append((path, reason_of(error, "cannot open the target directory"), False))
        return below
    try:
        if not elsewhere:
            _level(session, source, target, path, tally, below, content=content, fresh=fresh)
        if not session.settings.dry_run:
            theirs = os.fstat(target)
            if not theirs.st_nlink:
                return None  # Another worker has put a filled directory in its place.
            session.attributes.to_existing(source, target, os.fstat(source), theirs)
    except OSError as error:
        failed(tally, path, error, "cannot bring the directory in step")
    finally:
        os.close(target)
    return below


def _fill(
    session: Session, source: int, path: bytes, tally: Tally, *, content: bool
) -> list[tuple[bytes, bool, bool]] | None:
    """Fill a directory that was made just now out of sight; None when that is not possible here."""
    try:
        hidden = Hidden(session, path)
    except OSError:
        return None
    try:
        below: list[tuple[bytes, bool, bool]] = []
        page = Page() if session.settings.learns else None
        _level(session, source, hidden.fd, path, tally, below, content=content, fresh=True, hidden=True, page=page)
        session.attributes.to_existing(source, hidden.fd, os.fstat(source), os.fstat(hidden.fd))
        if not hidden.show():
            return None
        if page is not None and page.complete:
            tally.learned.append((path, page.began_ns, b"".join(page.pieces), [each for each, _, _ in below]))
    except OSError:
        return None
    else:
        return below
    finally:
        hidden.close()


def _level(
    session: Session,
    source: int,
    target: int,
    path: bytes,
    tally: Tally,
    below: list[tuple[bytes, bool, bool]],
    *,
    content: bool,
    fresh: bool,
    hidden: bool = False,
    page: Page | None = None,
) -> None:
    settings, attributes = session.settings, session.attributes
    present: dict[str, os.DirEntry[str]] = {}
    if not fresh:
        with os.scandir(target) as entries:
            present = {entry.name: entry for entry in entries}
        tally.present += len(present)
    if not attributes.is_root and not settings.dry_run and os.fstat(target).st_mode & 0o300 != 0o300:
        os.fchmod(target, 0o700)  # An ordinary user needs it open; the source's mode is set again below.
    look_at_xattrs = attributes.looks_at_xattrs
    filters_nothing = session.filters_nothing
    filler = Filler(session, source, target) if hidden else None
    source_base, target_base = f"/proc/self/fd/{source}/", f"/proc/self/fd/{target}/"
    with os.scandir(source) as entries:
        listed: Iterable[os.DirEntry[str]] = entries
        if present:
            # What is too much goes first: on a full target it may make room for what comes.
            listed = list(entries)
            extra = present.keys() - {entry.name for entry in listed}
            if extra:
                _remove_extra(session, target, path, {name: present.pop(name) for name in extra}, tally)
        for entry in listed:
            name = entry.name
            if filler is not None and entry.is_file(follow_symlinks=False):
                if (not filters_nothing or name.startswith(_TEMPORARY)) and session.excludes(
                    path, os.fsencode(name), is_dir=False
                ):
                    continue
                try:
                    if filler.copy(name, tally):
                        tally.compared += 1
                        if page is not None:
                            page.note(name, filler.info)
                        continue
                except OSError:
                    pass  # Tried once more below, where errors are told apart.
            try:
                ours = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue  # Gone since it was listed; what the target has of it goes below.
            except OSError as error:
                present.pop(name, None)
                failed(tally, join(path, name), error, "cannot read the source")
                continue
            is_dir = stat.S_ISDIR(ours.st_mode)
            if (not filters_nothing or name.startswith(_TEMPORARY)) and session.excludes(
                path, os.fsencode(name), is_dir=is_dir
            ):
                continue
            there = present.pop(name, None)
            theirs: os.stat_result | None = None
            if there is not None:
                try:
                    theirs = there.stat(follow_symlinks=False)
                except FileNotFoundError:
                    theirs = None
                if theirs is not None and not is_dir and step(ours, theirs, content=content) is _KEEP:
                    tally.compared += 1
                    if ours.st_nlink > 1 and settings.preserve.hard_links:
                        tally.linked.append((join(path, name), ours.st_dev, ours.st_ino, ours.st_nlink, False))
                    if look_at_xattrs:
                        try:
                            differ = attributes.xattrs_differ(source_base + name, target_base + name)
                        except OSError:
                            differ = True  # Changed just now: the long way tells errors apart.
                        if differ:
                            _bring(session, source, target, path, name, ours, theirs, tally, content=True)
                    continue
            brought = _bring(session, source, target, path, name, ours, theirs, tally, content=content)
            if brought is _DIRECTORY:
                below.append((join(path, name), content, False))
            elif brought is _NEW_DIRECTORY:
                below.append((join(path, name), content, True))
            elif brought is not _DONE and page is not None:
                page.complete = False
            if page is not None:
                page.note(name, ours)
    if present:
        _remove_extra(session, target, path, present, tally)


def _bring(
    session: Session,
    source: int,
    target: int,
    path: bytes,
    name: str,
    ours: os.stat_result,
    theirs: os.stat_result | None,
    tally: Tally,
    *,
    content: bool,
) -> Brought:
    whole = join(path, name)
    try:
        return reconcile(
            session, source, target, whole, name, ours, theirs, tally, content=content, leave=True, stamp=True
        )
    except OSError as error:
        if error.errno not in RACED:
            return failed(tally, whole, error, "cannot bring over")
        # Not what it was when it was listed (another worker may be at it too): look again.
        return bring(session, source, target, whole, name, tally, content=content, stamp=True)


def _remove_extra(
    session: Session, target: int, path: bytes, present: dict[str, os.DirEntry[str]], tally: Tally
) -> None:
    settings, mounted = session.settings, session.mounted
    if mounted.mounts and not tally.holds and not mounted.carries(path):
        tally.unsure.append(path)
        return
    others = 0
    examples: list[bytes] = []
    directories: list[bytes] = []
    for name, entry in present.items():
        encoded = os.fsencode(name)
        try:
            is_dir = entry.is_dir(follow_symlinks=False)
        except OSError:
            continue
        if not session.is_stale_temporary(encoded):
            if not settings.delete or is_temporary(encoded):  # Of another worker, at work on it now.
                continue
            if session.excludes(path, encoded, is_dir=is_dir) and not settings.delete_excluded:
                continue
            if tally.holds:
                if is_dir:
                    directories.append(encoded)
                else:
                    others += 1
                    if len(examples) < EXAMPLES:
                        examples.append(encoded)
                continue
        whole = join(path, encoded)
        if mounted.mounts and not mounted.vouches(whole):
            tally.unsure.append(whole)
            continue
        remove(session, target, whole, name, tally, is_dir=is_dir)
    if others or directories:
        tally.extra.append((path, others, examples, directories))
