"""What a directory tree holds, in full, for comparing source with target."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from typing import NamedTuple

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry(NamedTuple):
    """All that a mirror must hold for one name."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    content: str | bytes
    """A file's size and digest, a link's text; empty for the rest."""
    rdev: int
    xattrs: tuple[tuple[str, bytes], ...]
    """ACLs included."""
    linked_to: bytes
    """For what has several names in the tree: the first of them. Symbolic links are as many as they have names."""


def snapshot(root: str | bytes, *, root_entry: bool = True) -> dict[bytes, Entry]:
    """Every name below ``root``, and ``root`` itself as ``b""``; paths may be longer than PATH_MAX."""
    found: dict[bytes, Entry] = {}
    names: dict[tuple[int, int], list[bytes]] = {}
    todo: list[tuple[bytes, int]] = [(b"", os.open(root, DIRECTORY))]
    if root_entry:
        found[b""] = _entry(todo[0][1], b".", names, b"")
    while todo:
        path, fd = todo.pop()
        try:
            for name in sorted(map(os.fsencode, os.listdir(fd))):
                whole = path + b"/" + name if path else name
                found[whole] = entry = _entry(fd, name, names, whole)
                if entry.kind == "directory":
                    todo.append((whole, os.open(name, DIRECTORY, dir_fd=fd)))
        finally:
            os.close(fd)
    for paths in names.values():
        if len(paths) > 1:
            first = min(paths)
            for path in paths:
                found[path] = found[path]._replace(linked_to=first)
    return found


def inodes(root: str | bytes) -> dict[bytes, tuple[int, int, int]]:
    """(device, inode, ctime_ns) of every name: tells whether anything at all was touched."""
    found: dict[bytes, tuple[int, int, int]] = {}
    for path, fd in walk(root):
        for name in map(os.fsencode, os.listdir(fd)):
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            found[path + b"/" + name if path else name] = (info.st_dev, info.st_ino, info.st_ctime_ns)
    return found


def walk(root: str | bytes) -> Iterator[tuple[bytes, int]]:
    """Every directory with an open descriptor, which is valid until the next step."""
    todo = [(b"", os.open(root, DIRECTORY))]
    while todo:
        path, fd = todo.pop()
        try:
            yield path, fd
            for name in map(os.fsencode, os.listdir(fd)):
                with contextlib.suppress(NotADirectoryError, FileNotFoundError):
                    todo.append((path + b"/" + name if path else name, os.open(name, DIRECTORY, dir_fd=fd)))
        finally:
            os.close(fd)


def difference(source: Mapping[bytes, Entry], target: Mapping[bytes, Entry]) -> list[str]:
    """What differs, one line a name and field; empty when the trees are equal."""
    lines = [f"{path!r} is missing in the target" for path in source.keys() - target.keys()]
    lines += [f"{path!r} is only in the target" for path in target.keys() - source.keys()]
    for path in source.keys() & target.keys():
        ours, theirs = source[path], target[path]
        lines += [
            f"{path!r} {field}: {getattr(ours, field)!r}, in the target {getattr(theirs, field)!r}"
            for field in Entry._fields
            if getattr(ours, field) != getattr(theirs, field)
        ]
    return sorted(lines)


def assert_equal(source: str | bytes, target: str | bytes) -> None:
    """Both trees hold the same, in every respect."""
    lines = difference(snapshot(source), snapshot(target))
    assert not lines, "\n".join(lines[:40])


def _entry(parent: int, name: bytes, names: dict[tuple[int, int], list[bytes]], whole: bytes) -> Entry:
    info = os.stat(name, dir_fd=parent, follow_symlinks=False)
    kind = stat.S_IFMT(info.st_mode)
    content: str | bytes = b""
    if kind == stat.S_IFREG:
        content = f"{info.st_size} {_digest(parent, name)}"
    elif kind == stat.S_IFLNK:
        content = os.readlink(name, dir_fd=parent)
    if info.st_nlink > 1 and kind not in (stat.S_IFDIR, stat.S_IFLNK):
        names.setdefault((info.st_dev, info.st_ino), []).append(whole)
    return Entry(
        KINDS[kind],
        stat.S_IMODE(info.st_mode),
        info.st_uid,
        info.st_gid,
        info.st_mtime_ns,
        content,
        info.st_rdev,
        _xattrs(b"/proc/self/fd/%d/%s" % (parent, name)),
        b"",
    )


def _digest(parent: int, name: bytes) -> str:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    except PermissionError:
        return "unreadable"
    digest = hashlib.blake2b(digest_size=16)
    with os.fdopen(fd, "rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def _xattrs(path: bytes) -> tuple[tuple[str, bytes], ...]:
    try:
        names = sorted(os.listxattr(path, follow_symlinks=False))
    except OSError:
        return ()
    return tuple(
        (name, os.getxattr(path, name, follow_symlinks=False))
        for name in names
        if not name.startswith("trusted.SGI_ACL")
    )
