"""Finding through the indexes what differs: at start, after lost events, when the source came back.

One comparison at a time. Losing events again and again makes the pauses between them grow: each costs a reading of the
source, and while one runs, live changes go their way. Where an index cannot be used, the target is compared as a whole;
what has changed since events were last known to be complete is compared by content there, for it may look as before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from instep.core.retry import backoff_s
from instep.daemon.indexes.indexes import Indexes
from instep.daemon.targets.target import Target
from instep.index.store import BrokenIndex
from instep.logs import fields
from instep.model import Change, Report
from instep.paths import ROOT, Scope
from instep.spec import MaxDelete
from instep.workers import WorkerDied

log = logging.getLogger(__name__)

CALM_S = 60.0
"""After so long without losing events the next comparison starts at once again."""
PAUSE_MAX_S = 30.0

Note = Callable[[Report], None]


class Rescan:
    """Runs comparisons; lives in the mirror's loop. Its findings are noted like every report."""

    def __init__(
        self,
        indexes: Indexes,
        targets: Sequence[Target],
        *,
        note: Note,
        settled: Callable[[], None],
        max_delete: MaxDelete,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``settled`` is called after each comparison."""
        self._indexes = indexes
        self._targets = targets
        self._note = note
        self._settled = settled
        self._max_delete = max_delete
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._again = False
        self._since_ns: int | None = None
        self._looking: asyncio.Task[None] | None = None
        self._losses = 0
        self._last_s = -CALM_S

    @property
    def busy(self) -> bool:
        """What differs is not known yet."""
        return self._task is not None or self._looking is not None

    def start(self) -> None:
        """Compare now; if that is being done, once more when it is done."""
        for target in self._unusable():
            target.compare_all()
        if self._task is not None:
            self._again = True
        elif self._indexes.usable:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def lost(self, since_ns: int) -> None:
        """Events were lost: nobody knows what changed since then, by the clock that files are stamped with."""
        self.missed(since_ns)
        now_s = self._clock()
        self._losses = self._losses + 1 if now_s - self._last_s < CALM_S else 0
        self._last_s = now_s
        self.start()

    def missed(self, since_ns: int) -> None:
        """See ``lost``: that alone of it which no comparison of sizes and times finds."""
        if self._unusable():
            self._since_ns = since_ns if self._since_ns is None else min(self._since_ns, since_ns)
            if self._looking is None:
                self._looking = asyncio.get_running_loop().create_task(self._look())

    def close(self) -> None:
        """Stop comparing."""
        for task in (self._task, self._looking):
            if task is not None:
                task.cancel()

    def _unusable(self) -> list[Target]:
        usable = self._indexes.usable
        return [target for target in self._targets if target not in usable]

    async def _look(self) -> None:
        """Have what has changed lately compared by content where no index tells."""
        while self._since_ns is not None:
            since_ns, self._since_ns = self._since_ns, None
            try:
                changes = await self._indexes.changed_since(since_ns)
            except Exception:
                # A defect must not leave the mirror waiting for this for ever.
                log.exception("index-comparison-failed", extra=fields(now="everything is compared by content"))
                changes = [Change(ROOT, Scope.TREE, is_dir=True)]
            for target in self._unusable():
                target.look_again(changes)
        self._looking = None
        self._settled()

    async def _run(self) -> None:
        while True:
            self._again = False
            pause_s = min(PAUSE_MAX_S, backoff_s(self._losses)) if self._losses else 0.0
            if pause_s:
                log.warning(
                    "events-lost-again", extra=fields(losses=self._losses, now="compared after", wait_s=pause_s)
                )
            await asyncio.sleep(pause_s)
            await self._compare()
            if not self._again:
                break
        self._task = None
        self._settled()

    async def _compare(self) -> None:
        began_s = self._clock()
        try:
            compared = await self._indexes.compare(self._note)
        except (BrokenIndex, WorkerDied) as error:
            log.warning("index-comparison-failed", extra=fields(reason=str(error), now="everything is compared"))
            self._all()
            return
        except Exception:
            log.exception("index-comparison-failed", extra=fields(now="everything is compared", fix="please report it"))
            self._all()
            return
        log.info(
            "compared",
            extra=fields(
                entries=compared.entries,
                differences=compared.differences + len(compared.gone),
                seconds=round(self._clock() - began_s, 3),
            ),
        )
        source = compared.entries - 1  # its root
        if compared.gone_entries > self._max_delete.most(source, source=source):
            log.warning(
                "many-deletions",
                extra=fields(
                    count=compared.gone_entries, now="the targets are compared to be sure before any deletion"
                ),
            )
            self._all()
            return
        for report in compared.gone:
            self._note(report)

    def _all(self) -> None:
        for target in self._targets:
            target.compare_all()
