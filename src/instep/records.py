"""What is remembered of one name, and of all names of a directory, as bytes.

An entry holds inode, device, size, times, mode and owner as the source had them when the target was given what it
holds. The inode's change time (ctime) alone gives away every change of a file, in the source's own kernel's words; the
rest is there so that a record can be judged without it. A directory's size means nothing and is left out.

One text per directory, in the order in which the file system lists it: a directory in which nothing changed is found
equal by one comparison of bytes.
"""

from __future__ import annotations

import os
import stat
import sys
from struct import Struct
from typing import TypeVar

T = TypeVar("T")

_ENTRY = Struct("<QQqqqIII")
SIZE = _ENTRY.size
_pack = _ENTRY.pack
_pack_behind_nul = Struct("<xQQqqqIII").pack
"""The same with the NUL that stands between a name and its record: one call for each name of a scan."""
changed_ns = Struct("<32xq12x").unpack
"""When the inode was changed last (ctime, ns), as a record has it: the one value in it."""
Names = dict[bytes, dict[bytes, T]]
"""By directory, then by name: something of each. The root itself has an empty name, in itself."""
UNKNOWN = bytes(SIZE)
"""In the place of a record: a target may have something under this name, and nobody knows what."""
GONE = b"\xff" * SIZE
"""In the place of a record: this name is no more, at rest, so the target has it no more either."""
OTHERS = b"\0" + UNKNOWN
"""In the text of a directory, under no name: a target may have names in it that are not told here."""
CLOCK_LAG_NS = 20_000_000
"""Kernels stamp files with a clock that lags by up to 10 ms; twice that, to be sure."""
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_DIRECTORY_BIT = stat.S_IFDIR
_KIND = 0o170000


def record(info: os.stat_result) -> bytes:
    """What is remembered of a name with this lstat."""
    mode, inode, device, _, uid, gid, size, _, _, _ = info  # quicker than each by its name
    if mode & _KIND == _DIRECTORY_BIT:
        size = 0
    return _pack(inode, device, size, info.st_mtime_ns, info.st_ctime_ns, mode, uid, gid)


def named(name: bytes, info: os.stat_result) -> bytes:
    """A name with what is remembered of it: its part of a directory's text."""
    mode, inode, device, _, uid, gid, size, _, _, _ = info  # not by ``record``: it is done for each name of a scan
    if mode & _KIND == _DIRECTORY_BIT:
        size = 0
    return name + _pack_behind_nul(inode, device, size, info.st_mtime_ns, info.st_ctime_ns, mode, uid, gid)


def encoded(name: str) -> bytes:
    """A name as ``os.scandir`` of a descriptor gives it. ``os.fsencode`` asks for the type of each first."""
    return name.encode(_ENCODING, _ERRORS)


def identity_only(info: os.stat_result) -> bytes:
    """A directory known to be there, whose own attributes may not have been brought over."""
    return _ENTRY.pack(info.st_ino, info.st_dev, 0, 0, 0, info.st_mode, 0, 0)


def path_of(parent: bytes, name: bytes) -> bytes:
    """The path of a name in a directory."""
    return parent + b"/" + name if parent else name


def is_directory(one: bytes) -> bool:
    """Whether a record is one of a directory."""
    return bool(_ENTRY.unpack(one)[5] & _KIND == _DIRECTORY_BIT)


def same_directory(one: bytes, other: bytes) -> bool:
    """Whether two records are of one and the same directory, whatever its attributes."""
    return one[:16] == other[:16] and is_directory(one) and is_directory(other)


def parse(text: bytes) -> dict[bytes, bytes]:
    """The records of a directory's text, by name."""
    found: dict[bytes, bytes] = {}
    at, end = 0, len(text)
    while at < end:
        mark = text.index(b"\0", at)
        found[text[at:mark]] = text[mark + 1 : mark + 1 + SIZE]
        at = mark + 1 + SIZE
    return found
