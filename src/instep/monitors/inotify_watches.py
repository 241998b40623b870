"""Keeping one inotify watch on every directory below the root, while the tree is being changed by others.

The order that loses nothing: watch, then list. Whatever appears before the watch is in the list, whatever appears after
it is in the queue. What was found is attached in slices of a few milliseconds; the events read in between may move or
drop the directories a job has still to visit, so a job holds nodes and asks each for its path at the moment it is due.

A name is believed only together with the identity of the directory it stands in: ``..`` of what was opened must be the
parent as we know it. So a rename whose event is still queued, or a link swapped in on the way (which ``openat2``
refuses anyway), never puts a watch under a wrong path or outside the tree: the place goes on ``_stale`` and is tried
again when the queue has been read.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence

from instep.linux import inotify
from instep.linux.openat import open_directory
from instep.logs import fields
from instep.model import Report
from instep.monitors.inotify_tree import BLIND, DEAD, Node, Tree, below
from instep.paths import ROOT, RelPath, Scope

log = logging.getLogger(__name__)

# Our own scans cause no event of these: no IN_OPEN, IN_ACCESS or IN_CLOSE_NOWRITE among them. IN_MODIFY is needed for
# truncate(2) by path, IN_CREATE counts as content for O_TMPFILE files that get their name when they are complete.
MASK = (
    inotify.IN_MODIFY | inotify.IN_ATTRIB | inotify.IN_CLOSE_WRITE | inotify.IN_MOVED_FROM | inotify.IN_MOVED_TO
    | inotify.IN_CREATE | inotify.IN_DELETE | inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF | inotify.IN_ONLYDIR
)  # fmt: skip

STALE_TRIES = 3
"""Tries at a place before the first directory above it that is not what we know is attached anew. A guess."""
STALE_WAIT_S = 0.001
UNREADABLE_LOGGED_MAX = 100

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_PASSING = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EXDEV, errno.EAGAIN})
_LIMIT = "the kernel allows no more inotify watches"
_TWICE = "the same directory is seen at another place (bind mount)"


class Job:
    """One place to be brought under watch, with all below it."""

    __slots__ = ("again", "content", "counted", "full", "name", "parent", "quiet", "stack", "stale", "top", "tries")

    def __init__(
        self, parent: Node | None, name: bytes, *, quiet: bool = False, content: bool = True, tries: int = 0
    ) -> None:
        self.parent = parent
        """None for a job on the root."""
        self.name = name
        self.quiet = quiet
        """Only verifies: what is found in order is not reported."""
        self.content = content
        self.tries = tries
        self.top: Node | None = None
        self.stack: list[Node | RelPath] | None = None
        """Still to visit; a path is a directory below one that found no watch, visited only to be counted."""
        self.stale = False
        self.full = False
        self.counted = 0
        self.again: list[RelPath] = []
        """To report with content when this is done: places that hold another directory than before."""


class Watches:
    """The watches of one kernel queue; works off its jobs in slices."""

    def __init__(
        self, root: int, *, one_file_system: bool, ignore: Callable[[RelPath, bool], bool] | None, rescan_s: float
    ) -> None:
        self.tree = Tree()
        self.todo: deque[Job] = deque()
        self.verify: deque[Job] = deque()
        self.queue = -1
        self._root = root
        root_stat = os.fstat(root)
        self._root_dev = root_stat.st_dev
        self._one_file_system = one_file_system
        self._ignore = ignore
        self._rescan_s = rescan_s
        self._rescan_at_s = 0.0
        self._stale: dict[tuple[Node, bytes], int] = {}
        self._stale_at_s = 0.0
        self._unwatched: dict[Node, str] = {}
        self._unreadable: dict[Node, str] = {}
        self._unreadable_logged: set[bytes] = set()
        self._limit_logged = False

    # What the events ask for.

    def attach(self, parent: Node, name: bytes) -> None:
        """A directory has come, or may have come, to this place: watch it and report it when that is done."""
        self.todo.append(Job(parent, name))

    def recheck(self, parent: Node, name: bytes) -> None:
        """See whether the node at this place is still right; report only what is not."""
        self.verify.append(Job(parent, name, quiet=True))

    def attach_root(self, again: Sequence[RelPath] = ()) -> None:
        """Attach the whole tree, for a new kernel queue; all reports that were due are in the one for the root."""
        job = Job(None, b"", content=False)
        job.again.extend(again)
        self.todo.append(job)

    def renew(self, ignore: Callable[[RelPath, bool], bool] | None) -> None:
        """Other directories are ignored, once the whole tree has been attached again."""
        self._ignore = ignore

    def reset(self, queue: int) -> list[RelPath]:
        """Start anew with another kernel queue; the places whose reports were still due."""
        due = [below(job.parent.path(), job.name) for job in self.todo if job.parent is not None and job.content]
        due += [below(parent.path(), name) for parent, name in self._stale]
        due += [path for job in self.todo for path in job.again]
        self.queue = queue
        self.tree.watched.clear()
        self.tree.dropped.clear()
        for known in (self.todo, self.verify, self._stale, self._unwatched, self._unreadable):
            known.clear()
        return due

    def moved(self, node: Node, parent: Node, name: bytes) -> bool:
        """Hang a node on its new name if its directory is really there; with all watches below it that is one step."""
        if node.flags & DEAD or not self._is_at(node, parent, name) or not self.tree.relink(node, parent, name):
            return False
        # Below it something may be due under names that have meanwhile changed, or be ignored no more.
        self.recheck(parent, name)
        return True

    # When to be called.

    def is_busy(self) -> bool:
        """Whether there is work that can go on now."""
        return bool(self.todo or self.verify or self.tree.dropped)

    def is_settled(self) -> bool:
        """Whether all that was asked for has been done."""
        return not (self.todo or self.verify or self._stale or self.tree.dropped)

    def wants_time(self) -> bool:
        """Whether something waits for its time."""
        return bool(self._stale or self._unwatched)

    def wake_s(self, now_s: float) -> float | None:
        """When ``work`` has something to do, if no event comes."""
        if self.todo or self.verify or self.tree.dropped:
            return 0.0
        if self._stale:
            return max(0.0, self._stale_at_s - now_s)
        if self._unwatched:
            return max(0.0, self._rescan_at_s - now_s)
        return None

    def due_again(self, now_s: float) -> None:
        """Turn what waited for its time into work. To be called when the kernel queue has been seen empty."""
        if self._stale and now_s >= self._stale_at_s:
            stale, self._stale = self._stale, {}
            for (parent, name), tries in stale.items():
                if parent.is_alive():
                    place = self._first_wrong(parent) if tries >= STALE_TRIES else None
                    self.todo.append(Job(*(place or (parent, name)), tries=tries))
        if self._unwatched and now_s >= self._rescan_at_s:
            self._rescan_at_s = now_s + self._rescan_s
            for node in self._unwatched:
                if node.parent is not None:
                    self.todo.append(Job(node.parent, node.name, content=False))
                else:
                    self.attach_root()

    def trouble(self) -> list[str]:
        """What is not watched now, and why, a line each."""
        known = (*self._unwatched.items(), *self._unreadable.items())
        return [f"{os.fsdecode(node.path()) or '.'!r}: {why}" for node, why in known[:UNREADABLE_LOGGED_MAX]]

    # The work.

    def work(self, out: list[Report], until_s: float) -> None:
        """Go on with the jobs until none is left or it is too late."""
        monotonic = time.monotonic
        while True:
            if self.todo or self.verify:
                jobs = self.todo or self.verify
                job = jobs[0]
                finished = False
                while not finished:
                    finished = self._step(job)
                    if monotonic() >= until_s:
                        break
                if finished:
                    jobs.popleft()
                    self._finish(job, out)
                else:
                    jobs.rotate(-1)  # A big directory that comes in does not hold up the small ones.
            elif self.tree.dropped:
                self._give_back(until_s)
            else:
                return
            if monotonic() >= until_s:
                return

    def _step(self, job: Job) -> bool:
        """Visit one directory; True when the job is done."""
        if job.stack is None:
            top = self._begin(job)
            if top is None:
                return True
            job.top = top
            job.stack = [top]
        if not job.stack:
            return True
        node = job.stack.pop()
        if not isinstance(node, Node):
            self._count(node, job)
        elif node.is_alive():
            self._visit(node, job)
        return not job.stack

    def _begin(self, job: Job) -> Node | None:
        parent = job.parent
        if parent is None:
            return self.tree.top
        if not parent.is_alive():
            return None
        node = parent.kid(job.name)
        if node is None and not job.quiet and not self._is_ignored(below(parent.path(), job.name)):
            node = self.tree.add(parent, job.name)
        return node

    def _is_ignored(self, path: RelPath) -> bool:
        return self._ignore is not None and self._ignore(path, True)

    def _visit(self, node: Node, job: Job) -> None:
        """Watch one directory, then list it, and put the directories in it on the stack."""
        path = node.path()
        try:
            fd = open_directory(self._root, path)
        except OSError as error:
            self._not_opened(node, job, error)
            return
        try:
            stat = os.fstat(fd)
            parent = node.parent
            if parent is not None and not _is_in(fd, parent):
                self._put_off(node, job)
                return
            if self._one_file_system and stat.st_dev != self._root_dev:
                self.tree.drop(node)
                return
            fresh = not self.tree.is_watched(node)
            wd = self._watch(fd)
            if wd is None:
                self._no_watch(node, stat, fd, job, path)
                return
            owner = self.tree.watched.get(wd)
            if owner is not node:
                taken = self._take(node, owner, wd, stat, job)
                if taken is None:
                    return
                # Its reports came under the name it had: whatever stands here is not what stood here.
                fresh = fresh or taken is not node
                node = taken
            changed = self.tree.identify(node, stat.st_dev, stat.st_ino)
            names = self._list(fd)
        except OSError as error:
            self._not_opened(node, job, error)
            return
        finally:
            os.close(fd)
        if self._unwatched or self._unreadable or node.flags:
            self._unwatched.pop(node, None)
            self._unreadable.pop(node, None)
            node.flags &= ~BLIND
        assert job.stack is not None
        stack = job.stack
        if job.quiet:
            if fresh or changed:
                stack = self._report_too(node)
        elif changed and job.parent is None:
            job.again.append(path)
        self._push_kids(node, path, names, stack)

    def _push_kids(self, node: Node, path: RelPath, names: list[bytes], stack: list[Node | RelPath]) -> None:
        kids = node.kids
        if kids is not None:
            listed = set(names)
            for kid in [kid for name, kid in kids.items() if name not in listed]:
                self.tree.drop(kid)
            kids = node.kids
        for name in names:
            kid_known = None if kids is None else kids.get(name)
            if self._ignore is not None and self._ignore(below(path, name), True):
                if kid_known is not None:
                    self.tree.drop(kid_known)  # Its name came under a rule, or the rule over its name.
                    kids = node.kids
            elif kid_known is not None:
                stack.append(kid_known)
            else:
                stack.append(self.tree.add(node, name))
                kids = node.kids

    def _report_too(self, node: Node) -> list[Node | RelPath]:
        """A verified place that was not right becomes a job of its own, with a report."""
        job = Job(node.parent, node.name)
        job.top = node
        job.stack = []
        self.todo.append(job)
        return job.stack

    def _watch(self, fd: int) -> int | None:
        """The watch descriptor, or None at the limit."""
        try:
            return inotify.add_watch(self.queue, fd, MASK)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        if not self.tree.dropped:
            return None
        self._give_back(float("inf"))
        return self._watch(fd)

    def _take(self, node: Node, owner: Node | None, wd: int, stat: os.stat_result, job: Job) -> Node | None:
        """Give a descriptor to the node of this place; when another node has it, that one has moved here."""
        tree = self.tree
        if owner is not None and owner.is_alive():
            if node.parent is None or self._is_still(owner, stat):
                # A bind mount shows one directory at two places, but a watch belongs to the directory.
                self._unwatched[node] = _TWICE
                self._drop_kids(node)
                self._rescan_soon()
                return None
            old_parent, old_name = owner.parent, owner.name
            if not tree.relink(owner, node.parent, node.name):
                # By what we know it stands above itself: the events that explain it are on their way.
                assert old_parent is not None
                self._stale.setdefault((old_parent, old_name), job.tries)
                return None
            if job.top is node:
                job.top = owner
            return owner
        if tree.is_watched(node):
            del tree.watched[node.wd]
            inotify.remove_watch(self.queue, node.wd)
        node.wd = wd
        tree.watched[wd] = node
        return node

    def _is_still(self, node: Node, stat: os.stat_result) -> bool:
        try:
            fd = open_directory(self._root, node.path())
        except OSError:
            return False
        try:
            there = os.fstat(fd)
        finally:
            os.close(fd)
        return there.st_ino == stat.st_ino and there.st_dev == stat.st_dev

    def _list(self, fd: int) -> list[bytes]:
        """The names of the directories in a directory; links are none."""
        with os.scandir(fd) as entries:
            return [os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]

    def _no_watch(self, node: Node, stat: os.stat_result, fd: int, job: Job, path: RelPath) -> None:
        """The limit is reached: remember the place for the rescan, count what is below for the advice."""
        self.tree.identify(node, stat.st_dev, stat.st_ino)
        self._drop_kids(node)
        self._unwatched[node] = _LIMIT
        self._rescan_soon()
        job.full = True
        job.counted += 1
        assert job.stack is not None
        job.stack.extend(below(path, name) for name in self._list(fd))

    def _count(self, path: RelPath, job: Job) -> None:
        assert job.stack is not None
        job.counted += 1
        try:
            fd = open_directory(self._root, path)
        except OSError:
            return
        try:
            job.stack.extend(below(path, name) for name in self._list(fd))
        except OSError:
            pass
        finally:
            os.close(fd)

    def _rescan_soon(self) -> None:
        if self._rescan_at_s <= time.monotonic():
            self._rescan_at_s = time.monotonic() + self._rescan_s

    def _drop_kids(self, node: Node) -> None:
        for kid in list((node.kids or {}).values()):
            self.tree.drop(kid)

    def _not_opened(self, node: Node, job: Job, error: OSError) -> None:
        if error.errno in _GONE and node.parent is not None:
            gone = self._is_gone(node.parent, node.name)
            if gone is None:
                self._block(node, "permission denied")
            elif gone:
                self.tree.drop(node)
            else:
                self._put_off(node, job)
        elif error.errno in _PASSING and node.parent is not None:
            self._put_off(node, job)
        else:
            self._block(node, os.strerror(error.errno or 0).lower())

    def _is_gone(self, parent: Node, name: bytes) -> bool | None:
        """Whether no directory has this name in this very parent; False also when in doubt; None: may not look."""
        try:
            fd = open_directory(self._root, parent.path())
        except OSError as error:
            return None if error.errno == errno.EACCES else False
        try:
            there = os.fstat(fd)
            if there.st_ino != parent.ino or there.st_dev != parent.dev:
                return False
            # That a directory stands there again is as much in doubt: it is tried anew.
            return not _is_directory(os.stat(name, dir_fd=fd, follow_symlinks=False))
        except FileNotFoundError:
            return True
        except PermissionError:
            return None
        finally:
            os.close(fd)

    def _is_at(self, node: Node, parent: Node, name: bytes) -> bool:
        """Whether the very directory of a node stands at a place."""
        path = below(parent.path(), name)
        if not parent.is_alive() or self._is_ignored(path):
            return False
        try:
            fd = open_directory(self._root, path)
        except OSError:
            return False
        try:
            there = os.fstat(fd)
            return there.st_ino == node.ino and there.st_dev == node.dev and _is_in(fd, parent)
        finally:
            os.close(fd)

    def _put_off(self, node: Node, job: Job) -> None:
        """The place is not what the events so far say: others are queued that will explain it."""
        assert node.parent is not None
        if job.top is node:
            job.stale = True
        self._stale[node.parent, node.name] = job.tries + 1
        self._stale_at_s = time.monotonic() + STALE_WAIT_S * (1 << min(job.tries, 8))

    def _first_wrong(self, node: Node) -> tuple[Node, bytes] | None:
        """From the root down to a node, the first place that does not hold the directory we know."""
        chain: list[Node] = []
        here: Node | None = node
        while here is not None:
            chain.append(here)
            here = here.parent
        for known in reversed(chain[:-1]):
            try:
                fd = open_directory(self._root, known.path())
            except OSError:
                break
            try:
                stat = os.fstat(fd)
            finally:
                os.close(fd)
            if stat.st_ino != known.ino or stat.st_dev != known.dev:
                break
        else:
            return None
        assert known.parent is not None
        return known.parent, known.name

    def _block(self, node: Node, why: str) -> None:
        """It cannot be opened: a change of its mode, or of one above it, will bring it up again."""
        self._unreadable[node] = why
        self.tree.mark_blind(node)
        path = node.path()
        if path not in self._unreadable_logged and len(self._unreadable_logged) < UNREADABLE_LOGGED_MAX:
            self._unreadable_logged.add(path)
            log.warning(
                "directory-unreadable",
                extra=fields(
                    path=path,
                    reason=why,
                    now="changes in it are not seen until it can be read",
                    fix="let the user that instep runs as read and search it, or exclude it",
                ),
            )

    def _give_back(self, until_s: float) -> None:
        """Give the watches of dropped directories back to the kernel.

        Each one given back puts an IN_IGNORED into the queue, so a large tree given back at once would overflow it.
        """
        tree, stack = self.tree, self.tree.dropped
        monotonic = time.monotonic
        while stack:
            node = stack.pop()
            node.flags |= DEAD
            if node.kids is not None:
                for kid in node.kids.values():
                    kid.flags |= DEAD
                    stack.append(kid)
                node.kids = None
            if tree.watched.get(node.wd) is node:
                del tree.watched[node.wd]
                inotify.remove_watch(self.queue, node.wd)
            self._unwatched.pop(node, None)
            self._unreadable.pop(node, None)
            if monotonic() >= until_s:
                return

    def _finish(self, job: Job, out: list[Report]) -> None:
        if job.full or self._limit_logged:
            self._tell_limit(job)
        if job.quiet or job.stale:
            return
        top = job.top
        if job.parent is None:
            out.append(Report(ROOT, Scope.TREE, content=False, is_dir=True))
        elif top is not None and top.is_alive():
            out.append(Report(top.path(), Scope.TREE, content=job.content, is_dir=True))
        elif job.parent.is_alive():
            out.append(Report(below(job.parent.path(), job.name), Scope.TREE, content=job.content, is_dir=True))
        out.extend(Report(path, Scope.TREE, content=True, is_dir=True) for path in job.again)

    def _tell_limit(self, job: Job) -> None:
        at_limit = sum(why is _LIMIT for why in self._unwatched.values())
        if at_limit and not self._limit_logged:
            self._limit_logged = True
            limit, setting = watch_limit()
            log.warning(
                "watch-limit-reached",
                extra=fields(
                    limit=limit,
                    now=f"changes in {job.counted} directories are found by a rescan every {self._rescan_s:.0f} s",
                    fix=f"raise {setting} (now {limit}; this tree needs about {len(self.tree.watched) + job.counted})",
                ),
            )
        elif not at_limit and not job.full and self._limit_logged:
            self._limit_logged = False
            log.warning("watch-limit-healed", extra=fields(now="every directory is watched again"))


def _is_in(fd: int, parent: Node) -> bool:
    """Whether the directory that holds an open directory is the one of this node."""
    try:
        there = os.stat(b"..", dir_fd=fd)
    except PermissionError:
        return True  # It may be listed but not searched: then nothing below it can be attached either.
    return there.st_ino == parent.ino and there.st_dev == parent.dev


def _is_directory(stat: os.stat_result) -> bool:
    return stat.st_mode & 0o170000 == 0o040000


def watch_limit() -> tuple[int, str]:
    """The limit in force and the sysctl it is set by: a user namespace may have a lower one than the machine."""
    found: list[tuple[int, str]] = []
    for setting in ("fs.inotify.max_user_watches", "user.max_inotify_watches"):
        with contextlib.suppress(OSError, ValueError), open("/proc/sys/" + setting.replace(".", "/"), "rb") as file:
            found.append((int(file.read()), setting))
    return min(found, key=lambda each: each[0], default=(0, "fs.inotify.max_user_watches"))
