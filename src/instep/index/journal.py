"""Paths that may have been written to at the target since its index was last brought up to date.

The index says what a target holds; what a batch was doing when the process died it cannot know, least of all a name
that was made at the target and is gone from the source by now. So a path is noted here before anything is done about
it. The file is mapped: a note costs a copy of the path and survives kill -9, as it stands in the kernel's memory. It
does not survive a power cut, which the index tells by the boot it was last used in.

Layout: paths one after the other, each ended by a NUL and preceded by one byte, the scope; a NUL scope byte ends them.
"""

from __future__ import annotations

import mmap
import os

from instep.paths import Scope

GROW_BYTES = 1 << 18
_MARKS = (b"e", b"l", b"t")
"""By scope."""
_SCOPES = {mark[0]: Scope(number) for number, mark in enumerate(_MARKS)}

Touched = dict[bytes, Scope]


class Journal:
    """An open journal. ``note`` is for the hot path; ``restart`` writes a file and renames it."""

    def __init__(self, path: bytes, touched: Touched) -> None:
        """Begin with these paths. OSError when the file cannot be made."""
        self._path = path
        self._fd = -1
        self._map: mmap.mmap | None = None
        self._at = 0
        self._size = 0
        self.restart(touched)

    def note(self, path: bytes, scope: Scope) -> None:
        """This path is about to be worked on. OSError when the file cannot grow."""
        text = _MARKS[scope] + path + b"\0"
        at = self._at
        end = self._at = at + len(text)
        if end >= self._size:
            self._grow(end)
        # A process killed within this copy leaves a shorter path, since zeros follow; and that batch never began.
        self._map[at:end] = text  # type: ignore[index]  # open, as long as anyone notes

    def restart(self, touched: Touched) -> None:
        """Only these paths are in doubt from now on. OSError when the file cannot be made; then the old one stays."""
        text = b"".join(_MARKS[scope] + path + b"\0" for path, scope in touched.items())
        size = (len(text) // GROW_BYTES + 1) * GROW_BYTES
        temporary = self._path + b".new"
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)  # A mapped page without room on the disk would be a fatal signal.
            mapped = mmap.mmap(fd, size)
            mapped[: len(text)] = text
            os.rename(temporary, self._path)
        except BaseException:
            os.close(fd)
            raise
        self.close()
        self._fd, self._map, self._at, self._size = fd, mapped, len(text), size

    def close(self) -> None:
        """Let go of the file; what it says stays."""
        if self._map is not None:
            self._map.close()
            self._map = None
            os.close(self._fd)

    def _grow(self, end: int) -> None:
        assert self._map is not None
        size = (end // GROW_BYTES + 2) * GROW_BYTES
        os.posix_fallocate(self._fd, 0, size)
        self._map.close()
        self._map = mmap.mmap(self._fd, size)
        self._size = size


def read_journal(path: bytes) -> Touched | None:
    """What a journal says; None where there is none that can be read."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError:
        return None
    touched: Touched = {}
    at = 0
    while at < len(text) and (mark := text[at]):
        end = text.find(b"\0", at + 1)
        if end < 0 or mark not in _SCOPES:
            return None
        name = text[at + 1 : end]
        touched[name] = max(touched.get(name, Scope.ENTRY), _SCOPES[mark])
        at = end + 1
    return touched


def merged(one: Touched, other: Touched) -> Touched:
    """Both; of two scopes the larger one."""
    both = dict(one)
    for path, scope in other.items():
        if scope >= both.get(path, Scope.ENTRY):
            both[path] = scope
    return both
