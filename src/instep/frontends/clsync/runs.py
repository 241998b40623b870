"""What one run of the handler is: its programs or calls, their arguments, and the files with lists of paths.

Facts (the manual page of clsync 0.4.5 and its observed behaviour): a run has one program for all paths where the
arguments name a list of them, in as many parts as the arguments or the lines of rsync's lists may be many. Where they
name none, and no directory for lists was asked for, each path has a program of its own, as always in mode simple. The
path of the watched directory itself is ``.`` in mode direct, else empty.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from instep.frontends.clsync import lists
from instep.frontends.clsync.entries import Entry
from instep.frontends.clsync.lists import Line
from instep.frontends.clsync.rules import Rules
from instep.frontends.clsync.settings import Mode, Settings
from instep.frontends.clsync.templates import EVENT_MASK, EXCLUDE_PATH, INCLUDE_PATH, TYPE, Arguments
from instep.logs import fields
from instep.model import Bring, Call, ListFile, Program, Told
from instep.paths import RelPath

log = logging.getLogger(__name__)

ARGUMENTS_MAX: Final = 256
"""Of the handler, as they are counted before paths are filled in. clsync's, so that scripts see what they expect."""

Excluded = tuple[RelPath, bool]
"""A path that is left alone by rsync; True: only what is below it."""


class Part(NamedTuple):
    """Something to carry out, and the entries that it tells of."""

    work: Program | Call | Bring
    entries: Sequence[Entry]


def environment_of(*, iteration: int | None, status: str) -> dict[bytes, bytes]:
    """What handlers and hooks find in theirs. ``iteration`` None: it has no meaning, as runs overlap."""
    told = {b"CLSYNC_STATUS": status.encode()}
    if iteration is not None:
        told[b"CLSYNC_ITERATION"] = b"%d" % iteration
    return told


def told_again(part: Part, *, status: str) -> Part:
    """The same for another try, which is told the state of now."""
    work = part.work
    if isinstance(work, Bring):
        return part
    return part._replace(work=work._replace(environment={**work.environment, b"CLSYNC_STATUS": status.encode()}))


class Runs:
    """Makes runs from entries. No file is made here: they are described, and made when the part is carried out."""

    leaves_mounts = False
    """As clsync: what lies directly in a mount point is told."""

    def __init__(
        self,
        settings: Settings,
        *,
        list_dir: Callable[[], bytes],
        own: Callable[[], Excluded | None],
        pid: int,
        clock: Callable[[], float],
        random: Callable[[], int],
    ) -> None:
        """Nothing is asked yet.

        Args:
            settings: see ``change``.
            list_dir: the directory for list files; asked only when there is one to be made.
            own: what in the watched directory is of that directory, see ``ListDirectory.own``; asked after it.
            pid: our process, for the names of list files.
            clock: seconds since 1970, for the same.
            random: a number that is not negative, for the same.
        """
        self._list_dir = list_dir
        self._own = own
        self._pid = pid
        self._clock = clock
        self._random = random
        self.change(settings)

    def change(self, settings: Settings) -> None:
        """Other settings hold for the runs to come."""
        self._settings = settings
        self._arguments = Arguments(settings.arguments)
        initial = settings.initial_arguments
        self._initial = self._arguments if initial is None else Arguments(initial)
        self._root = settings.watch_dir.rstrip(b"/")
        self._timeout_s = float(settings.timeout_sync_s) or math.inf
        is_simple = settings.mode is Mode.SIMPLE
        self._all_absolute = is_simple or settings.absolute_paths
        self.tells_singly = not settings.mode.calls and (
            is_simple or settings.run_per_object or (settings.lists_dir is None and not self._arguments.tells_paths)
        )
        """Each path has a program of its own."""

    def follow(self, rules: Rules) -> None:
        """Rules are no matter of programs: what they reject does not come here, or as ``excluded``."""

    def of(
        self, entries: Sequence[Entry], excluded: Sequence[Excluded] = (), *, iteration: int | None, status: str
    ) -> list[Part]:
        """The parts of a run, to be carried out one after the other.

        Args:
            entries: what is to be told; each path once.
            excluded: for rsync's lists: what is left alone below entries that stand for a whole directory.
            iteration: see ``environment_of``.
            status: what was last announced.

        Raises:
            OSError: a directory for list files cannot be made.
        """
        environment = environment_of(iteration=iteration, status=status)
        settings = self._settings
        if settings.mode.calls:
            return list(self._calls(entries, excluded, environment)) if entries else []
        parts: list[Part] = []
        together: list[Entry] = []
        for entry in entries:
            if entry.absolute:
                parts.append(self._single(self._initial, b"initialsync", entry, environment))
            elif self.tells_singly:
                parts.append(self._single(self._arguments, b"sync", entry, environment))
            else:
                together.append(entry)
        for some in self._cut(together):
            parts += self._together(some, excluded, environment)
        return parts

    # ---- programs ----

    def _single(self, arguments: Arguments, kind: bytes, entry: Entry, environment: Mapping[bytes, bytes]) -> Part:
        """The program for one path. It gets no list: the path is in its arguments, if anywhere."""
        values = {TYPE: kind, EVENT_MASK: b"%d" % entry.mask, INCLUDE_PATH: b"", EXCLUDE_PATH: b""}
        work = self._program(arguments.filled(values, [self._argument(entry)]), (), environment)
        return Part(work, (entry,))

    def _cut(self, entries: Sequence[Entry]) -> list[Sequence[Entry]]:
        """The entries of a run, as many at a time as may be arguments."""
        if not self._arguments.has_paths:
            return [entries] if entries else []
        most = max(1, ARGUMENTS_MAX - len(self._arguments))
        return [entries[start : start + most] for start in range(0, len(entries), most)]

    def _together(
        self, entries: Sequence[Entry], excluded: Sequence[Excluded], environment: Mapping[bytes, bytes]
    ) -> Iterator[Part]:
        """The programs for paths that are told in one go."""
        settings = self._settings
        arguments = self._arguments
        includes: Iterable[tuple[bytes, Sequence[Entry]]] = [(b"", entries)]
        if arguments.has_include_path:
            includes = self._rsync_includes(entries) if settings.mode.has_rsync_lists else self._own_list(entries)
        with_exclude = (
            arguments.has_exclude_path and settings.mode.has_rsync_lists and not settings.rsync_prefer_include
        )
        exclude = self._exclude_list(entries, excluded) if with_exclude else b""
        for content, told in includes:
            files = []
            if arguments.has_include_path:
                files.append(self._file(b"list", content))
            values = {
                TYPE: b"rsynclist" if settings.mode.has_rsync_lists else b"synclist",
                INCLUDE_PATH: files[0].path if files else b"",
                EXCLUDE_PATH: b"",
            }
            if with_exclude:
                files.append(self._file(b"exclist", exclude))
                values[EXCLUDE_PATH] = files[-1].path
            paths = [self._argument(entry) for entry in told] if arguments.has_paths else ()
            yield Part(self._program(arguments.filled(values, paths), tuple(files), environment), told)

    def _program(
        self, arguments: Sequence[bytes], files: tuple[ListFile, ...], environment: Mapping[bytes, bytes]
    ) -> Program:
        settings = self._settings
        return Program(
            (settings.sync_handler, *arguments),
            environment=environment,
            timeout_s=self._timeout_s,
            directory=settings.watch_dir,
            files=files,
            user=settings.sync_handler_uid,
            group=settings.sync_handler_gid,
        )

    # ---- calls ----

    def _calls(
        self, entries: Sequence[Entry], excluded: Sequence[Excluded], environment: Mapping[bytes, bytes]
    ) -> Iterator[Part]:
        settings = self._settings
        if not settings.mode.has_rsync_lists:
            told = tuple(
                Told(self._full(entry.path) if entry.absolute else entry.path, entry.mask, entry.recursive,
                     int(entry.old), int(entry.new))
                for entry in entries
            )  # fmt: skip
            yield Part(Call(told, timeout_s=self._timeout_s, environment=environment), entries)
            return
        exclude = None if settings.rsync_prefer_include else self._exclude_list(entries, excluded)
        for content, some in self._rsync_includes(entries):
            files = [self._file(b"list", content)]
            if exclude is not None:
                files.append(self._file(b"exclist", exclude))
            call = Call(
                include=files[0].path,
                exclude=None if exclude is None else files[1].path,
                files=tuple(files),
                timeout_s=self._timeout_s,
                environment=environment,
            )
            yield Part(call, some)

    # ---- lists ----

    def _rsync_includes(self, entries: Sequence[Entry]) -> Iterator[lists.IncludeList]:
        return lists.include_lists(entries, self._settings.rsync_inclimit)

    def _exclude_list(self, entries: Sequence[Entry], excluded: Sequence[Excluded]) -> bytes:
        """What does not count, and in whole directories our own lists."""
        own = None
        if any(entry.recursive for entry in entries):
            self._list_dir()  # Where it is made only now, it is known only now.
            own = self._own()
        return lists.exclude_list(excluded, own)

    def _own_list(self, entries: Sequence[Entry]) -> Iterator[tuple[bytes, Sequence[Entry]]]:
        """The list of what can stand in one; nothing if nothing can."""
        told = []
        lines = []
        for entry in entries:
            path = self._path(entry)
            if lists.can_be_listed(path):
                told.append(entry)
                lines.append(Line(entry.mask, path))
            else:
                log.warning(
                    "name-cannot-be-listed",
                    extra=fields(
                        path=path,
                        reason="a newline in a name ends the line",
                        now="the handler is not told of it",
                        fix="rename it, or have paths as arguments: %INCLUDE-LIST%",
                    ),
                )
        if told:
            settings = self._settings
            yield lists.own_list(lines, settings.label, simplified=settings.synclist_simplify), told

    def _file(self, kind: bytes, content: bytes) -> ListFile:
        name = b"%b/.clsync-%b.%d.%d.%d.%d" % (
            self._list_dir(), kind, self._pid, threading.get_ident(), int(self._clock()), self._random(),
        )  # fmt: skip
        return ListFile(name, content, keep=self._settings.dont_unlink_lists)

    # ---- paths ----

    def _argument(self, entry: Entry) -> bytes:
        """The path as an argument, which must not be taken for an option."""
        path = self._path(entry)
        return b"./" + path if path.startswith(b"-") else path

    def _path(self, entry: Entry) -> bytes:
        if self._all_absolute or entry.absolute:
            return self._full(entry.path)
        return entry.path or (b"." if self._settings.mode is Mode.DIRECT else b"")

    def _full(self, path: RelPath) -> bytes:
        return self._root + b"/" + path if path else self._settings.watch_dir
