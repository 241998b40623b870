"""What the source holds under the names of a batch, found without following a link.

rsync follows a symbolic link in the middle of a listed path and would bring over what lies outside the source. So
every parent is opened with links forbidden first, and where that fails the topmost name in the way is listed instead:
rsync then removes it at the target, or replaces it by what it has become.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from instep.engines.rsync.plain import Plain
from instep.linux.openat import open_directory
from instep.model import Change, Failure, Postponed

CROWD = 64
"""With more changed names than this a directory is counted, for it may be listed in place of them."""


MOST = 0.7
"""With so large a part of a directory's files changed, bringing all of them over costs less than naming the changed:
a named file costs 50 us, an unnamed one 35 (measured)."""


class Kind(enum.IntEnum):
    """As much of a file type as the plan needs."""

    GONE = 0
    FILE = 1
    DIRECTORY = 2
    OTHER = 3


class Seen(NamedTuple):
    """One change, and what stands in the source for it."""

    change: Change
    path: bytes
    """The path to list: the change's own, or the ancestor that is no directory any more."""
    kind: Kind
    size: int


class Crowd(NamedTuple):
    """A directory with many changed names."""

    names: int
    """How many it holds."""
    postponed: bool
    """One of its files is to be left alone for now."""
    clean_bytes: int
    """What its regular files that are not in the batch hold; only added up where they are few, else 0."""


class Linked(NamedTuple):
    """One of several names of a file."""

    seen: Seen
    inode: tuple[int, int]
    names: int
    """How many it has."""


@dataclass(frozen=True, slots=True)
class Look:
    """The state of the source for one batch."""

    seen: list[Seen]
    crowds: dict[bytes, Crowd]
    failures: list[Failure]
    postponed: list[Postponed]
    linked: list[Linked] = field(default_factory=list)
    """The files in it that have more names than one."""
    plain: Plain | None = None
    """Whether there are extended attributes, if that was asked."""


Big = Callable[[int, Change, float], float]


def look(root: int, changes: Iterable[Change], *, big: Big | None, now_s: float, plain: Plain | None = None) -> Look:
    """Read the source's side of a batch.

    Args:
        root: descriptor of the source root.
        changes: the batch.
        big: how long a file of this size has still to wait; None when nothing waits.
        now_s: the batch's time.
        plain: is told of each name; of those of whole directories too, where these may be listed instead.
    """
    found = Look([], {}, [], [], plain=plain)
    below: dict[bytes, list[tuple[bytes, Change]]] = {}
    for change in changes:
        if change.path:
            parent, _, name = change.path.rpartition(b"/")
            if (names := below.get(parent)) is None:
                names = below[parent] = []
            names.append((name, change))
        else:
            found.seen.append(Seen(change, b"", Kind.DIRECTORY, 0))
    in_the_way: dict[bytes, bytes | None] = {b"": None}
    if plain is not None:
        plain.see_directories(below, names=sum(map(len, below.values())))
    for parent, names in below.items():
        try:
            fd = -1 if (blocker := _blocker(root, parent, in_the_way)) is not None else open_directory(root, parent)
        except OSError as error:
            if error.errno in _NO_DIRECTORY:  # It went between two looks: its own change is on the way.
                found.seen.extend([Seen(change, parent, Kind.GONE, 0) for _, change in names])
            else:
                reason = (
                    f"cannot read the source directory {parent.decode('utf-8', 'backslashreplace')}: {error.strerror}"
                )
                found.failures.extend([Failure(change, reason, hard=True) for _, change in names])
            continue
        if blocker is not None:
            if plain is not None:
                plain.holds = False
            kind = _kind(root, blocker)
            if kind is Kind.FILE:
                kind = Kind.OTHER  # Its content was never looked at, whatever the change below it says.
            found.seen.extend([Seen(change, blocker, kind, 0) for _, change in names])
            continue
        try:
            _look_in(fd, parent, names, found, big=big, now_s=now_s)
        finally:
            os.close(fd)
    return found


_NO_DIRECTORY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV})


def _blocker(root: int, directory: bytes, known: dict[bytes, bytes | None]) -> bytes | None:
    """The topmost of this directory and its ancestors that is none; None when all are directories."""
    if directory in known:
        return known[directory]
    try:
        os.close(open_directory(root, directory))
        answer = None
    except OSError as error:
        if error.errno not in _NO_DIRECTORY:
            raise
        above = _blocker(root, directory.rpartition(b"/")[0], known)
        answer = directory if above is None else above
    known[directory] = answer
    return answer


def _kind(root: int, path: bytes) -> Kind:
    parent, _, name = path.rpartition(b"/")
    try:
        fd = open_directory(root, parent)
    except OSError:
        return Kind.GONE
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode), Kind.OTHER)
    except OSError:
        return Kind.GONE
    finally:
        os.close(fd)


def _look_in(
    fd: int, parent: bytes, names: list[tuple[bytes, Change]], found: Look, *, big: Big | None, now_s: float
) -> None:
    seen = found.seen
    status, kinds, known = os.stat, _KINDS, tuple.__new__  # Seen() itself takes three times the time
    plain = found.plain
    files: list[bytes] = []
    postponed = False
    there = 0
    for name, change in names:
        try:
            st = status(name, dir_fd=fd, follow_symlinks=False)
        except OSError as error:  # ENOENT, ENAMETOOLONG: not there; anything else rsync will say better
            if plain is not None and error.errno != errno.ENOENT:
                plain.holds = False
            seen.append(Seen(change, change.path, Kind.GONE, 0))
            continue
        there += 1
        kind = kinds.get(st.st_mode & _TYPE, Kind.OTHER)
        size = st.st_size
        if kind is Kind.FILE and big is not None and (wait_s := big(size, change, now_s)) > 0:
            found.postponed.append(Postponed(change, wait_s))
            postponed = True
            continue
        if kind is Kind.FILE:
            files.append(name)
        elif plain is not None:
            if kind is Kind.DIRECTORY:
                plain.see_directory(change.path)
            else:
                plain.holds = False
        seen.append(one := known(Seen, (change, change.path, kind, size)))
        if st.st_nlink > 1 and kind is not Kind.DIRECTORY:
            found.linked.append(Linked(one, (st.st_dev, st.st_ino), st.st_nlink))
    if len(names) > CROWD:
        listed = os.listdir(fd)
        clean_bytes = 0
        if len(listed) > there and len(listed) - there <= (1 - MOST) * len(listed):
            changed = {name for name, _ in names}
            others = [name for name in map(os.fsencode, listed) if name not in changed]
            clean_bytes = sum(_size(fd, name) for name in others)
            files += others
        found.crowds[parent] = Crowd(len(listed), postponed, clean_bytes)
    if plain is not None and plain.holds:
        plain.see_files(b"/proc/self/fd/%d/" % fd, files)


def _size(fd: int, name: bytes) -> int:
    """What a regular file holds."""
    try:
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return 0
    return st.st_size if stat.S_ISREG(st.st_mode) else 0


_TYPE = 0o170000
_KINDS = {stat.S_IFREG: Kind.FILE, stat.S_IFDIR: Kind.DIRECTORY}
