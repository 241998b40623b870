"""The fanotify monitor: one mark for the whole file system, no walk, no cost per directory.

Facts (measured on 6.18, ext4, tmpfs, xfs and btrfs alike):

- Events name the parent directory by handle, and the entry by name; a directory's own events (chmod) carry its own
  handle with the name ``.``. A rename is one event with both ends.
- An unlink, a link and a rename over something also give an ATTRIB with the object's handle alone: the number of links
  changed. The object that lost or gained a name has its own event under that name, so this says nothing new.
- A file made with O_TMPFILE is called ``#`` with its inode number, even after it was linked.
- A file written through a descriptor that was opened by handle (an NFS server) may come as its handle alone.
- Everything on the file system is reported, what is outside the root too: most reads may be noise.

No step here may depend on the order of events: they merge (``instep.linux.fanotify``). A cached place of a directory is
either right, or the rename that made it wrong is still to be read: it then empties the cache, and reports both trees.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from collections.abc import Callable, Sequence

from instep.errors import SourceError, ToolMissing
from instep.linux.fanotify import (
    EVENT,
    EVENT_BYTES_MAX,
    FAN_ATTRIB,
    FAN_CREATE,
    FAN_DELETE,
    FAN_EVENT_INFO_TYPE_DFID,
    FAN_EVENT_INFO_TYPE_DFID_NAME,
    FAN_EVENT_INFO_TYPE_FID,
    FAN_EVENT_INFO_TYPE_NEW_DFID_NAME,
    FAN_EVENT_INFO_TYPE_OLD_DFID_NAME,
    FAN_ONDIR,
    FAN_Q_OVERFLOW,
    FAN_RENAME,
    METADATA,
    METADATA_BYTES,
    METADATA_VERSION,
    RECORD,
)
from instep.linux.handles import path_of
from instep.linux.mounts import MOUNTINFO, mount_id_of, read_mounts
from instep.logs import fields
from instep.model import MonitorStatus, Report
from instep.monitors.fanotify_mounts import MountsBelow, armed, is_seen, refusal
from instep.monitors.places import Below, Places
from instep.paths import ROOT, RelPath, Scope

log = logging.getLogger(__name__)

READ_BYTES = 256 * 1024
READS_MAX = 4
"""Reads in one call: about 8,000 events, some 10 ms."""
NOISE_READS = 32
NOISE_READS_S = 0.128
"""So many reads in so short a time, all of them of nothing but noise, and the kernel's queue is let fill for a while: a
wake-up costs more than twenty events. Guessed."""
NOISE_PAUSE_S = 0.004
"""How long; the most that noise delays a report, and that only until the first one."""
RESCAN_S = 60.0
"""Between two comparisons of what the kernel says nothing about."""

_ENTRY, _TREE = Scope.ENTRY, Scope.TREE
_EVERYTHING = Report(ROOT, _TREE, content=False)
_UNUSUAL = FAN_ONDIR | FAN_Q_OVERFLOW
_DIRECTORY_ATTRIBUTES = FAN_ONDIR | FAN_ATTRIB
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK
_FID = FAN_EVENT_INFO_TYPE_FID
_DFID = FAN_EVENT_INFO_TYPE_DFID
_DFID_NAME = FAN_EVENT_INFO_TYPE_DFID_NAME
_OLD = FAN_EVENT_INFO_TYPE_OLD_DFID_NAME
_NEW = FAN_EVENT_INFO_TYPE_NEW_DFID_NAME
_HASH = ord("#")


def why_unavailable(root: bytes) -> str | None:
    """Why this monitor cannot run on this source, or None; tried for real."""
    try:
        fd = os.open(root, _DIRECTORY)
    except OSError as error:
        return f"fanotify cannot open the source: {error.strerror}"
    try:
        os.close(armed(fd))
    except OSError as error:
        return refusal(error, fd)
    finally:
        os.close(fd)
    return None


class FanotifyMonitor:
    """Reports what the kernel says about the file systems at and below ``root``.

    File systems below that cannot be marked are reported as TREE every ``RESCAN_S``.
    """

    name = "fanotify"

    def __init__(
        self,
        root: bytes,
        *,
        one_file_system: bool = False,
        ignore: Callable[[RelPath, bool], bool] | None = None,
    ) -> None:
        self.drained = False
        self.group = -1
        self._root = root
        self._one_file_system = one_file_system
        self._ignore = ignore
        self._closing = contextlib.ExitStack()
        self._first = True
        self._events = 0
        self._overflows = 0
        self._root_changed = False
        self._mounts_moved = False
        self._noise_reads = 0
        self._noise_since_s = 0.0
        self._pausing = False
        self._told: set[tuple[RelPath, str]] = set()
        self._due_s: dict[RelPath, float] = {}

    def start(self) -> None:
        """Arm the monitor; see ``instep.ports.Monitor``.

        Raises:
            ToolMissing: no permission, an old kernel, or a file system that cannot be marked.
            SourceError: the root cannot be opened.
        """
        try:
            self._root_fd = self._own(os.open(self._root, _DIRECTORY))
        except OSError as error:
            raise SourceError(
                "source-unreadable",
                f"cannot open {os.fsdecode(self._root)!r}: {error.strerror}",
                fix="name a directory that this user may read",
            ) from error
        try:
            self.group = self._own(armed(self._root_fd))
        except OSError as error:
            reason = refusal(error, self._root_fd)
            self.close()
            raise ToolMissing(
                "no-fanotify",
                f"{reason}; it was asked for to watch {os.fsdecode(self._root)!r}",
                fix="leave the choice of the monitor to instep (auto), or take inotify",
            ) from error
        self._root_path = path_of(self._root_fd)
        self._root_mount_id = mount_id_of(self._root_fd)
        self._mounts = MountsBelow(
            self._root_fd, self.group, one_file_system=self._one_file_system, ignore=self._ignore
        )
        self._places = Places(self._root_fd)
        # Two descriptors: whoever polls one first, this class or the loop by way of the epoll, clears only its own.
        waking = self._own(os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC))
        asking = self._own(os.open(MOUNTINFO, os.O_RDONLY | os.O_CLOEXEC))
        self._mounts_changed = select.poll()
        self._mounts_changed.register(asking, select.POLLPRI)
        self._ready = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._closing.callback(self._ready.close)
        self._ready.register(self.group, select.EPOLLIN)
        self._ready.register(waking, select.EPOLLPRI)
        self._look_at_mounts([])

    def _own(self, fd: int) -> int:
        self._closing.callback(os.close, fd)
        return fd

    def fileno(self) -> int:
        """An epoll descriptor; see ``instep.ports.Monitor``."""
        return self._ready.fileno()

    def wake_s(self) -> float | None:
        """Time to the next look without a wake-up; see ``instep.ports.Monitor``."""
        if self._first:
            return 0.0
        if self._pausing:
            return NOISE_PAUSE_S
        if not self._due_s:
            return None
        return max(0.0, min(self._due_s.values()) - time.monotonic())

    def status(self) -> MonitorStatus:
        """Figures for the status report."""
        watched = {mount.file_system for mount in self._mounts.below.values() if mount.file_system}
        trouble = [f"{os.fsdecode(mount.point)}: {mount.why}" for mount in self._mounts.below.values() if mount.why]
        if self._root_changed:
            trouble.append(f"{os.fsdecode(self._root)} was renamed, removed or mounted over")
        return MonitorStatus(1 + len(watched), self._events, self._overflows, tuple(trouble))

    def renew(self, ignore: Callable[[RelPath, bool], bool] | None) -> bool:
        """See ``instep.ports.Renewable``."""
        if self.group < 0 or self._root_path is None or path_of(self._root_fd) != self._root_path:
            return False
        if not is_seen(self._root_path, self._root_mount_id):
            return False
        self._root_changed = False
        self._mounts.renew(ignore)
        self._first = self._mounts_moved = True
        return True

    def close(self) -> None:
        """Give everything back to the kernel; may be called twice."""
        self._closing.close()
        self.group = -1  # Its number may be another file's by now.

    def read(self) -> Sequence[Report]:
        """What is new; see ``instep.ports.Monitor``."""
        reports: list[Report] = []
        if self._first:
            self._first = False
            reports.append(_EVERYTHING)
        self.drained = False
        events_before = self._events
        for _ in range(READS_MAX):
            try:
                buffer = os.read(self.group, READ_BYTES)
            except BlockingIOError:
                self.drained = True
                break
            self._take(buffer, reports)
            if len(buffer) <= READ_BYTES - EVENT_BYTES_MAX:
                self.drained = True
                break
        # A report wants to be gone; the reading that follows it finds the mounts just as well.
        if self._mounts_moved or (not reports and self._mounts_changed.poll(0)):
            self._look_at_mounts(reports)
        if self._places.doubt:
            self._note_doubt()
        if self._due_s:
            self._report_due(reports)
        if not reports and self._events != events_before:
            self._hear_noise(self._events - events_before)
        elif reports or self._pausing:
            self._noise_reads = 0
            self._pause(wanted=False)
        return reports

    def _hear_noise(self, events: int) -> None:
        """Decide whether to wait for more of it."""
        self._noise_reads += 1
        if self._noise_reads == 1:
            self._noise_since_s = time.monotonic()
        elif self._pausing:
            if events < 4:
                self._noise_reads = 0
                self._pause(wanted=False)
        elif self._noise_reads == NOISE_READS:
            self._noise_reads = 0
            if time.monotonic() - self._noise_since_s < NOISE_READS_S:
                self._noise_reads = NOISE_READS
                self._pause(wanted=True)

    def _pause(self, *, wanted: bool) -> None:
        """Have the descriptor keep silent about events, or speak again; meanwhile ``wake_s`` is what calls."""
        if wanted != self._pausing:
            self._pausing = wanted
            # Not by an empty mask: each event would wake the thread all the same, though no one is told (measured).
            if wanted:
                self._ready.unregister(self.group)
            else:
                self._ready.register(self.group, select.EPOLLIN)

    def _take(self, buffer: bytes, reports: list[Report]) -> None:
        """Turn events into reports. Most are of files in known directories: those are dealt with right here."""
        if buffer[4] != METADATA_VERSION:
            raise AssertionError(f"unknown fanotify metadata version {buffer[4]}")
        unpack = EVENT.unpack_from
        unpack_record = RECORD.unpack_from
        find = self._places.cache.get
        gone = self._places.gone
        gone.clear()
        index = buffer.index
        append = reports.append
        make = tuple.__new__  # Report() itself takes twice the time (measured: 0.30 us).
        last: bytes | None = None
        last_content = False
        events = at = 0
        # An overflow has no records, so the last one may be shorter than what EVENT takes.
        end = len(buffer) - METADATA_BYTES
        while at < end:
            length, mask, kind, record_bytes, handle_bytes = unpack(buffer, at)
            events += 1
            if mask & _UNUSUAL:
                if (
                    mask == _DIRECTORY_ATTRIBUTES
                    and kind == _DFID_NAME
                    and find(buffer[at + 28 : at + 44 + handle_bytes]) is False
                ):
                    at += length  # The times of a directory outside: our own doing at a target, with every change.
                    continue
            elif kind == _DFID_NAME:
                name_at = at + 44 + handle_bytes
                key = buffer[at + 28 : name_at]
                place = find(key)
                if place is False or (place is None and key in gone):
                    at += length
                    continue
                if place is not None and buffer[name_at] != _HASH:
                    path = place + buffer[name_at : index(0, name_at)]
                    content = mask != FAN_ATTRIB
                    if path != last:
                        append(make(Report, (path, _ENTRY, content, False, None)))
                        last = path
                        last_content = content
                    elif content and not last_content:
                        reports[-1] = make(Report, (path, _ENTRY, True, False, None))
                        last_content = True
                    at += length
                    continue
            elif kind == _OLD:
                name_at = at + 44 + handle_bytes
                place = find(buffer[at + 28 : name_at])
                new_at = at + METADATA_BYTES + record_bytes
                kind, _, handle_bytes = unpack_record(buffer, new_at)
                new_name_at = new_at + 20 + handle_bytes
                new_place = find(buffer[new_at + 4 : new_name_at])
                if kind == _NEW and place is not None and new_place is not None:
                    if new_place is not False:
                        path = new_place + buffer[new_name_at : index(0, new_name_at)]
                        old = None if place is False else place + buffer[name_at : index(0, name_at)]
                        append(make(Report, (path, _ENTRY, True, False, old)))
                        last = None
                    elif place is not False:
                        append(make(Report, (place + buffer[name_at : index(0, name_at)], _ENTRY, True, False, None)))
                        last = None
                    at += length
                    continue
            elif kind == _FID and mask == FAN_ATTRIB and METADATA_BYTES + record_bytes == length:
                at += length  # The number of links changed: see _take_file.
                continue
            self._take_unusual(buffer, at, mask, reports)
            last = None
            at += length
        if at == end:
            events += 1
            self._take_unusual(buffer, at, METADATA.unpack_from(buffer, at)[3], reports)
        self._events += events

    def _take_unusual(self, buffer: bytes, at: int, mask: int, reports: list[Report]) -> None:
        """One event of any kind."""
        if mask & FAN_Q_OVERFLOW:
            self._overflows += 1
            self._places.forget()
            log.warning("fanotify-overflow", extra=fields(path=self._root, now="everything is compared again"))
            reports.append(_EVERYTHING)
            return
        length, _, metadata_bytes, _ = METADATA.unpack_from(buffer, at)
        end = at + length
        at += metadata_bytes
        keys: dict[int, bytes] = {}
        names: dict[int, bytes] = {}
        while at < end:
            kind, record_bytes, handle_bytes = RECORD.unpack_from(buffer, at)
            name_at = at + 20 + handle_bytes
            keys[kind] = buffer[at + 4 : name_at]
            if kind in (_DFID_NAME, _OLD, _NEW):
                names[kind] = buffer[name_at : buffer.index(0, name_at)]
            at += record_bytes
        if mask & FAN_RENAME:
            self._take_rename(mask, keys, names, reports)
        elif mask & FAN_ONDIR:
            self._take_directory(mask, keys, names.get(_DFID_NAME, b"."), reports)
        else:
            self._take_file(mask, keys, names.get(_DFID_NAME), reports)

    def _take_rename(self, mask: int, keys: dict[int, bytes], names: dict[int, bytes], reports: list[Report]) -> None:
        is_dir = bool(mask & FAN_ONDIR)
        if is_dir:
            self._places.forget_unless_outside(keys.get(_OLD), keys.get(_NEW))
            self._mounts_moved = bool(self._mounts.below)
            self._look_at_root(reports)
        scope = _TREE if is_dir else _ENTRY
        old = [place + names[_OLD] for place in self._places.of(keys[_OLD])] if _OLD in keys else []
        new = [place + names[_NEW] for place in self._places.of(keys[_NEW])] if _NEW in keys else []
        if len(old) == 1 and len(new) == 1:
            reports.append(Report(RelPath(new[0]), scope, True, is_dir, RelPath(old[0])))
            return
        reports.extend(Report(RelPath(path), scope, True, is_dir) for path in (*old, *new))

    def _take_directory(self, mask: int, keys: dict[int, bytes], name: bytes, reports: list[Report]) -> None:
        key = keys.get(_DFID_NAME) or keys.get(_DFID) or keys[_FID]
        itself = keys.get(_FID)
        if mask & FAN_DELETE:
            if itself is not None:
                self._places.cache.pop(itself, None)
            if key == self._places.parent_key:
                self._look_at_root(reports)
        content = mask != FAN_ATTRIB | FAN_ONDIR
        places = self._places.of(key)
        if self._places.root_gone:
            self._look_at_root(reports)
        for place in places:
            if name == b".":
                reports.append(Report(RelPath(place[:-1]), _ENTRY, content, True))
            else:
                # The events of what was in a removed directory may have no path any more: all of it is in this TREE.
                scope = _TREE if mask & (FAN_CREATE | FAN_DELETE) else _ENTRY
                reports.append(Report(RelPath(place + name), scope, content, True))
        if itself is not None and mask & FAN_CREATE and not mask & FAN_DELETE and name != b".":
            # Spares looking up every new directory. A directory is created once, so its renames are all still to come.
            if len(places) == 1:
                self._places.learn(itself, places[0] + name + b"/")
            elif self._places.cache.get(key) is False:
                self._places.learn(itself, False)

    def _take_file(self, mask: int, keys: dict[int, bytes], name: bytes | None, reports: list[Report]) -> None:
        content = mask != FAN_ATTRIB
        itself = keys.get(_FID)
        if name is not None:
            places = self._places.of(keys[_DFID_NAME])
            if not (places and itself is not None and self._is_unnamed(places[0], name, mask)):
                reports.extend(Report(RelPath(place + name), _ENTRY, content) for place in places)
                return
        elif not content:
            return  # The number of links changed. (Or an NFS client's chmod of a nameless file: that has no place.)
        if itself is not None:
            reports.extend(Report(path, _ENTRY, content) for path in self._places.of_file(itself))

    def _is_unnamed(self, place: bytes, name: bytes, mask: int) -> bool:
        """Whether this is what the kernel calls an O_TMPFILE file, and no entry."""
        if name[0] != _HASH or not name[1:].isdigit() or mask & (FAN_CREATE | FAN_DELETE):
            return False
        try:
            os.stat(place + name, dir_fd=self._root_fd, follow_symlinks=False)
        except OSError:
            return True
        return False

    def _look_at_root(self, reports: list[Report]) -> None:
        """Say it once when the root is no longer where it was; its descriptor keeps working."""
        if self._root_changed or path_of(self._root_fd) == self._root_path:
            return
        self._root_is_changed(reports)

    def _root_is_changed(self, reports: list[Report]) -> None:
        self._root_changed = True
        log.warning("source-root-changed", extra=fields(path=self._root, now="everything is compared again"))
        reports.append(_EVERYTHING)

    def _look_at_mounts(self, reports: list[Report]) -> None:
        """Report what was mounted or unmounted below the root as TREE; what appears has been marked before."""
        self._look_at_root(reports)
        root_path = path_of(self._root_fd)
        if root_path is None:
            return
        table = read_mounts()
        if not self._root_changed and not is_seen(root_path, self._root_mount_id):
            self._root_is_changed(reports)
        for point in self._mounts.look(table, root_path):
            reports.append(Report(point, _TREE, True, True))
            self._due_s.pop(point, None)
            below = self._mounts.below.get(point)
            if below is not None and below.why:
                self._due_s[point] = time.monotonic() + RESCAN_S
                self._tell_not_watched(below)
        self._mounts_moved = False
        self._places.set_mounts(self._mounts.below.values())

    def _tell_not_watched(self, below: Below) -> None:
        if (below.point, below.why) not in self._told:
            self._told.add((below.point, below.why))
            log.warning(
                "mount-not-watched",
                extra=fields(path=below.point, why=below.why, now=f"compared every {RESCAN_S:.0f} s"),
            )

    def _note_doubt(self) -> None:
        if ROOT not in self._due_s:
            self._due_s[ROOT] = time.monotonic() + RESCAN_S
            log.warning(
                "change-not-placed",
                extra=fields(path=self._root, why=self._places.doubt, now=f"compared again in {RESCAN_S:.0f} s"),
            )
        self._places.doubt = ""

    def _report_due(self, reports: list[Report]) -> None:
        now_s = time.monotonic()
        for point, due_s in list(self._due_s.items()):
            if due_s <= now_s:
                if point == ROOT:
                    reports.append(_EVERYTHING)
                    del self._due_s[ROOT]
                else:
                    reports.append(Report(point, _TREE, content=False, is_dir=True))
                    self._due_s[point] = now_s + RESCAN_S
