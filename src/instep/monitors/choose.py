"""Which monitor watches a source.

The order is that of cost: fanotify needs no walk and no memory per directory, inotify both, poll a scan of everything
each time. Where others can change a file system behind this kernel's back (NFS, FUSE, 9p), only a scan sees it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from instep.errors import SourceError, ToolMissing
from instep.linux.mounts import Mount, mount_of
from instep.monitors import fanotify, inotify, poll
from instep.monitors.inotify_watches import watch_limit
from instep.paths import RelPath
from instep.ports import Monitor
from instep.spec import MonitorName

Ignore = Callable[[RelPath, bool], bool]


class BackEnd(NamedTuple):
    """A row of the registry."""

    name: MonitorName
    why_unavailable: Callable[[bytes], str | None]
    make: Callable[[bytes, bool, Ignore | None, float], Monitor]
    """From root, one_file_system, ignore, poll_s."""
    how: str
    """What it does, for the operator; ``{}`` is the kind of file system."""
    sees_remote: bool = False
    """Whether it notices what other machines, or servers behind FUSE, change."""


BACK_ENDS = (
    BackEnd(
        MonitorName.FANOTIFY,
        fanotify.why_unavailable,
        lambda root, one, ignore, _: fanotify.FanotifyMonitor(root, one_file_system=one, ignore=ignore),
        "whole-filesystem mark on {}",
    ),
    BackEnd(
        MonitorName.INOTIFY,
        inotify.why_unavailable,
        lambda root, one, ignore, _: inotify.InotifyMonitor(root, one_file_system=one, ignore=ignore),
        "a watch on every directory of {}",
    ),
    BackEnd(
        MonitorName.POLL,
        poll.why_unavailable,
        lambda root, one, ignore, poll_s: poll.PollMonitor(root, one_file_system=one, ignore=ignore, interval_s=poll_s),
        "repeated scans of {}",
        sees_remote=True,
    ),
)
"""The best first."""


def choose(
    name: MonitorName,
    root: bytes,
    *,
    one_file_system: bool = False,
    ignore: Ignore | None = None,
    poll_s: float = 2.0,
    brief: bool = False,
) -> tuple[Monitor, str]:
    """A monitor for ``root``, not yet started, with the reason why it is this one.

    ``brief``: it is for one pass over the tree, during which we ourselves write to the same file system. fanotify
    would report each of our own writes (half of the time of a first copy: measured), so inotify comes first, if there
    are surely enough watches.

    Raises:
        SourceError: the root cannot be opened.
        ToolMissing: the one that was asked for by name cannot watch this source, or none can.
    """
    mount = _mount_below(root)
    if name is not MonitorName.AUTO:
        back_end, reason = _named(name, root, mount)
    elif brief and not (mount is not None and mount.is_remote) and _watches_suffice(root):
        back_end, reason = _named(MonitorName.INOTIFY, root, mount)[0], "one pass, writing to the same file system"
    else:
        back_end, reason = _best(root, mount)
    return back_end.make(root, one_file_system, ignore, poll_s), f"{back_end.name.value}: {reason}"


def _mount_below(root: bytes) -> Mount | None:
    try:
        fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(
            "source-unreadable",
            f"cannot open {os.fsdecode(root)!r}: {error.strerror}",
            fix="name a directory that this user may read",
        ) from error
    try:
        return mount_of(fd)
    finally:
        os.close(fd)


def _watches_suffice(root: bytes) -> bool:
    """Whether inotify works here, with a watch for each directory even if one in four inodes were one."""
    if inotify.why_unavailable(root) is not None:
        return False
    volume = os.statvfs(root)
    return (volume.f_files - volume.f_ffree) // 4 < watch_limit()[0]


def _named(name: MonitorName, root: bytes, mount: Mount | None) -> tuple[BackEnd, str]:
    back_end = next(row for row in BACK_ENDS if row.name is name)
    why = back_end.why_unavailable(root)
    if why is not None:
        raise ToolMissing(
            f"no-{name.value}",
            f"{os.fsdecode(root)!r} cannot be watched by {name.value}, which was asked for: {why}",
            fix="leave the choice of the monitor to instep (auto)",
        )
    if mount is not None and mount.is_remote and not back_end.sees_remote:
        return back_end, f"as asked; what others change on {mount.type} goes unnoticed"
    return back_end, "as asked"


def _best(root: bytes, mount: Mount | None) -> tuple[BackEnd, str]:
    kind = mount.type if mount is not None else "this file system"
    reasons: list[str] = []
    for row in BACK_ENDS:
        if mount is not None and mount.is_remote and not row.sees_remote:
            why: str | None = f"the kernel does not report what others change on {kind}"
        else:
            why = row.why_unavailable(root)
        if why is None:
            return row, "; ".join(reasons) or row.how.format(kind)
        if why not in reasons:
            reasons.append(why)
    raise ToolMissing(
        "no-monitor",
        f"nothing here can watch {os.fsdecode(root)!r}: {'; '.join(reasons)}",
        fix="mend one of these reasons",
    )
