"""Where, below the source root, the directories stand that fanotify names by handle.

Facts (open_by_handle_at(2), proc_pid_fd(5), measured on 6.18):

- A handle opened by way of a mount shows the path that the object has below that mount. What is not below it shows as
  exactly ``/``; so does a file (never a directory) for which the kernel has no name at hand.
- A directory that a mount hides still shows its path.
- An ancestor of the root may be renamed on another file system, without any event: paths are compared with what the
  root's descriptor shows now.
- A descriptor held open on a mount makes its umount fail with EBUSY: mounts below the root are opened per look-up.

A place once known stays known until ``forget``; the caller forgets everything at every rename of a directory. Rewriting
the old prefix to the new one would be wrong: renames merge in the kernel's queue, so replaying them ends elsewhere.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from typing import Literal, NamedTuple

from instep.linux.handles import file_system_id, open_handle, path_of
from instep.linux.openat import open_directory
from instep.paths import ROOT, RelPath

PLACES_MAX = 100_000
"""Directories remembered (168 bytes each, measured), then all are forgotten: looking one up again takes 8 to 19 us."""

_TRIES_MAX = 8
"""Looks at a path and its root that contradict each other, because something above is just being renamed; guessed."""


GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV})
"""What opening a directory says when something else, or nothing, stands there now."""


class _Doubt(Exception):
    """Something happened below the root, perhaps, and its place cannot be told."""


class Below(NamedTuple):
    """A mount below the root."""

    point: RelPath
    mount_id: int
    device: int
    file_system: bytes = b""
    """What events call it; empty: not watched."""
    seen_device: int = 0
    """``st_dev`` of its root: btrfs shows another number there than in the mount table."""
    why: str = ""
    """Why it is not watched, though it should be."""


class Places:
    """Remembers the path of every directory that was asked for.

    A place is what goes before a name: ``b""`` for the root itself, else a path with a trailing slash. Keys are the
    bytes of an event's record from the file system's id to the end of the handle.
    """

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        self.cache: dict[bytes, bytes | Literal[False]] = {}
        """Where a directory stands; False: outside. Directories that are seen at several places are not in it."""
        self.gone: set[bytes] = set()
        """Directories found to be removed. Whoever reads events empties it before each lot: those of the lot at hand
        happened before it was found out, but a later directory may, on some file systems, get the same handle."""
        self._several: dict[bytes, tuple[bytes, ...]] = {}
        self.parent_key: bytes | None = None
        """The directory that the root is an entry of, once something has happened in it."""
        self.root_gone = False
        """The root turned out to be removed."""
        self.doubt = ""
        """Why something could not be placed; set here, cleared by the caller, who then looks at everything."""
        self._bases: dict[RelPath, bytes] = {}
        self._below: tuple[Below, ...] = ()
        self._of_file_system: dict[bytes, tuple[Below, ...]] = {}
        self._root = Below(ROOT, -1, -1, file_system_id(root_fd), os.fstat(root_fd).st_dev)
        self.set_mounts(())

    def set_mounts(self, below: Iterable[Below]) -> None:
        """Look through these mounts too; forgets all places."""
        self._below = tuple(below)
        grouped: dict[bytes, list[Below]] = {self._root.file_system: [self._root]}
        for mount in self._below:
            if mount.file_system:
                grouped.setdefault(mount.file_system, []).append(mount)
        self._of_file_system = {file_system: tuple(mounts) for file_system, mounts in grouped.items()}
        self.forget()

    def forget(self) -> None:
        """Some directory has another path now."""
        self.cache.clear()
        self._several.clear()
        self._bases.clear()

    def forget_unless_outside(self, old: bytes | None, new: bytes | None) -> None:
        """A directory moved between these two. From outside to outside it changes no path that is reported.

        Our own copies at a target on the same file system do that all the time. Only the root may have got another
        path by it: then what is known relative to it stays right.
        """
        cache = self.cache
        if old is not None and new is not None and cache.get(old) is False and cache.get(new) is False:
            self._bases.clear()
        else:
            self.forget()

    def of(self, key: bytes) -> tuple[bytes, ...]:
        """The places of a directory; none when it is outside, hidden or gone."""
        known = self.cache.get(key)
        if known is not None:
            return () if known is False else (known,)
        several = self._several.get(key)
        if several is not None:
            return several
        if key in self.gone:
            return ()
        paths = self._find(key, is_directory=True)
        if paths is None:
            return ()
        places = tuple(path + b"/" if path else b"" for path in paths)
        if len(places) > 1:
            self._several[key] = places
        else:
            self.learn(key, places[0] if places else False)
        return places

    def learn(self, key: bytes, place: bytes | Literal[False]) -> None:
        """Remember what was found, or what an event said by itself."""
        if len(self.cache) >= PLACES_MAX:
            self.forget()
        self.cache[key] = place

    def of_file(self, key: bytes) -> tuple[RelPath, ...]:
        """The paths under which the kernel now knows this object, which need not be a directory."""
        return tuple(self._find(key, is_directory=False) or ())

    def _find(self, key: bytes, *, is_directory: bool) -> list[RelPath] | None:
        """Every path of the object; None when it is gone, or in doubt."""
        mounts = self._of_file_system.get(key[:8])
        if mounts is None:
            # Where the C library keeps half of the id only, it is never met; with one file system it is not needed.
            mounts = (self._root,) if len(self._of_file_system) == 1 else ()
        paths = []
        for mount in mounts:
            try:
                path = self._below_mount(mount, key, is_directory=is_directory)
            except OSError as error:
                if error.errno == errno.ESTALE:
                    self.gone.add(key)
                    return None  # Gone: that is an event of a directory above, which still has a path.
                self.doubt = error.strerror or str(error)
                return None
            except _Doubt as doubt:
                self.doubt = str(doubt)
                return None
            if path is not None:
                paths.append(path)
        return paths

    def _below_mount(self, mount: Below, key: bytes, *, is_directory: bool) -> RelPath | None:
        base_fd = self._root_fd
        if mount is not self._root:
            try:
                base_fd = open_directory(self._root_fd, mount.point)
            except OSError as error:
                if error.errno in GONE:
                    return None  # Unmounted or renamed: the mount table or a rename has that to say.
                raise
        try:
            if base_fd != self._root_fd and os.fstat(base_fd).st_dev != mount.seen_device:
                return None
            fd = open_handle(base_fd, key[8:])
            try:
                return self._relative(mount, key, fd, base_fd, is_directory=is_directory)
            finally:
                os.close(fd)
        finally:
            if base_fd != self._root_fd:
                os.close(base_fd)

    def _relative(self, mount: Below, key: bytes, fd: int, base_fd: int, *, is_directory: bool) -> RelPath | None:
        for _ in range(_TRIES_MAX):
            path = path_of(fd)
            if path is None:
                if not is_directory and os.fstat(fd).st_nlink:
                    raise _Doubt("a file whose other names are not known was written to")
                raise OSError(errno.ESTALE, "removed")
            base = self._bases.get(mount.point)
            if path == b"/":
                # Not below this mount, a file without a known name, or really the root of everything.
                if os.path.samestat(os.fstat(fd), os.fstat(base_fd)):
                    return mount.point
                if not is_directory:
                    raise _Doubt("a file whose name is not known was written to")
                return None
            if base is not None and (path + b"/").startswith(base):
                return self._unless_hidden(mount, path[len(base) :])
            now = path_of(base_fd)
            now = None if now is None else now.rstrip(b"/") + b"/"
            if now is None:
                self.root_gone |= mount is self._root
                return None
            if now == base:
                if mount is self._root and path == os.path.dirname(now[:-1]):
                    self.parent_key = key
                return None
            # Never seen, or moved since; or moved right now, so that both are to be looked at again.
            self._bases[mount.point] = now
        raise _Doubt("directories above are being renamed")

    def _unless_hidden(self, mount: Below, inner: bytes) -> RelPath | None:
        path = RelPath(mount.point + b"/" + inner if mount.point and inner else mount.point or inner)
        owner = mount.point
        for other in self._below:
            point = other.point
            if len(point) > len(owner) and (path == point or path.startswith(point + b"/")):
                owner = point
        return path if owner == mount.point else None
