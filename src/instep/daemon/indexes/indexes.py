"""The indexes of one mirror: which of them are believed at start, and what they say differs.

A comparison through the indexes reads the source alone, and its findings go the way of every report. It serves the
start, the loss of events, and a source that came back.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from instep.daemon.indexes.reader import Reader
from instep.daemon.indexes.target_index import Drain, TargetIndex
from instep.daemon.indexes.turns import Turn
from instep.daemon.state import StateDirectory, mirror_key
from instep.daemon.targets.target import State, Target
from instep.errors import TargetAway, UsageError
from instep.index.scan import Finding
from instep.index.store import BrokenIndex
from instep.linux.mounts import mount_of
from instep.logs import fields
from instep.model import Change, Landmarks, Report
from instep.paths import ROOT, RelPath, Scope
from instep.spec import InitialSync, MirrorSpec

log = logging.getLogger(__name__)

TIMES_TRUSTED = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "nilfs2", "overlay", "tmpfs", "xfs", "zfs"}
)
"""File systems that stamp an inode's ctime at every change and every rename, by the clock of this machine."""
POLL_MARGIN_NS = 50_000_000
"""Without events only a change time well before the batch proves that nothing came between; clocks tick at 10 ms."""


@dataclass(slots=True)
class Compared:
    """What a comparison through the indexes came to."""

    entries: int = 0
    differences: int = 0
    gone: list[Report] = field(default_factory=list)
    """Names that the source has no more; not yet reported, for somebody has to judge how many they are."""
    gone_entries: int = 0
    """How many names those are, with all that is below them."""


class Indexes:
    """All of them; lives in the mirror's loop."""

    def __init__(
        self,
        spec: MirrorSpec,
        source: int,
        targets: Sequence[Target],
        state: StateDirectory | None,
        drain: Drain,
        *,
        polls: bool = False,
    ) -> None:
        """``polls``: no queue has what happened; it is found at intervals."""
        self._spec = spec
        self._targets = targets
        self._reader = Reader(spec, source, margin_ns=POLL_MARGIN_NS if polls else 0)
        self._indexes: list[TargetIndex] = []
        self._turns: list[Turn] = []  # of targets that have none
        self._why_not = "there is no state directory" if state is None else _why_not(source)
        if state is None:
            return
        has_any = not self._why_not
        for target, one in zip(targets, spec.targets, strict=True):
            alone = replace(spec, targets=(one,))
            turn = Turn(alone, state)
            path = state.path(f"{mirror_key(alone)}.index")
            try:
                if has_any:
                    self._indexes.append(TargetIndex(target, path, self._reader, drain, turn))
                    continue
            except BrokenIndex as error:
                self._why_not = f"{os.fsdecode(path)}: {error}"
            self._turns.append(turn)

    async def begin(self, opening: Mapping[Target, asyncio.Future[None]] | None = None) -> list[Target]:
        """Ask each index, and note every batch from now on; returns the targets that have to be compared as a whole.

        Args:
            opening: Targets that are being opened, which may take long. An index that can be believed is not kept
                waiting for that: as with one that is away, its target is recognised once it is open. All others are
                open when this returns.

        Raises:
            OperatorError: only the index was to be used, and it cannot be; or what opening a target raised.
        """
        mode = self._spec.initial_sync
        opening = opening or {}
        for turn in self._turns:
            await asyncio.to_thread(turn.begin)
        early = await self._begin_early(opening) if mode is InitialSync.AUTO else set()
        await asyncio.gather(*(task for target, task in opening.items() if target not in early))
        later = [index for index in self._indexes if index.target not in early]
        marks = [await _landmarks(index.target) for index in later]
        for index, landmarks in zip(later, marks, strict=True):
            if mode in (InitialSync.AUTO, InitialSync.INDEX):
                await asyncio.to_thread(index.ask, landmarks, away=index.target.state is State.AWAY)
        reasons = {index.target: index.doubt for index in self._indexes}
        if mode is InitialSync.INDEX:
            for target in self._targets:
                reason = reasons.get(target, self._why_not)
                if reason:
                    raise UsageError(
                        "no-index",
                        f"the index of what {target.name} holds cannot be used: {reason}",
                        fix="start once with --initial-sync=auto, which compares everything where it has to",
                    )
        for index in self._indexes:
            if mode is not InitialSync.NONE:
                log.info("index", extra=fields(target=index.target.name, used=index.believed, reason=index.doubt))
            if index.target not in early:
                await index.begin()
                if mode is not InitialSync.NONE:
                    await index.doubt_recent()
        if any(index.believed for index in self._indexes):
            self._reader.warm()
        if mode is InitialSync.NONE:
            return []
        believed = {index.target for index in self._indexes if index.believed}
        return [target for target in self._targets if target not in believed]

    async def _begin_early(self, opening: Collection[Target]) -> set[Target]:
        """The targets that need not be open, for there is an index to begin with."""
        early: set[Target] = set()
        for index in self._indexes:
            if index.target in opening and index.target.state is State.CLOSED:
                await asyncio.to_thread(index.ask, None, away=True)
                if index.believed and index.target.state is State.CLOSED:
                    await index.begin()
                    if index.believed:
                        early.add(index.target)
        return early

    @property
    def usable(self) -> list[Target]:
        """The targets of which it is known what they hold, so that a comparison through the index is enough."""
        return [index.target for index in self._indexes if index.whole]

    async def compare(self, note: Callable[[Report], None]) -> Compared:
        """Report whatever differs between the source and what the usable targets hold; ``Compared.gone`` is not.

        Raises:
            BrokenIndex: it cannot be done this way; what was reported stays reported.
            WorkerDied: the same.
        """
        indexes = [index for index in self._indexes if index.whole]
        for index in indexes:
            await index.get_ready()
        compared = Compared()
        async for found in self._reader.compare([index.path for index in indexes]):
            compared.entries += found.entries
            compared.differences += len(found.reports)
            for finding in found.reports:
                note(_report(finding))
            compared.gone += map(_report, found.gone)
            compared.gone_entries += found.gone_entries
        for index in indexes:
            for path, scope in (await index.in_question()).items():
                if not path and scope is Scope.TREE:
                    index.target.compare_all()
                    continue
                note(Report(RelPath(path), scope, content=True, is_dir=scope is Scope.TREE))
            for path in index.take_unswept():
                note(Report(RelPath(path), Scope.LIST, content=False, is_dir=True))
            if index.root_differs():
                note(Report(ROOT, Scope.ENTRY, content=False, is_dir=True))
        return compared

    async def changed_since(self, since_ns: int) -> list[Change]:
        """See ``Reader``: for targets of which nothing is known."""
        return await self._reader.changed_since(since_ns)

    @property
    def any_lossy(self) -> bool:
        """Whether the disk of a target has lost something of what was brought over."""
        return any(index.is_lossy for index in self._indexes)

    async def close(self, *, clean: bool, within_s: float) -> None:
        """Write what is at rest, as far as that can be done in this time, and let go of all files."""
        for index in self._indexes:
            await index.close(clean=clean, within_s=within_s)
        await self._reader.close()


async def _landmarks(target: Target) -> Landmarks | None:
    if target.state is not State.READY:
        return None
    try:
        return await target.engine.landmarks()
    except TargetAway:
        return None


def _report(finding: Finding) -> Report:
    path, scope, content, is_dir = finding
    return Report(RelPath(path), Scope(scope), content, is_dir)


def _why_not(source: int) -> str:
    """Why there can be no index of this source; empty when there can."""
    mount = mount_of(source)
    if mount is None or mount.type not in TIMES_TRUSTED:
        kind = "this file system" if mount is None else mount.type
        return f"changes on {kind} cannot be told by the times of its inodes"
    return ""
