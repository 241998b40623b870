"""The index of one target while the daemon runs: what is touched is noted at once, what is at rest written later.

A commit reads in the source what was touched, then lets the monitor be read until it has no more: what is not pending
then was at rest when it was read, and the target holds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from instep.daemon.indexes.losses import EVERYTHING, Losses
from instep.daemon.indexes.reader import Reader
from instep.daemon.indexes.turns import Turn
from instep.daemon.targets.target import State, Target
from instep.errors import TargetAway
from instep.index.journal import Touched
from instep.index.ledger import Commit, Ledger, NotBelieved, discard
from instep.index.store import BrokenIndex
from instep.logs import fields
from instep.model import Batch, Change, Landmarks, Outcome
from instep.paths import ROOT, is_below
from instep.records import Names, is_directory, path_of
from instep.workers import WorkerDied

T = TypeVar("T")

log = logging.getLogger(__name__)

COMMIT_S = 5.0
"""From the first path touched to the commit."""
PENDING_MAX = 100_000
"""With more paths pending than this a commit is put off: it would look at each of them."""
TOUCHED_MAX = 1_000_000
"""With more paths worked on and never at rest it would cost more memory than it saves time."""
LOSSES_COUNTED_MAX = 6
"""A disk that goes on losing what it is given is given it again ever later, up to 2 ** 6 times COMMIT_S."""
CLOCK_STEP_S = 0.5
"""If the system's clock moved by more against the monotonic one, its times prove nothing."""

Drain = Callable[[], bool]
"""Take in what the monitor has; whether there is nothing left, so that all that happened before is pending by now."""


class _LostAtDisk(Exception):
    """What was written to the target did not all reach its disk."""


class TargetIndex:
    """Lives in the loop. Whatever goes wrong costs the index, never the mirror."""

    def __init__(self, target: Target, path: bytes, reader: Reader, drain: Drain, turn: Turn) -> None:
        """Open the index at ``path``; a file that is none is replaced. BrokenIndex when that cannot be."""
        self.target = target
        self.path = path
        self.doubt = "as asked"
        """Why it is not believed; empty when it is."""
        self._in_doubt: Touched = {}
        self._ledger = Ledger(path)
        self._reader = reader
        self._drain = drain
        self._turn = turn
        self._timer: asyncio.TimerHandle | None = None
        self._commit: asyncio.Task[None] | None = None
        self._clocks_s = _between_clocks_s()
        self._recognised = False
        self._closing = False
        self._losses = Losses()
        self._asked_disk = True
        self._lost_at_end = False
        self._writing = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "instep-index")  # One, so that the steps of a commit stay in order.

    @property
    def believed(self) -> bool:
        """Whether it says what the target holds, so that only differences have to be looked at."""
        return not self.doubt

    @property
    def whole(self) -> bool:
        """Whether it says so now: believed, or the whole tree was brought over since."""
        return self.target.index is self and self._ledger.whole

    def ask(self, landmarks: Landmarks | None, *, away: bool) -> None:
        """See whether it can be believed for the target; one that is away is recognised later. Blocks on the disk."""
        try:
            self._in_doubt = self._ledger.in_doubt()
            self._turn.check()
            if not away:
                self._ledger.recognise(landmarks, self._in_doubt)
                self._recognised = True
        except NotBelieved as why:
            self.doubt = str(why)
        except BrokenIndex as error:
            self.doubt = f"it is broken: {error}"
        else:
            self.doubt = ""

    async def begin(self) -> None:
        """From now on batches are noted."""
        self.target.index = self
        try:
            self._ledger.begin(self._in_doubt if self.believed else {}, whole=self.believed)
            if self._ledger.is_lossy:
                self._lost_before(self._in_doubt if self.believed else EVERYTHING)
                if not self._losses:  # All had arrived; the process ended before it could say so here.
                    self._ledger.mark_lossy(lossy=False)
        except BrokenIndex as error:
            self.doubt = f"it is broken: {error}"
            self._give_up(str(error))
        await asyncio.to_thread(self._turn.begin)  # After it was written that ours is not whole, if so.
        if self.target.state is State.READY:
            await self._ask_disk()

    async def doubt_recent(self) -> None:
        """Have all compared by content that has changed since a process before began, and did not finish, to compare.

        What it brought over may have been written anew right after that, with the same size, in the same tick of the
        clock: no index tells of it, and to a comparison of sizes and times both are the same.
        """
        since_ns = self._ledger.unfinished_ns
        if not since_ns:
            return
        self.target.look_again(await self._reader.changed_since(since_ns))

    def _lost_before(self, question: Touched) -> None:
        """A process before was told that the disk lost some of this. The kernel will not tell it again."""
        self._losses.add(question)
        self._asked_disk = False

    async def _ask_disk(self) -> None:
        """The target is open: have the disk itself asked for what a process before left lost."""
        if not self._asked_disk:
            self._asked_disk = True
            changes = self._losses.changes()
            await self._in_thread(lambda: self.target.engine.distrust(changes))
            self.target.look_again(changes)

    @property
    def is_lossy(self) -> bool:
        """Whether the target's disk lost something that was written, and has not been seen to hold it since."""
        return bool(self._losses)

    def root_differs(self) -> bool:
        """Whether the root directory's own attributes have to be brought over."""
        return self._ledger.root_differs(self._reader.scanner.root())

    # -- the way of a batch ---------------------------------------------------------------------------------------

    def touch(self, batch: Batch) -> None:
        """A batch begins; see ``Target``."""
        try:
            self._ledger.touch(batch.changes, batch.moves.values())
        except BrokenIndex as error:
            self._give_up(str(error))
            return
        if self._timer is None and self._commit is None:
            self._timer = asyncio.get_running_loop().call_later(COMMIT_S, self._due)

    def learn(self, outcome: Outcome) -> None:
        """See ``Target``: the next commit need not read these again."""
        if not self._reader.scanner.margin_ns:
            self._ledger.learn(outcome.learned, outcome.learned_names)

    async def in_question(self) -> Touched:
        """What a comparison cannot judge: it was worked on since the index was last brought up to date.

        A commit under way is waited for: it holds some of that, and gives it back.
        """
        await self._committed()
        return self._ledger.in_question()

    def take_unswept(self) -> set[bytes]:
        """Directories that are to be listed once, for what a killed process may have left there."""
        return self._ledger.take_unswept()

    async def recognises(self, *, known: bool) -> bool:
        """Whether the target, opened again, holds what it held; if not, nothing is claimed of it any more."""
        if not known or (self.whole and not self._recognised):
            known = await self._recognises()
        await self._ask_disk()
        return known

    async def _recognises(self) -> bool:
        landmarks = await self.target.engine.landmarks()
        self._recognised = True
        async with self._writing:
            try:
                await self._in_thread(lambda: self._ledger.recognise(landmarks, self._ledger.in_question()))
            except NotBelieved as why:
                log.info("index", extra=fields(target=self.target.name, used=False, reason=str(why)))
                self._begin_anew()
            except BrokenIndex as error:
                self._give_up(str(error))
            else:
                return True
        return False

    def _begin_anew(self) -> None:
        """Nothing is known of the target any more."""
        if self._losses:
            self._lost_before(EVERYTHING)
        try:
            self._ledger.begin({}, whole=False)
        except BrokenIndex as error:
            self._give_up(str(error))

    def _give_up(self, why: str) -> None:
        """Go on without an index; the next start compares everything."""
        if self.target.index is not self:
            return
        self.target.index = None
        log.warning(
            "index-given-up",
            extra=fields(
                target=self.target.name,
                reason=why,
                now="it is mirrored all the same; the next start compares everything",
            ),
        )
        with contextlib.suppress(BrokenIndex):
            self._ledger.close(clean=False)
        discard(self.path)

    # -- commits --------------------------------------------------------------------------------------------------

    def _due(self) -> None:
        self._timer = None
        if self._ledger.touched > TOUCHED_MAX:
            self._give_up("more changes at once than it can hold")
            return
        self._commit = asyncio.get_running_loop().create_task(self._try())

    async def _try(self) -> None:
        try:
            await self._write_down()
        finally:
            self._commit = None
            if self.target.index is self and self._ledger.touched and self._timer is None:
                wait_s = COMMIT_S * 2 ** min(self._losses.in_a_row, LOSSES_COUNTED_MAX)
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._due)

    async def _write_down(self) -> None:
        """Make what is at rest a part of the index."""
        async with self._writing:
            if self.target.index is not self or self.target.pending() > PENDING_MAX:
                return
            try:
                await self._commit_touched()
            except Exception:
                # A defect must not end the mirror, nor leave it with an index that says too much.
                log.exception("index-crashed", extra=fields(target=self.target.name, fix="please report it"))
                self._give_up("it failed unexpectedly")

    async def _commit_touched(self) -> None:
        commit = self._ledger.take()
        lost: _LostAtDisk | None = None
        held = (
            self.target.deletions.held is not None
        )  # The target has names then that no scan of the source would find.
        # A tree that is still being brought over would put off all the rest.
        pending, covering = self.target.unsettled()
        early = [path for path in commit.trees if path in pending or is_below(path, covering) or (held and not path)]
        self._ledger.give_back(commit, early)
        commit = commit.without(early)
        done = not commit.began
        try:
            if not done:
                done = await self._read_and_write(commit)
        except BrokenIndex as error:
            await self._in_thread(self._abort)
            self._give_up(str(error))
        except WorkerDied:
            pass  # Said by the pool; tried again.
        except TargetAway as away:
            log.debug("index-waits", extra=fields(target=self.target.name, reason=str(away)))
        except _LostAtDisk as error:
            lost = error
        finally:
            if not done and self.target.index is self:
                self._ledger.give_back(commit, commit.began)
                await self._in_thread(self._abort)
        if lost is not None:
            await self._bring_again(lost)

    async def _bring_again(self, lost: _LostAtDisk) -> None:
        """The disk lost something written since the last commit; nobody can say what, so all of that is looked at."""
        level = logging.ERROR if self._losses.told() else logging.DEBUG
        changes = self._losses.add(self._ledger.in_question())
        log.log(
            level,
            "target-disk-lost-writes",
            extra=fields(
                target=self.target.name,
                reason=str(lost),
                paths=len(changes),
                now="what was written since the disk was last heard of is read back from it at the next start"
                if self._closing
                else "what was written since the disk was last heard of is read back from it, and written again",
                fix="look after the disk (dmesg tells more), or give it room if it has promised more than it has",
            ),
        )
        await self._in_thread(lambda: self._doubt(changes))
        if self._closing:
            self._lost_at_end = True
        else:
            self.target.look_again(changes)
            self.target.kick()

    def _doubt(self, changes: Sequence[Change]) -> None:
        with contextlib.suppress(BrokenIndex):
            self._ledger.mark_lossy(lossy=True)
        self.target.engine.distrust(changes)

    async def _read_and_write(self, commit: Commit) -> bool:
        ledger, target = self._ledger, self.target
        trees = _outermost(commit.trees)
        await self._in_thread(lambda: ledger.start_writing(trees))
        records = await self._in_thread(lambda: self._read(commit))
        if trees:
            known = await self._in_thread(commit.still_true)
            async for directories in self._reader.survey(trees, known):
                await self._in_thread(lambda some=directories: ledger.put(some))  # type: ignore[misc]
        clocks_s, self._clocks_s = self._clocks_s, _between_clocks_s()
        if abs(self._clocks_s - clocks_s) > CLOCK_STEP_S or not self._drain():
            return False
        pending, covering = target.unsettled()
        if any(path in pending or is_below(path, covering) for path in trees):
            return False
        back = _take_out(records, pending, covering)
        gone = [path for path in commit.directories if _is_no_directory(records, path)]
        whole = await target.engine.landmarks() if ROOT in trees else None
        try:
            await self._in_thread(target.engine.flush)
        except OSError as error:
            raise _LostAtDisk(error.strerror) from error
        await self._in_thread(lambda: ledger.finish(records, pending if trees else (), gone, whole=whole))
        if target.index is self:
            ledger.give_back(commit, back)
            ledger.settle()
            if self._losses and self._losses.arrived(commit.began.keys() - set(back), trees, pending, covering):
                await self._in_thread(lambda: ledger.mark_lossy(lossy=False))
                log.info("target-disk-well-again", extra=fields(target=target.name))
        log.debug("index-written", extra=fields(target=target.name, paths=len(commit.began), whole=ledger.whole))
        return True

    def _read(self, commit: Commit) -> Names[bytes]:
        look, seen = commit.singles()
        return self._reader.scanner.singles(look, seen=seen)

    def _abort(self) -> None:
        with contextlib.suppress(BrokenIndex):
            self._ledger.abort()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def get_ready(self) -> None:
        """Get ready to be compared with the source. BrokenIndex when it is lost.

        What was touched and not committed stays in question: nothing is at rest for certain until that is done.
        """
        await self._committed()
        async with self._writing:
            await self._in_thread(self._ledger.fold)

    async def _committed(self) -> None:
        """Wait for a commit under way, whatever becomes of it."""
        if self._commit is not None:
            await asyncio.gather(self._commit, return_exceptions=True)

    async def close(self, *, clean: bool, within_s: float) -> None:
        """Let go of the file; ``clean``: nothing is under way at the target, so what is at rest is written."""
        self._cancel_timer()
        self._closing = True
        if clean and self.target.index is self:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    if self._commit is not None:
                        await self._commit
                    if not self._lost_at_end:  # Else nobody brings it again: it stays in question for the next start.
                        await self._write_down()
        if self._commit is not None:
            self._commit.cancel()
            await asyncio.gather(self._commit, return_exceptions=True)
        self._cancel_timer()
        in_use = self.target.index is self
        if in_use:
            self.target.index = None
        with contextlib.suppress(BrokenIndex):
            await self._in_thread(lambda: self._ledger.close(clean=clean and in_use))
        self._thread.shutdown()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _outermost(trees: dict[bytes, int]) -> dict[bytes, int]:
    """The trees that no other one covers that began as late: one in another began after it."""
    kept: dict[bytes, int] = {}
    for path in sorted(trees):
        began = trees[path]
        above = path
        while above:
            above = above.rpartition(b"/")[0]
            if kept.get(above, -1) >= began:
                break
        else:
            if path or path not in kept:
                kept[path] = began
    return kept


def _take_out(records: Names[bytes], pending: Collection[bytes], covering: Collection[bytes]) -> list[bytes]:
    """Take the records of what is pending out; its paths."""
    if not pending:
        return []
    out: list[bytes] = []
    for parent, names in records.items():
        for name in list(names):
            path = path_of(parent, name)
            if path in pending or is_below(path, covering):
                del names[name]
                out.append(path)
    return out


def _is_no_directory(records: Names[bytes], path: bytes) -> bool:
    """Whether what was a directory is known to be none now."""
    parent, _, name = path.rpartition(b"/")
    one = records.get(parent, {}).get(name)
    return one is not None and not is_directory(one)


def _between_clocks_s() -> float:
    return time.time() - time.monotonic()
