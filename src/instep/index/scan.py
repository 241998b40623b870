"""Reading the source beside the index: what differs from what the targets hold, and what they hold from now on.

The source alone is read. One step is one directory; a directory that was not there before, or is another one, is
reported as a whole and not walked.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Container, Mapping, Sequence

from instep.core.filters import Filter
from instep.index.store import Store
from instep.linux.openat import open_directory
from instep.paths import TEMPORARY_PREFIX, RelPath, Scope
from instep.records import (
    GONE,
    OTHERS,
    UNKNOWN,
    Names,
    encoded,
    identity_only,
    is_directory,
    named,
    parse,
    record,
    same_directory,
)

EVER = 1 << 63
"""Later than any time of an inode."""
_TEMPORARY = os.fsdecode(TEMPORARY_PREFIX)
_KIND, _DIRECTORY = 0o170000, stat.S_IFDIR
_ENTRY, _TREE = int(Scope.ENTRY), int(Scope.TREE)  # plain numbers: they travel between processes
_AT_HAND = 64
"""So many directories are walked depth first; what is more is handed out."""
_NOTHING: Mapping[bytes, dict[bytes, bytes]] = {}
_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

Finding = tuple[bytes, int, bool, bool]
"""(path, scope, content, is_dir): to be looked at again, as a report has it."""
Level = tuple[bytes, int]
"""A directory that was brought over whole by a batch that began at this time (ns, the system's clock)."""


class Findings:
    """What a piece of a comparison found."""

    __slots__ = ("entries", "gone", "gone_entries", "levels", "reports")

    def __init__(
        self,
        reports: list[Finding] | None = None,
        gone: list[Finding] | None = None,
        gone_entries: int = 0,
        entries: int = 0,
        levels: list[bytes] | None = None,
    ) -> None:
        self.reports = reports or []
        self.gone = gone or []
        """The same for names that a target holds and the source does not."""
        self.gone_entries = gone_entries
        """How many names those are, with all that is below them at the target."""
        self.entries = entries
        """Entries looked at."""
        self.levels = levels or []
        """Directories still to be looked into."""


class Survey:
    """What there is in a piece of the source."""

    __slots__ = ("directories", "entries", "levels")

    def __init__(self) -> None:
        self.directories: list[tuple[bytes, int, bytes]] = []
        """(path, began, text)"""
        self.entries = 0
        self.levels: list[Level] = []


class Scanner:
    """Looks at one source under one filter. Used by one thread; every method blocks while it reads."""

    def __init__(self, source: int, filters: Filter, *, one_file_system: bool, margin_ns: int = 0) -> None:
        """Begin.

        Args:
            source: A descriptor of the source's root, which stays the caller's.
            filters: What is left out.
            one_file_system: Whether other file systems below the root are.
            margin_ns: Where no events tell of what came between, only a change time so long before the batch proves
                that nothing did. 0: whatever happened by the time it is read here has been reported.
        """
        self.margin_ns = margin_ns
        self._source = source
        self._filter = filters
        self._filters_nothing = filters.is_trivial
        self._one_file_system = one_file_system
        self._device = os.fstat(source).st_dev

    def compare(self, stores: Sequence[Store], levels: list[bytes], *, entries_max: int) -> Findings:
        """Compare directories, and all below them, with what each store says a target holds.

        Stops between two directories once ``entries_max`` entries were looked at; ``levels`` is consumed.

        Raises:
            BrokenIndex: a store cannot be read.
        """
        found = Findings()
        while levels and found.entries < entries_max:
            path = levels.pop()
            try:
                text, below, count = self._read(path, EVER)
            except OSError as error:
                if error.errno not in _VANISHED:  # Otherwise its own report, or its parent's, says so.
                    found.reports.append((path, Scope.TREE, False, True))
                continue
            found.entries += count + 1
            for store in stores:
                known = store.entries(path)
                if known != text:
                    whole = _differences(path, parse(text), parse(known or b""), store, found)
                    below = [name for name in below if name not in whole]
            _descend(path, below, levels, found.levels)
        found.levels += levels
        levels.clear()
        return found

    def survey(self, levels: list[Level], *, entries_max: int, apart: Container[bytes] = ()) -> Survey:
        """The texts of directories and all below them, claiming only what has not changed since their batch began.

        Directories that are dealt with ``apart``, with all that is below these, are not walked into.
        Stops between two directories once ``entries_max`` entries were looked at; ``levels`` is consumed.
        """
        found = Survey()
        while levels and found.entries < entries_max:
            path, began_ns = levels.pop()
            try:
                text, below, count = self._read(path, began_ns - self.margin_ns)
            except OSError:
                continue  # Not known, then; the next comparison looks at it.
            found.entries += count + 1
            found.directories.append((path, began_ns, text))
            prefix = path + b"/" if path else b""
            paths = [prefix + name for name in below]
            levels += [(path, began_ns) for path in paths if path not in apart]
        found.levels = list(levels)
        levels.clear()
        return found

    def root(self) -> os.stat_result:
        """The source's root directory."""
        return os.fstat(self._source)

    def singles(self, began: Names[int], *, seen: Mapping[bytes, dict[bytes, bytes]] = _NOTHING) -> Names[bytes]:
        """The records of names whose batches began at these times, together with those of ``seen``.

        GONE for one that is not there, UNKNOWN for one that has changed since, or cannot be looked at. ``seen``: what
        batches saw of other names in these directories, which still have to be there; consumed.
        """
        found: Names[bytes] = {}
        for parent, names in began.items():
            try:
                fd = open_directory(self._source, parent)
            except OSError as error:
                unseen = UNKNOWN if self.margin_ns else _unseen(error)
                found[parent] = dict.fromkeys([*names, *seen.get(parent, ())], unseen)
                continue
            try:
                found[parent] = _records(fd, names, self.margin_ns, seen.get(parent, {}))
            finally:
                os.close(fd)
        return found

    def _read(self, path: bytes, before_ns: int) -> tuple[bytes, list[bytes], int]:
        """Text, names of directories to look into, number of entries."""
        pieces: list[bytes] = []
        below: list[bytes] = []
        filters_nothing, excludes = self._filters_nothing, self._filter.excludes_entry
        fd = open_directory(self._source, path)
        try:
            if self._one_file_system and path and os.fstat(fd).st_dev != self._device:
                return b"", below, 0
            if self.margin_ns and os.fstat(fd).st_ctime_ns >= before_ns:
                pieces.append(OTHERS)
            with os.scandir(fd) as entries:
                for entry in entries:
                    text = entry.name
                    name = encoded(text)
                    try:
                        info = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    is_dir = info.st_mode & _KIND == _DIRECTORY
                    if (not filters_nothing or text.startswith(_TEMPORARY)) and excludes(RelPath(path), name, is_dir):
                        continue
                    if is_dir:
                        below.append(name)
                    if info.st_ctime_ns < before_ns:
                        pieces.append(named(name, info))
                    else:  # The target may have it, in this state or that.
                        pieces.append(name + b"\0" + _changed_since(info))
        finally:
            os.close(fd)
        return b"".join(pieces), below, len(pieces)


def _records(
    directory: int, began: Mapping[bytes, int], margin_ns: int, found: dict[bytes, bytes]
) -> dict[bytes, bytes]:
    """``Scanner.singles`` for the names of one directory; added to what is ``found`` already."""
    stat_of = os.stat
    changed_ns = os.fstat(directory).st_ctime_ns if margin_ns else 0
    for name, began_ns in began.items():
        try:
            info = stat_of(name or b".", dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            # A target may have been given it right before it went.
            found[name] = UNKNOWN if changed_ns >= began_ns - margin_ns and margin_ns else _unseen(error)
            continue
        found[name] = record(info) if info.st_ctime_ns < began_ns - margin_ns else _changed_since(info)
    return found


def _unseen(error: OSError) -> bytes:
    """What may be claimed of a name that could not be looked at."""
    return GONE if error.errno in _VANISHED else UNKNOWN


def _changed_since(info: os.stat_result) -> bytes:
    """What may be claimed of a name that changed after a batch with it had begun."""
    return identity_only(info) if info.st_mode & _KIND == stat.S_IFDIR else UNKNOWN


def _descend(path: bytes, below: list[bytes], levels: list[bytes], rest: list[bytes]) -> None:
    """Walk on depth first, as long as that is few; the rest is for whoever is free."""
    prefix = path + b"/" if path else b""
    paths = [prefix + name for name in below]
    room = _AT_HAND - len(levels)
    levels += paths[:room]
    rest += paths[room:]


def _differences(
    path: bytes, present: dict[bytes, bytes], records: dict[bytes, bytes], store: Store, found: Findings
) -> set[bytes]:
    """Report what differs in one directory; the names of directories that are reported whole."""
    prefix = path + b"/" if path else b""
    whole: set[bytes] = set()
    if records.pop(b"", None) is not None:  # OTHERS
        found.reports.append((path, _TREE, False, True))
    for name, one in present.items():
        known = records.pop(name, None)
        if known == one:
            continue
        if not is_directory(one):
            found.reports.append((prefix + name, _ENTRY, True, False))
        elif known is not None and same_directory(one, known):
            found.reports.append((prefix + name, _ENTRY, False, True))
        else:
            whole.add(name)
            found.reports.append((prefix + name, _TREE, True, True))
    for name, known in records.items():
        is_dir = is_directory(known)
        found.gone.append((prefix + name, _ENTRY, True, is_dir))
        found.gone_entries += 1
        if is_dir:
            found.gone_entries += sum(len(parse(text)) for _, text in store.below(prefix + name))
    return whole
