"""Whether two trees are equal in all that a mirror promises: read afresh, without any code under test."""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path

Entry = tuple[object, ...]

SEEN = "\0links"
SHOWN = 50


def snapshot(root: Path, *, ignore: Sequence[str] = (), directory_times: bool = True) -> dict[str, Entry]:
    """Type, mode, owner, time, content, xattrs of every entry, and the groups of hard links.

    Args:
        root: The tree.
        ignore: Paths left out, with all below.
        directory_times: Whether the times of directories count.

    Raises:
        OSError: the tree changed meanwhile.
    """
    found: dict[str, Entry] = {}
    names: dict[tuple[int, int], list[str]] = {}
    todo = [""]
    while todo:
        here = todo.pop()
        path = os.path.join(root, here) if here else str(root)
        info = os.lstat(path)
        kind = stat.S_IFMT(info.st_mode)
        common: Entry = (oct(info.st_mode), info.st_uid, info.st_gid)
        if kind == stat.S_IFLNK:
            found[here] = (*common, os.readlink(path))
            continue
        extra: Entry = ()
        with contextlib.suppress(PermissionError):
            extra = tuple(
                (name, os.getxattr(path, name, follow_symlinks=False))
                for name in sorted(os.listxattr(path, follow_symlinks=False))
            )
        if kind != stat.S_IFDIR or directory_times:
            common = (*common, info.st_mtime_ns)
        common = (*common, extra)
        if kind == stat.S_IFDIR:
            found[here] = common
            for name in os.listdir(path):
                below = f"{here}/{name}" if here else name
                if below not in ignore:
                    todo.append(below)
            continue
        if info.st_nlink > 1:
            names.setdefault((info.st_dev, info.st_ino), []).append(here)
        if kind == stat.S_IFREG:
            with open(path, "rb") as file:
                found[here] = (*common, info.st_size, file.read())
        else:
            found[here] = (*common, info.st_rdev)
    found[SEEN] = tuple(sorted(tuple(sorted(group)) for group in names.values() if len(group) > 1))
    return found


def differences(
    source: Path,
    target: Path,
    *,
    ignore: Sequence[str] = (),
    directory_times: bool = True,
    links: bool = True,
    deletions: bool = True,
) -> list[str]:
    """Some of what is not equal, in words; empty when everything is.

    Not ``links``: whether names are joined is left out. Not ``deletions``: so is what the target alone has, and a name
    for which a directory of its own is in the way.
    """
    try:
        here, there = (snapshot(root, ignore=ignore, directory_times=directory_times) for root in (source, target))
    except OSError as error:
        return [ascii(str(error))]
    if not links:
        here[SEEN] = there[SEEN]
    if not deletions:
        in_the_way = {name for name, entry in there.items() if name != SEEN and _is_directory(entry)}
        here = {name: entry for name, entry in here.items() if name not in in_the_way or _is_directory(entry)}
        there = {name: entry for name, entry in there.items() if name in here}
    unequal = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    return [
        f"{'hard links' if name == SEEN else ascii(name)}: "
        f"{_short(here.get(name), there.get(name))} != {_short(there.get(name), here.get(name))}"
        for name in unequal[:SHOWN]
    ]


def _is_directory(entry: Entry) -> bool:
    return stat.S_ISDIR(int(str(entry[0]), 8))


def _short(entry: Entry | None, other: Entry | None) -> str:
    if entry is None:
        return "nothing"
    if other is None or len(entry) != len(other):
        return ascii([_brief(mine) for mine in entry])[:200]
    return ascii([_brief(mine) for mine, theirs in zip(entry, other, strict=True) if mine != theirs])[:300]


def _brief(value: object) -> object:
    """A value, but of a long content only what tells it from another: megabytes in words take longer than reading them."""
    if isinstance(value, bytes) and len(value) > 100:
        return f"{value[:30]!a}… {len(value)} bytes, CRC {zlib.crc32(value):08x}"
    return value
