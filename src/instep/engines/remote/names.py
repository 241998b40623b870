"""The source's side of single names: reads what is there now, and says it in operations.

Nothing is followed, and whatever is read was opened relative to a directory descriptor. Used by one thread at a time.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from instep.engines.remote import agent
from instep.engines.remote.contents import Contents
from instep.engines.remote.request import Frame, Item, Sent, Task
from instep.engines.remote.session import INLINE_BYTES, VERIFY_BYTES, Session, join

READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
RACES_MAX = 3
PAGE_BYTES = 4096
"""No hole is smaller."""
VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ESTALE})


class Large(NamedTuple):
    """A file that does not fit into a frame."""

    path: bytes
    size: int
    item: Item
    equal: bool
    """Most likely the target has it already: compare first."""


class Linked(NamedTuple):
    """One of several names of a file, fifo, socket or device."""

    path: bytes
    inode: tuple[int, int]
    names: int
    content: bool


class Found:
    """What was met besides what went into frames; emptied by whoever takes it."""

    def __init__(self) -> None:
        self.failures: list[tuple[bytes, str]] = []
        self.large: list[Large] = []
        self.linked: list[Linked] = []
        self.touched: dict[bytes, None] = {}
        self.compared = 0
        self.kept = 0
        """Names that both sides have."""
        self.directories = 0
        self.planned: list[str] = []
        self.unsure: list[bytes] = []
        """Nothing was deleted there: what the source lacks may be on a file system that has just been unmounted."""


def is_plain(info: os.stat_result) -> bool:
    """Whether it is a regular file that fits into a frame, with one name and without holes worth keeping."""
    size = info.st_size
    return (
        info.st_mode & 0o170000 == stat.S_IFREG
        and info.st_nlink == 1
        and size < INLINE_BYTES
        and (size <= PAGE_BYTES or info.st_blocks * 512 >= size)
    )


def read_whole(
    session: Session, fd: int, info: os.stat_result, contents: Contents | None
) -> tuple[bytes, bytes] | None:
    """Attributes and content of an open file that was like ``info``; None when it is being written to.

    ``contents``: shared with the other targets.
    """
    for_root = session.far.is_root
    if contents is not None:
        kept = contents.get(info, for_root=for_root)
        if kept is not None:
            return kept
    data = os.pread(fd, info.st_size + 1, 0)
    head = session.raw_attributes(info, session.xattrs(fd))
    after = os.fstat(fd)
    if len(data) != info.st_size or after.st_ctime_ns != info.st_ctime_ns or after.st_mtime_ns != info.st_mtime_ns:
        return None
    if contents is not None:
        contents.put(info, head, data, for_root=for_root)
    return head, data


class Names:
    """Says in operations what single names of the source are: in ``frame``; whatever else was met, in ``found``."""

    def __init__(self, session: Session, contents: Contents | None) -> None:
        self.session = session
        self.frame = Frame()
        self.found = Found()
        self.is_full = False
        """The target has no room: nothing that needs any is sent."""
        self._contents = contents
        self._opened: dict[bytes, int] = {}

    def close_directories(self) -> None:
        """Let go of the directories that were opened for single names: held longer, they could be moved elsewhere."""
        for fd in self._opened.values():
            os.close(fd)
        self._opened.clear()

    def name(self, item: Item) -> None:
        """One name: what it is now, or that it is gone."""
        parent, _, name = item.path.rpartition(b"/")
        try:
            directory = self._open(parent)
        except OSError as error:
            if error.errno not in VANISHED:
                self.failed(item.path, error, "cannot open its directory in the source")
            elif item.task is Task.UNFILLED:
                self._gone(item, parent, name)  # What is above may be there again when its own report comes.
            return  # An ancestor is gone: that has a report of its own.
        named = item._replace(task=Task.NAME) if item.task is Task.UNFILLED else item
        for attempt in range(RACES_MAX):
            try:
                info = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                self._gone(item, parent, name)
                return
            except OSError as error:
                self.failed(item.path, error, "cannot read the source")
                return
            if self.session.filter.leaves_out(item.path, is_dir=stat.S_ISDIR(info.st_mode)):
                self._gone(item, parent, name)
                return
            try:
                self._bring(named, directory, parent, name, info)
            except OSError as error:
                if error.errno in VANISHED and attempt < RACES_MAX - 1:
                    continue
                self.failed(item.path, error, "cannot read the source")
            return

    def _gone(self, item: Item, parent: bytes, name: bytes) -> None:
        settings = self.session.settings
        if settings.delete or (item.task is Task.UNFILLED and not settings.dry_run):
            mounted = self.session.mounted
            if mounted.mounts and not mounted.vouches(item.path):
                self.found.unsure.append(item.path)
                return
            # Where nothing may be deleted, the agent only forgets what waits out of sight.
            self.delete(item, parent, name)
        self.found.touched[parent] = None  # Even if it stays at the target: the source has another time since it went.

    def delete(self, item: Item, parent: bytes, name: bytes) -> None:
        """Remove a name at the target."""
        path = join(parent, name)
        if self.planned("delete ", path):
            return
        self.frame.enter(parent, item)
        flags = 0 if self.session.protects else agent.RECURSIVE
        self.frame.add(Sent(agent.DELETE, path, item), name, flags=flags)

    def _bring(self, item: Item, directory: int, parent: bytes, name: bytes, info: os.stat_result) -> None:
        """Say what the source has under this name. OSError when it is not what ``info`` says any more."""
        mode = info.st_mode
        kind = stat.S_IFMT(mode)
        if kind == stat.S_IFREG:
            self.file(item, directory, parent, name, info)
        elif kind == stat.S_IFDIR:
            if self.planned("make ", item.path):
                return
            self.frame.enter(parent, item)
            self.frame.add(Sent(agent.MKDIR, item.path, item), name)
        else:
            self.special(item, directory, parent, name, info)
        # Even for attributes alone: with another time a small file is written anew over there.
        self.found.touched[parent] = None

    def file(
        self,
        item: Item,
        directory: int,
        parent: bytes,
        name: bytes,
        info: os.stat_result,
        *,
        probably_equal: bool = False,
        opened: int = -1,
    ) -> None:
        """A regular file; OSError when it is not what ``info`` says any more. ``opened``: it is open already."""
        path = item.path
        if not item.leads and self.note_links(path, info, content=item.content):
            return
        if self.is_full and info.st_size:
            return
        if info.st_size >= INLINE_BYTES:
            if not item.content and item.task is Task.NAME:
                self.meta(item, directory, parent, name)
            else:
                self.found.large.append(Large(path, info.st_size, item, probably_equal))
            return
        if self.planned("update ", path):
            return
        if probably_equal and info.st_size >= VERIFY_BYTES and item.task is not Task.WRITE:
            self._verify(item, directory, parent, name)
            return
        if opened >= 0:
            self._put(item, opened, info, parent, name)
            return
        opened = os.open(name, READ, dir_fd=directory)
        try:
            info = os.fstat(opened)
            if not stat.S_ISREG(info.st_mode) or info.st_size >= 2 * INLINE_BYTES:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))  # swapped since lstat: look again
            self._put(item, opened, info, parent, name)
        finally:
            os.close(opened)

    def note_links(self, path: bytes, info: os.stat_result, *, content: bool) -> bool:
        """Whether it is one of several names that are to be one at the target: they are brought over after all else."""
        if info.st_nlink < 2 or not self.session.settings.preserve.hard_links or not self._joins(info.st_mode):
            return False
        self.found.linked.append(Linked(path, (info.st_dev, info.st_ino), info.st_nlink, content))
        return True

    def _joins(self, mode: int) -> bool:
        return agent.may_be_joined(mode) and (stat.S_ISREG(mode) or self._may_make(stat.S_IFMT(mode)))

    def new(self, item: Item, directory: int, parent: bytes, name: bytes) -> None:
        """What was listed as a file and the target lacks; OSError when it is none any more."""
        opened = os.open(name, READ, dir_fd=directory)
        try:
            info = os.fstat(opened)
            if is_plain(info) and not self.is_full and not self.session.settings.dry_run:
                # The usual case, in few steps: this is most of what a first synchronisation does.
                found = read_whole(self.session, opened, info, self._contents)
                if found is not None:
                    head, data = found
                    self.frame.enter(parent, item)
                    sent = Sent(agent.PUT, item.path, item, len(data))
                    self.frame.add(sent, name, self.session.owned(head), data)
                    return
            elif not stat.S_ISREG(info.st_mode):
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            self.file(item, directory, parent, name, info, opened=opened)
        finally:
            os.close(opened)

    def _put(self, item: Item, fd: int, info: os.stat_result, parent: bytes, name: bytes) -> None:
        info, head, data, racy = self._read(fd, info)
        flags = agent.LINKED if info.st_nlink > 1 else 0
        if self.session.settings.preserve.sparse and len(data) > PAGE_BYTES and info.st_blocks * 512 < len(data):
            flags |= agent.SPARSE
        self.frame.enter(parent, item)
        sent = Sent(agent.PUT, item.path, item, len(data), racy)
        self.frame.add(sent, name, self.session.owned(head), data, flags=flags)

    def _read(self, fd: int, info: os.stat_result) -> tuple[os.stat_result, bytes, bytes, bool]:
        """fstat, attributes and content of a file; whether the content may hold parts of two versions."""
        for _ in range(RACES_MAX):
            found = read_whole(self.session, fd, info, self._contents)
            if found is not None:
                return info, *found, False
            info = os.fstat(fd)
        head = self.session.raw_attributes(info, self.session.xattrs(fd))
        return info, head, os.pread(fd, info.st_size, 0), True

    def meta(self, item: Item, directory: int, parent: bytes, name: bytes) -> None:
        """The attributes of a file whose content the target has."""
        fd = os.open(name, READ, dir_fd=directory)
        try:
            info = os.fstat(fd)
            head = self.session.attributes(info, self.session.xattrs(fd))
        finally:
            os.close(fd)
        path = join(parent, name)
        if self.planned("update ", path):
            return
        self.frame.enter(parent, item)
        flags = agent.LINKED if info.st_nlink > 1 else 0
        size = info.st_size.to_bytes(8, "little")
        self.frame.add(Sent(agent.META, path, item), name, head, size, flags=flags)

    def _verify(self, item: Item, directory: int, parent: bytes, name: bytes) -> None:
        """A digest of the content, which the target most likely has."""
        fd = os.open(name, READ, dir_fd=directory)
        try:
            info = os.fstat(fd)
            digest = self.session.far.digest(os.pread(fd, info.st_size + 1, 0))
            head = self.session.attributes(info, self.session.xattrs(fd))
        finally:
            os.close(fd)
        self.frame.enter(parent, item)
        flags = agent.LINKED if info.st_nlink > 1 else 0
        sent = Sent(agent.VERIFY, join(parent, name), item)
        self.frame.add(sent, name, head, info.st_size.to_bytes(8, "little"), digest, flags=flags)

    def link(self, leader: bytes, path: bytes) -> None:
        """Make ``path`` another name of what is at ``leader``, which the target has.

        Not if the source has no such name any more: that has a report of its own, and may have been dealt with.
        """
        parent, _, name = path.rpartition(b"/")
        inode = self._inode(path)
        if inode is None or inode != self._inode(leader):
            return
        if self.planned("link ", path):
            return
        item = Item(Task.NAME, path, names=(leader,))
        self.frame.enter(parent, item)
        self.frame.add(Sent(agent.LINK, path, item), name, leader)
        self.found.touched[parent] = None

    def _inode(self, path: bytes) -> tuple[int, int] | None:
        parent, _, name = path.rpartition(b"/")
        try:
            info = os.stat(name, dir_fd=self._open(parent), follow_symlinks=False)
        except OSError:
            return None
        return info.st_dev, info.st_ino

    def special(self, item: Item, directory: int, parent: bytes, name: bytes, info: os.stat_result) -> None:
        """A symbolic link, device, fifo or socket. OSError when it is gone."""
        kind = stat.S_IFMT(info.st_mode)
        path = join(parent, name)
        if not item.leads and self.note_links(path, info, content=True):
            return
        xattrs = self.session.xattrs(f"/proc/self/fd/{directory}/{os.fsdecode(name)}")
        head = self.session.attributes(info, xattrs)
        if kind == stat.S_IFLNK:
            code, rest = agent.SYMLINK, os.readlink(name, dir_fd=directory)
        elif self._may_make(kind):
            code, rest = agent.NODE, info.st_rdev.to_bytes(8, "little")
        else:
            return
        if self.planned("update ", path):
            return
        self.frame.enter(parent, item)
        flags = agent.LINKED if info.st_nlink > 1 else 0
        self.frame.add(Sent(code, path, item), name, head, rest, flags=flags)

    def _may_make(self, kind: int) -> bool:
        """Devices need root over there; without it they are left out, as rsync does."""
        if not self.session.settings.preserve.devices:
            return False
        return self.session.far.is_root or kind not in (stat.S_IFCHR, stat.S_IFBLK)

    def directory(self, item: Item) -> None:
        """A directory's own attributes."""
        if self.session.settings.dry_run:
            return
        try:
            fd = self.session.open(item.path)
        except OSError as error:
            if error.errno not in VANISHED:
                self.failed(item.path, error, "cannot read the source directory")
            return
        try:
            self.own(item, fd)
        except OSError as error:
            self.failed(item.path, error, "cannot read the source directory")
        finally:
            os.close(fd)

    def own(self, item: Item, fd: int) -> None:
        """The attributes of an open directory."""
        if self.session.settings.dry_run:
            return
        head = self.session.attributes(os.fstat(fd), self.session.xattrs(fd))
        self.frame.enter(item.path, item)
        self.frame.add(Sent(agent.SELF, item.path, item), b"", head)

    def _open(self, parent: bytes) -> int:
        if not parent:
            return self.session.source
        fd = self._opened.get(parent)
        if fd is None:
            if len(self._opened) >= 128:
                os.close(self._opened.pop(next(iter(self._opened))))
            fd = self._opened[parent] = self.session.open(parent)
        return fd

    def failed(self, path: bytes, error: OSError, what: str) -> None:
        """This path cannot be read."""
        self.found.failures.append((path, f"{what}: {error.strerror}"))

    def planned(self, what: str, path: bytes) -> bool:
        """Dry run: only say it."""
        if self.session.settings.dry_run:
            self.found.planned.append(what + os.fsdecode(path))
            return True
        return False
