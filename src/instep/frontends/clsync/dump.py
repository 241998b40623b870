"""The dump: a directory that shows what waits in the queues and what is being done.

Facts (observed)::

    instance           ``status == STATUS``, then what the one run of this process has, where runs are not side by side
    queue/0 … queue/3  what waits: normal, big files, instant, held until another run ends
    threads/I-N-T      one file for each of the runs side by side

One line is one path: sign, kind, tab, path. The directory must not exist yet.
"""

from __future__ import annotations

import enum
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from instep.frontends.clsync.entries import Entry
from instep.paths import RelPath

_DIRECTORY_MODE: Final = 0o750
_FILE_MODE: Final = 0o644


class Mark(enum.Enum):
    """What a line says of its path."""

    NORMAL = b"+1"
    RECURSIVE = b"+*"
    """With everything below it."""
    CONTENT = b"+/"
    """Everything below it."""
    EXCLUDED = b"-1"


class Line(NamedTuple):
    """One path."""

    mark: Mark
    path: RelPath


@dataclass(frozen=True, slots=True)
class Run:
    """One run under way, beside others; times in seconds since the epoch."""

    iteration: int
    number: int
    """Among those under way."""
    thread: int
    """What tells it from all others; shown in hexadecimal."""
    started_at: int
    expires_at: int
    child_pid: int
    try_number: int
    """From 1."""
    command: Sequence[bytes]
    """The program with its arguments; none for a function that is called."""
    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Picture:
    """All that a dump shows."""

    status: str
    queues: Sequence[Sequence[Line]]
    """By their numbers."""
    current: Sequence[Line] = ()
    """What the only run under way has."""
    runs: Sequence[Run] = ()


def lines(entries: Iterable[Entry]) -> list[Line]:
    """Of paths that wait."""
    return [Line(Mark.RECURSIVE if entry.recursive else Mark.NORMAL, entry.path) for entry in entries]


def write(path: bytes, picture: Picture) -> None:
    """Make the directory with everything in it; blocks as long as the disk does.

    Raises:
        OSError: it exists (EEXIST), or cannot be written; then nothing is left of it.
    """
    os.mkdir(path, _DIRECTORY_MODE)
    try:
        top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _write_all(top, picture)
        finally:
            os.close(top)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        raise


def _write_all(top: int, picture: Picture) -> None:
    status = b"status == " + picture.status.encode() + b"\n"
    _put(top, b"instance", [status, *_shown(picture.current)])
    os.mkdir(b"queue", _DIRECTORY_MODE, dir_fd=top)
    for number, queue in enumerate(picture.queues):
        _put(top, b"queue/%d" % number, _shown(queue))
    os.mkdir(b"threads", _DIRECTORY_MODE, dir_fd=top)
    for run in picture.runs:
        _put(top, b"threads/%d-%d-%x" % (run.iteration, run.number, run.thread), _described(run))


def _described(run: Run) -> Iterable[bytes]:
    yield b"thread:\n"
    yield b"\titeration == %d\n" % run.iteration
    yield b"\tnum == %d\n" % run.number
    yield b"\tpthread == %x\n" % run.thread
    yield b"\tstarttime == %d\n" % run.started_at
    yield b"\texpiretime == %d\n" % run.expires_at
    yield b"\tchild_pid == %d\n" % run.child_pid
    yield b"\ttry_n == %d\n" % run.try_number
    yield _one_line(b"Command:" + b"".join(b' "' + word + b'"' for word in run.command)) + b"\n"
    yield from _shown(run.lines)


def _shown(queue: Iterable[Line]) -> Iterable[bytes]:
    return (mark.value + b"\t" + _one_line(path) + b"\n" for mark, path in queue)


def _one_line(text: bytes) -> bytes:
    """A name with a line end must not look like two; clsync never has such names here."""
    return text.replace(b"\n", rb"\n")


def _put(top: int, name: bytes, parts: Iterable[bytes]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(name, flags, _FILE_MODE, dir_fd=top), "wb") as file:
        file.writelines(parts)
