"""The directories behind links that are watched along with a place: what each link leads to, now and some time later.

Each such directory is a part of the place, under the link's path, with a monitor of its own. What is found behind a
link may hold links as well. A directory that holds one of the links on the way to it is never a part, nor is one that
holds that again: so there is an end to it. Directories are known by device and inode, not by name.
"""

from __future__ import annotations

import logging
import os
import resource
import select
import stat
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from instep.daemon.handlers.sight import OwnSight
from instep.errors import OperatorError
from instep.linux.openat import open_directory
from instep.logs import fields
from instep.paths import ROOT, RelPath, is_within
from instep.ports import Following, Place

log = logging.getLogger(__name__)

FOLLOWED_MAX: Final = 1_000
"""Or fewer: each takes an inotify instance, and half of those that a user may have are left to others."""
DESCRIPTORS_EACH: Final = 5
"""Of files, that one takes; half of those that the process may have are left to all else."""
INSTANCES: Final = "/proc/sys/fs/inotify/max_user_instances"
INSTANCES_USUAL: Final = 128
"""Where that cannot be read: the kernel's default."""

Identity = tuple[int, int]
"""Device and inode."""


class Part:
    """One directory that is watched: the place itself, under no path, or what a link leads to."""

    def __init__(self, path: RelPath, place: Place, real: bytes, identity: Identity, way: frozenset[Identity]) -> None:
        """Nothing is opened.

        Args:
            path: where the link is; a directory above it may be renamed.
            place: what it is a part of.
            real: the directory.
            identity: its own.
            way: those of the directories that hold the links on the way, and of all above them.
        """
        self.path = path
        self.real = real
        self.identity = identity
        self.way = way
        self.is_new = True
        """Its monitor was never read."""
        self.is_armed = False
        """Its monitor has said that everything is watched."""
        self.is_open = False
        self._all = place.ignore
        self.sight = OwnSight(Place(real, self._ignore, place.one_file_system))

    def _ignore(self, path: RelPath, is_dir: bool) -> bool:  # noqa: FBT001  # as ports.Place has it
        return self._all(joined(self.path, path), is_dir)


class Looked(NamedTuple):
    """What became of one link."""

    was: bool
    """It was followed before."""
    now: bool
    """It is followed."""
    fresh: bool = False
    """It is, and was not, or led elsewhere: all behind it is new."""


class _Refusal(Exception):
    """Why a directory cannot be followed."""


class Followed:
    """The parts of one place."""

    def __init__(self, place: Place, following: Following) -> None:
        """Nothing is opened."""
        self._place = place
        self._following = following
        self.parts: dict[RelPath, Part] = {}
        self._idle: set[RelPath] = set()  # links that lead to no directory now, or to none that may be followed
        self._said: set[str] = set()
        self._most = 0
        self.epoll: select.epoll | None = None

    def open(self) -> None:
        """Watch the place, and what its links lead to.

        Raises:
            OperatorError: the place itself cannot be watched.
        """
        self.epoll = select.epoll()
        self._most = _most()
        self._add(Part(ROOT, self._place, self._place.root, _identity(os.stat(self._place.root)), frozenset()))
        self.scan(ROOT)

    def close(self) -> None:
        """Watch nothing any more; may be called twice."""
        self.drop(ROOT)
        if self.epoll is not None:
            self.epoll.close()
            self.epoll = None

    def is_idle(self, path: RelPath) -> bool:
        """Whether a link is there that might be followed, but for where it leads."""
        return path in self._idle

    def links(self) -> list[RelPath]:
        """Those that may lead elsewhere than before without anything happening to them."""
        return [path for path in (*self.parts, *self._idle) if path]

    def listed(self, path: RelPath) -> Sequence[tuple[bytes, bool]]:
        """The names in a directory, each with whether it is a directory, or a link that is followed."""
        part, below = self._part(path)
        return [(name, is_dir or joined(path, name) in self.parts) for name, is_dir in part.sight.listed(below)]

    def look(self, path: RelPath) -> Looked:
        """See what a path leads to now, and follow that if it is to be. What lies behind is not looked at yet."""
        before = self.parts.get(path)
        self._idle.discard(path)
        try:
            found = self._found(path)
            if found is not None and before is not None and found.identity == before.identity:
                return Looked(was=True, now=True)
            self.drop(path)
            if found is not None:
                self._add(found)
        except _Refusal as refusal:
            self.drop(path)
            if len(self._idle) < FOLLOWED_MAX:
                self._idle.add(path)
            self._say(path, str(refusal))
            return Looked(before is not None, now=False)
        return Looked(before is not None, found is not None, fresh=found is not None)

    def scan(self, path: RelPath) -> None:
        """Look at all links in and below a directory."""
        todo = [path]
        while todo:
            here = todo.pop()
            for name, is_link in self._inside(here):
                below = joined(here, name)
                if self.look(below).fresh if is_link else not self._place.ignore(below, True):
                    todo.append(below)

    def drop(self, path: RelPath) -> None:
        """What was here is gone: nothing is followed here or below any more."""
        for below in [each for each in self.parts if is_within(each, path)]:
            part = self.parts.pop(below)
            if part.is_open:
                assert self.epoll is not None
                self.epoll.unregister(part.sight.monitor.fileno())
                part.is_open = False
            part.sight.close()
        self._idle = {each for each in self._idle if not is_within(each, path)}

    def moved(self, old: RelPath, new: RelPath) -> None:
        """A directory has another name: so have the links in it, unless they are of no interest there."""
        if self._place.ignore(new, True):
            self.drop(old)
            return
        for path in [each for each in self.parts if is_within(each, old)]:
            part = self.parts.pop(path)
            part.path = RelPath(new + path[len(old) :])
            self.parts[part.path] = part
        self._idle = {RelPath(new + each[len(old) :]) if is_within(each, old) else each for each in self._idle}

    # ---- one link ----

    def _part(self, path: RelPath) -> tuple[Part, RelPath]:
        """The part that a path is in, or is; and the path in it."""
        above: bytes = path
        while above not in self.parts:
            above = os.path.dirname(above)
        return self.parts[RelPath(above)], RelPath(path[len(above) :].lstrip(b"/"))

    def _found(self, path: RelPath) -> Part | None:
        """What a link leads to, to be followed; None if that is no directory, or no link that counts.

        Raises:
            _Refusal: it might be followed, but not now; silent where there is nothing.
        """
        directory, name = os.path.split(path)
        holder, below = self._part(RelPath(directory))
        try:
            fd = open_directory(holder.sight.root, below)
        except OSError:
            return None
        try:
            text = os.readlink(name, dir_fd=fd)
            if not self._following.wanted(path, text) or self._place.ignore(path, True):
                return None
            try:
                found = os.stat(name, dir_fd=fd)
            except OSError:
                raise _Refusal from None
            if not stat.S_ISDIR(found.st_mode):
                return None
            here = b"/proc/self/fd/%d" % fd
            way = holder.way | _above(os.path.realpath(here))
            real = os.path.realpath(os.path.join(here, name))
        except OSError:
            return None
        finally:
            os.close(fd)
        identity = _identity(found)
        self._check(path, real, identity, way)
        return Part(path, self._place, real, identity, way)

    def _check(self, path: RelPath, real: bytes, identity: Identity, way: frozenset[Identity]) -> None:
        if identity in way:
            raise _Refusal("it holds the link: following it would go round in circles")
        above = _above(real)
        for apart in self._following.apart:
            if identity in _above(os.path.realpath(apart)) or _known(apart) in above:
                raise _Refusal("it holds the target, or lies in it: each change would bring about the next")
        if len(self.parts) > self._most and path not in self.parts:
            raise _Refusal(f"more than {self._most} directories: see fs.inotify.max_user_instances, and ulimit -n")

    def _add(self, part: Part) -> None:
        try:
            part.sight.open()
        except (OperatorError, OSError) as error:
            part.sight.close()
            if not part.path:
                raise
            raise _Refusal(error.what if isinstance(error, OperatorError) else str(error.strerror)) from error
        if part.path and _identity(os.fstat(part.sight.root)) != part.identity:
            part.sight.close()
            raise _Refusal  # It was replaced meanwhile; it is looked at again.
        assert self.epoll is not None
        self.epoll.register(part.sight.monitor.fileno(), select.EPOLLIN)
        part.is_open = True
        self.parts[part.path] = part

    def _inside(self, path: RelPath) -> Iterator[tuple[bytes, bool]]:
        """The links and directories in a directory: the name, and whether it is a link."""
        part, below = self._part(path)
        try:
            fd = open_directory(part.sight.root, below)
        except OSError:
            return
        try:
            with os.scandir(fd) as entries:
                found = [
                    (os.fsencode(entry.name), entry.is_symlink())
                    for entry in entries
                    if entry.is_symlink() or entry.is_dir(follow_symlinks=False)
                ]
        except OSError:
            return
        finally:
            os.close(fd)
        yield from found

    def _say(self, path: RelPath, reason: str) -> None:
        # Of a limit once, however many links there are.
        key = reason if "more than" in reason else f"{reason}\0{os.fsdecode(path)}"
        if reason and key not in self._said and len(self._said) <= FOLLOWED_MAX:
            self._said.add(key)
            log.warning(
                "link-not-followed",
                extra=fields(
                    source=self._place.root, path=path, reason=reason, now="what changes behind it is not noticed"
                ),
            )


def _most() -> int:
    """How many directories may be followed."""
    try:
        with open(INSTANCES, encoding="ascii") as file:
            instances = int(file.read())
    except (OSError, ValueError):
        instances = INSTANCES_USUAL
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(FOLLOWED_MAX, instances // 2, descriptors // 2 // DESCRIPTORS_EACH)


def joined(above: bytes, name: bytes) -> RelPath:
    """A path below another; either may be empty."""
    return RelPath(above + b"/" + name if above and name else above or name)


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def _known(path: bytes) -> Identity | None:
    try:
        return _identity(os.stat(path))
    except OSError:
        return None


def _above(path: bytes) -> frozenset[Identity]:
    """Those of a directory, and of all that hold it, as far as they are there."""
    found = {_known(path)}
    while path != b"/":
        path = os.path.dirname(path)
        found.add(_known(path))
    return frozenset(each for each in found if each is not None)
