r"""The files in which handlers are told of paths: clsync's own list, and the two filter lists of rsync.

Facts (the manual page of clsync 0.4.5, its observed behaviour, and rsync 3.2.7 and 3.5.0 asked, held by the tests):

- clsync's list has a line ``sync LABEL MASK PATH`` for each path, or the path alone. Nothing is escaped, so a path
  with a newline cannot stand in it; one that did would forge lines.
- rsync's lists are patterns, anchored. The list to include names each path and every directory above it; ``/***``
  behind a directory stands for it and all below. In the list to exclude, ``/**`` stands for what is below alone. The
  watched directory itself is an empty line, which means nothing to rsync.
- rsync takes a backslash for an escape only in patterns that hold one of ``*?[``; clsync escapes in all.
- A line ends at a newline or a carriage return, and neither can be escaped. But the set of all bytes save one holds
  just that one.
- A directory that is gone is only removed with what is in it when that is included too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from instep.frontends.clsync.entries import Entry, ObjectType
from instep.linux.inotify import IN_ISDIR
from instep.paths import RelPath

FILE_PREFIX: Final = b".clsync-"
"""Every list file's name begins so; ``.clsync-KIND.PID.`` and more."""


class Line(NamedTuple):
    """One path of clsync's own list."""

    mask: int
    path: bytes
    """As it is to be told."""


def can_be_listed(path: bytes) -> bool:
    """Whether a line of clsync's own list can hold the path."""
    return b"\n" not in path


def own_list(lines: Iterable[Line], label: bytes, *, simplified: bool) -> bytes:
    """The list of paths, which all can be listed."""
    if simplified:
        return b"".join([line.path + b"\n" for line in lines])
    return b"".join([b"sync %b %d %b\n" % (label, line.mask, line.path) for line in lines])


class IncludeList(NamedTuple):
    """One list that rsync includes, and the entries that it tells of."""

    content: bytes
    entries: Sequence[Entry]


def include_lists(entries: Iterable[Entry], lines_max: int) -> Iterator[IncludeList]:
    """The lists that rsync includes, cut as clsync cuts them.

    Each path counts as many lines as it has components, and one, whether or not they stand in the list already. A part
    is full when it has ``lines_max`` of these, so it may have more: by those of its last path, less one. 0: no limit.
    """
    lines: dict[bytes, None] = {}
    told: list[Entry] = []
    count = 0
    for entry in entries:
        if lines_max and count >= lines_max:
            yield IncludeList(_joined(lines), told)
            lines, told, count = {}, [], 0
        path = entry.path
        count += path.count(b"/") + 2 if path else 1
        told.append(entry)
        _include(entry, lines)
        while (slash := path.rfind(b"/")) > 0:
            path = RelPath(path[:slash])
            line = _pattern(path)
            if line in lines:
                break  # Then so are those above.
            lines[line] = None
    if told:
        yield IncludeList(_joined(lines), told)


def exclude_list(excluded: Iterable[tuple[RelPath, bool]], own: tuple[RelPath, bool] | None = None) -> bytes:
    """The list of what rsync leaves alone.

    Args:
        excluded: each path with all that is below it; True: only what is below.
        own: a directory that is left alone; True: only the list files directly in it.
    """
    lines = [_pattern(path, b"/**" if below else b"") for path, below in excluded]
    if own is not None:
        path, files = own
        lines.append(_pattern(path, b"/" + FILE_PREFIX + b"*" if files else b""))
    return _joined(dict.fromkeys(lines))


def _include(entry: Entry, lines: dict[bytes, None]) -> None:
    path = entry.path
    if not path:
        lines[b"/***" if entry.recursive else b""] = None
        return
    # rsync removes no directory that is not empty, so what was in one that is gone, or a file now, is included too. The
    # name by itself as well: the target may still have a file there, to which ``/***`` does not apply.
    was_directory = entry.new <= ObjectType.FILE and (
        entry.old == ObjectType.DIRECTORY or (entry.new != ObjectType.FILE and entry.mask & IN_ISDIR != 0)
    )
    whole = entry.recursive or was_directory
    if whole:
        lines[_pattern(path, b"/***")] = None
    if not whole or entry.new != ObjectType.DIRECTORY:
        lines[_pattern(path)] = None


def _joined(lines: Iterable[bytes]) -> bytes:
    return b"".join([line + b"\n" for line in lines])


_wild = re.compile(rb"[*?\[\n\r]").search
_SPECIAL = re.compile(rb"[][*?\\\n\r]")
_INSTEAD = {
    b"\n": b"[!\x01-\x09\x0b-\xff]",
    b"\r": b"[!\x01-\x0c\x0e-\xff]",
}


def _pattern(path: bytes, below: bytes = b"") -> bytes:
    """The line for one path and what is below it; ``below`` has wildcards, if anything."""
    if not path or not (below or _wild(path)):
        return b"/" + path if path else below
    return b"/" + _SPECIAL.sub(_instead, path) + below


def _instead(found: re.Match[bytes]) -> bytes:
    return _INSTEAD.get(found[0]) or b"\\" + found[0]
