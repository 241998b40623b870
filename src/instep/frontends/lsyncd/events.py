"""What an entry looks like to a configuration: the fields of events, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from instep.frontends.lsyncd.queue import Entry

Value = bytes | bool | None


def value(entry: Entry, name: bytes, *, destination: bool) -> Value:
    """A field of an event; of a move ``destination`` tells which end. Paths have no slash in front.

    ``below_…`` are what is put behind the root of a source or target, which ends in a slash: ``below_path`` begins
    with one nevertheless, as configurations know it.
    """
    if name == b"etype":
        return entry.kind._value_
    if name == b"status":
        return entry.status._value_
    path = entry.path2 if destination and entry.path2 is not None else entry.path
    return _PARTS[name](path)


def _bare(path: bytes) -> bytes:
    return path.removeprefix(b"/")


def _name(path: bytes) -> bytes | None:
    """The last component, with the slash of a directory; None for what stands for no path."""
    return path[path.rfind(b"/", 0, len(path) - 1) + 1 :] or None


def _basename(path: bytes) -> bytes | None:
    name = _name(path)
    return None if name is None else name.removesuffix(b"/")


def _directory(path: bytes) -> bytes:
    return path[: path.rfind(b"/", 0, len(path) - 1) + 1]


_PARTS: Final[dict[bytes, Callable[[bytes], Value]]] = {
    b"isdir": lambda path: path.endswith(b"/"),
    b"name": _name,
    b"basename": _basename,
    b"path": _bare,
    b"pathname": lambda path: _bare(path).removesuffix(b"/"),
    b"pathdir": lambda path: _bare(_directory(path)),
    b"below_path": lambda path: path if path != b"" else b"",
    b"below_pathname": lambda path: path.removesuffix(b"/"),
    b"below_dir": _directory,
}
