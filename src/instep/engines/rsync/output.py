r"""What rsync prints, taken apart: itemised lines on standard output, complaints on standard error.

Facts (rsync 3.5.0): with ``--8-bit-output`` and LC_ALL=C a name is printed with control bytes below 0x20 except tab,
and a backslash that would read as an escape, as ``\#ooo`` (three octal digits); a line ends in LF. Itemised lines are
printed by the sender when it sends, so they prove nothing about the target, save ``*deleting``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_ESCAPE = re.compile(rb"\\#([0-3][0-7]{2})")

HARD = frozenset({1, 13, 22, 36})
"""EPERM, EACCES, EINVAL, ENAMETOOLONG: a retry alone will not help."""

NO_SPACE = frozenset({28, 122})
"""ENOSPC, EDQUOT."""


def unescape(name: bytes) -> bytes:
    """The name as it is on disk."""
    if b"\\#" not in name:
        return name
    return _ESCAPE.sub(lambda m: bytes((int(m[1], 8),)), name)


class Item(NamedTuple):
    """One itemised line."""

    what: bytes
    """rsync's eleven letters, e.g. ``>f.st......``."""
    size: int
    path: bytes
    """Without ``./`` and trailing slash; ``b""`` is the root."""

    @property
    def deleted(self) -> bool:
        """A name that was taken away at the target."""
        return self.what.startswith(b"*deleting")

    @property
    def is_content(self) -> bool:
        """A regular file whose content travels."""
        return self.what[:2] in (b"<f", b">f")


def item(line: bytes) -> Item | None:
    """The itemised line taken apart; None for anything else that rsync prints."""
    parts = line.split(b"|", 2)
    if len(parts) != 3 or not parts[1].isdigit():
        return None
    path = unescape(parts[2]).rstrip(b"/")
    return Item(parts[0], int(parts[1]), b"" if path == b"." else path.removeprefix(b"./"))


_FILES = re.compile(rb"Number of files: ([\d,.]+)")
_STOPPED = re.compile(rb"^Deletions stopped due to --max-delete limit \((\d+) skipped\)", re.MULTILINE)


def names_listed(line: bytes) -> int:
    """How many names the source has, from the line of ``--stats`` that tells; 0 for any other line."""
    found = _FILES.match(line)
    return int(re.sub(rb"[,.]", b"", found[1])) if found else 0


def deletions_stopped(stderr: bytes) -> int:
    """How many names ``--max-delete`` kept from being deleted; directories that are not empty are not counted."""
    found = _STOPPED.search(stderr)
    return int(found[1]) if found else 0


class Complaint(NamedTuple):
    """One line on standard error that speaks of a path, or of the run."""

    text: str
    errno: int
    """0 when the line has none."""
    path: bytes | None
    """Relative to the root it was found below; None when the line names none."""
    in_source: bool
    vanished: bool
    """The source lost the name while rsync ran: no failure, its removal is reported on its own."""


_ERRNO = re.compile(rb"\((\d+)\)\s*(?:\(in [^)]*\))?$")
_QUOTED = re.compile(rb'"((?:[^"]|"(?![ :]|$))*)"')
_PARENTHESISED = re.compile(rb"(?:unlink|rmdir)\((.*)\) failed")
IN_THE_WAY = b"could not make way for "
"""Begins the complaint that a directory stands where something else is to come."""
_NAME_BEHIND = re.compile(IN_THE_WAY + rb"[a-z ]+: (.*)\Z", re.DOTALL)
_TEMPORARY = re.compile(rb"\A\.(.+)\.[A-Za-z0-9]{6}\Z")
_RENAMED = re.compile(rb'( rename "[^"]*/\.[^"/]+)\.[A-Za-z0-9]{6}(" -> ")')
_NOISE = (b"rsync error:", b"rsync warning:", b"IO error encountered", b"WARNING: parent dir is absent")
_PHANTOM = re.compile(rb"rsync: \[generator\] opendir .* failed: Not a directory \(20\)\Z", re.DOTALL)
"""In a dry run into a missing directory rsync 3.2.7 (not 3.5.0) says this of each FIFO, socket and device."""


def complaints(stderr: bytes, roots: Sequence[bytes], *, dry_run: bool = False) -> Iterator[Complaint]:
    """Everything on standard error that may explain a failure.

    Args:
        stderr: what rsync wrote.
        roots: the paths of the source root and the target root, in every form in which rsync may write them.
        dry_run: whether it was only to say what it would do.
    """
    for line in stderr.splitlines():
        if not line or line.startswith(_NOISE) or (dry_run and _PHANTOM.match(line)):
            continue
        number = int(found[1]) if (found := _ERRNO.search(line)) else 0
        names = [unescape(name) for name in _QUOTED.findall(line)]
        if (named := _NAME_BEHIND.match(line) or (None if names else _PARENTHESISED.search(line))) is not None:
            names = [unescape(named[1])]
        in_source = line.startswith((b"rsync: [sender]", b"file has vanished"))
        vanished = line.startswith((b"file has vanished", b"directory has vanished")) or (
            in_source and number == 2 and b"change_dir" not in line and b"root" not in line.partition(b'"')[0]
        )
        path = _below(names[-1], roots, temporary=b"mkstemp" in line) if names else None
        # Another name at each try would be another reason each time.
        text = _RENAMED.sub(rb"\1.XXXXXX\2", line).decode("utf-8", "backslashreplace")
        yield Complaint(text, number, path, in_source, vanished)


def _below(name: bytes, roots: Sequence[bytes], *, temporary: bool) -> bytes:
    """The path relative to whichever root it is below."""
    for root in roots:
        if root and (name == root or name.startswith(root.rstrip(b"/") + b"/")):
            name = name[len(root) :]
            break
    name = name.strip(b"/")
    if temporary:
        parent, slash, last = name.rpartition(b"/")
        if hidden := _TEMPORARY.match(last):
            name = parent + slash + hidden[1]
    return b"" if name == b"." else name.removeprefix(b"./")
