"""What the end of a run means: for the target as a whole, then for each change.

Facts (measured, rsync 3.5.0): only status 0 proves that every listed name is done. 24: names vanished, the rest is
done. 23: some names failed, the rest is done; the same list with ``--dry-run`` then prints exactly what still differs.
11 aborts at the first failure; 2, 12, 13, 14, 21 and 22 abort as well.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Container, Iterable, Mapping, Sequence

from instep.engines.rsync.output import HARD, Complaint, Item
from instep.model import Change, Failure
from instep.paths import RelPath, Scope


class Verdict(enum.Enum):
    """How a run ended, for the target."""

    DONE = "done"
    PARTIAL = "some names failed, the rest is done"
    ABORTED = "one name stopped the run"
    AWAY = "the target cannot be served now"
    FULL = "no space left at the target"


APART_MAX = 10_000
"""With more names left the whole is tried again."""

CANNOT_START, HUNG, NO_TARGET = 256, 257, 258
"""No exit statuses: rsync could not be started; its processes waited for one another, and were ended; it was not
started, for the target was not there."""

STATUS: dict[int, tuple[Verdict, str]] = {
    0: (Verdict.DONE, ""),
    1: (Verdict.AWAY, "rsync does not accept its arguments"),
    2: (Verdict.ABORTED, "the two rsyncs do not understand each other"),
    3: (Verdict.AWAY, "the source or the target directory cannot be used"),
    4: (Verdict.AWAY, "the target's rsync refuses an option"),
    5: (Verdict.AWAY, "the rsync daemon does not serve this module"),
    6: (Verdict.AWAY, "the rsync daemon cannot write its log"),
    10: (Verdict.AWAY, "cannot connect"),
    11: (Verdict.ABORTED, "an error in file I/O"),
    12: (Verdict.AWAY, "the connection broke"),
    13: (Verdict.ABORTED, "rsync cannot report errors"),
    14: (Verdict.ABORTED, "rsync cannot talk to its own processes"),
    15: (Verdict.AWAY, "an rsync process crashed"),
    16: (Verdict.AWAY, "an rsync process was ended"),
    19: (Verdict.AWAY, "rsync was ended by a signal"),
    20: (Verdict.AWAY, "rsync was ended by a signal"),
    21: (Verdict.ABORTED, "rsync lost its own process"),
    22: (Verdict.ABORTED, "rsync has no memory"),
    23: (Verdict.PARTIAL, "some names failed"),
    24: (Verdict.DONE, ""),
    25: (Verdict.PARTIAL, "rsync was told not to delete so many names"),
    30: (Verdict.AWAY, "no answer in time"),
    35: (Verdict.AWAY, "the rsync daemon does not answer"),
    124: (Verdict.AWAY, "the remote command failed"),
    125: (Verdict.AWAY, "the remote command was killed"),
    126: (Verdict.AWAY, "the remote command cannot be run"),
    127: (Verdict.AWAY, "there is no rsync at the target"),
    255: (Verdict.AWAY, "ssh cannot connect"),
    HUNG: (Verdict.ABORTED, "its processes waited for one another, and were ended"),
    CANNOT_START: (Verdict.AWAY, "rsync cannot be started"),
    NO_TARGET: (Verdict.AWAY, "rsync was not started"),
}
"""rsync(1), EXIT VALUES; above 120 ssh's and the remote shell's."""

_NO_SPACE = re.compile(rb"^rsync: (?!\[sender\]).*\((?:28|122)\)", re.MULTILINE)
_NO_ROOT = re.compile(rb"^rsync: \[Receiver\] (?:mkdir|change_dir#?\d*|ERROR: cannot stat destination)", re.MULTILINE)


def verdict(status: int, stderr: bytes) -> tuple[Verdict, str]:
    """What an exit means for the target, in an operator's words."""
    if status < 0:
        return Verdict.AWAY, f"rsync was killed by signal {-status}"
    kind, words = STATUS.get(status, (Verdict.AWAY, "rsync failed"))
    if kind is Verdict.DONE:
        return kind, ""
    if _NO_SPACE.search(stderr):
        kind = Verdict.FULL
    elif status == 11 and _NO_ROOT.search(stderr):
        kind = Verdict.AWAY
    shown = f" (rsync exit status {status})" if status < CANNOT_START else ""
    return kind, f"{words}{shown}{_telling(stderr)}"


_SUMMARIES = (
    b"rsync error:",
    b"rsync: connection unexpectedly",
    b"rsync: did not see",
    b"rsync: [sender] link_stat",  # a name that vanished meanwhile; the probe's is meant to be missing
)


def _telling(stderr: bytes) -> str:
    """The line that says most: the first that is no summary."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    for line in lines:
        if not line.startswith(_SUMMARIES):
            return ": " + line.decode("utf-8", "backslashreplace")
    return ": " + lines[0].decode("utf-8", "backslashreplace") if lines else ""


def blame(
    members: Mapping[bytes, Sequence[Change]],
    differing: Iterable[Item],
    complaints: Sequence[Complaint],
    otherwise: str,
) -> list[Failure]:
    """The changes that are not done after a partial run; below a whole tree, only the names that failed.

    Args:
        members: the names of the run, with the changes that each serves.
        differing: what a comparison says still differs.
        complaints: what rsync said on its standard error.
        otherwise: the reason where rsync gave none.
    """
    by_path = {change.path: change for changes in members.values() for change in changes}
    for name, changes in members.items():
        # A name listed for the sake of another: the ancestor in the way, or the same file's other name.
        if changes:
            by_path.setdefault(RelPath(name.removesuffix(b"/")), changes[0])
    said: dict[bytes, Complaint] = {}
    failing: dict[RelPath, Complaint | None] = {}
    inner: dict[RelPath, Failure] = {}
    stray: list[Complaint] = []
    for complaint in complaints:
        if complaint.vanished:
            continue
        if complaint.path is None:
            stray.append(complaint)
            continue
        said.setdefault(complaint.path, complaint)
        change = _owner(complaint.path, by_path, deleted=True)
        if change is None:
            stray.append(complaint)
        elif change.scope is Scope.TREE and complaint.path.startswith(change.path + b"/" if change.path else b""):
            path = RelPath(complaint.path)
            if path != change.path and path not in inner:
                # As a TREE: it may be a directory that cannot be read.
                one = Change(path, Scope.TREE, content=change.content, now_s=change.first_s)
                inner[path] = Failure(one, complaint.text, hard=complaint.errno in HARD)
            elif path == change.path:
                failing.setdefault(change.path, complaint)
        else:
            failing.setdefault(change.path, complaint)
    for item in differing:
        change = _owner(item.path, by_path, deleted=item.deleted)
        if change is not None and not _at_or_below(item.path, inner):
            failing.setdefault(change.path, _nearest(item.path, said))
    for complaint in stray:
        # Attributes of a parent that no change names: one change below keeps it from being forgotten.
        if complaint.path is not None and not any(p.startswith(complaint.path + b"/") for p in (*failing, *inner)):
            top = complaint.path + b"/" if complaint.path else b""
            heir = next((p for p in by_path if p.startswith(top)), None)
            if heir is not None:
                failing.setdefault(by_path[heir].path, complaint)
    if not failing and not inner and (stray or not any(c.vanished for c in complaints)):
        failing = {change.path: stray[0] if stray else None for change in by_path.values()}
    fallback = next(iter(said.values()), stray[0] if stray else None)
    failures = []
    for path, reason in failing.items():
        best = reason or fallback
        failures.append(
            Failure(by_path[path], best.text if best else otherwise, hard=reason is not None and reason.errno in HARD)
        )
    for path, failure in inner.items():
        if path not in failing and not _at_or_below(path.rpartition(b"/")[0], inner):
            failures.append(failure)
    return failures


def left_out(differing: Iterable[Item], complaints: Iterable[Complaint]) -> bool:
    """Whether names were not brought over of which nothing was said, nor of what is above them."""
    said = {one.path for one in complaints if one.path}
    return any(not item.deleted and item.what[1:2] != b"d" and not _at_or_below(item.path, said) for item in differing)


def one_by_one(
    changes: Sequence[Change], differing: Sequence[Item], complaints: Sequence[Complaint], otherwise: str
) -> list[Failure]:
    """What a run that cannot come to its end left undone, each name as a change of its own.

    None of it where these would be more than ``APART_MAX``. The rest is as for ``blame``.
    """
    said = {one.path: one for one in complaints if one.path is not None and not one.vanished}
    paths = {**dict.fromkeys(said, False), **{one.path: one.what[1:2] == b"d" for one in differing}}
    if len(paths) > APART_MAX:
        return []
    now_s = min(change.first_s for change in changes)
    failures = []
    for path, is_dir in paths.items():
        why = said.get(path)
        failures.append(
            Failure(
                Change(RelPath(path), is_dir=is_dir, now_s=now_s),
                why.text if why else otherwise,
                hard=why is not None and why.errno in HARD,
            )
        )
    return failures


def _at_or_below(path: bytes, tops: Container[bytes]) -> bool:
    while path:
        if path in tops:
            return True
        path = path.rpartition(b"/")[0]
    return False


def _owner(path: bytes, by_path: Mapping[RelPath, Change], *, deleted: bool) -> Change | None:
    """The change that answers for a path: its own, or one whose scope covers it."""
    if (change := by_path.get(RelPath(path))) is not None:
        return change
    distance = 0
    while path:
        path = path.rpartition(b"/")[0]
        distance += 1
        change = by_path.get(RelPath(path))
        if change is not None and (
            change.scope is Scope.TREE or (change.scope is Scope.LIST and distance == 1) or (deleted and path)
        ):
            return change
    return None


def _nearest(path: bytes, said: dict[bytes, Complaint]) -> Complaint | None:
    """What was said of the path or the closest directory above it."""
    while True:
        if path in said:
            return said[path]
        if not path:
            return None
        path = path.rpartition(b"/")[0]
