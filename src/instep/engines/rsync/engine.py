"""The rsync engine itself: looks, plans, starts rsync, and tells what became of each change."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from instep.core.deletions import holds, is_limited
from instep.core.filters import Filter
from instep.engines.hardlinks import Inode, Links
from instep.engines.mounted import UNSURE_WAIT_S, Mounted
from instep.engines.rsync import plain
from instep.engines.rsync.command import Reach, Settings, Style, address, own_shell, shell
from instep.engines.rsync.gate import Gate
from instep.engines.rsync.links import learn, other_names
from instep.engines.rsync.master import Master
from instep.engines.rsync.output import IN_THE_WAY, Complaint, Item, complaints
from instep.engines.rsync.plan import Run, plan
from instep.engines.rsync.roots import Roots
from instep.engines.rsync.runner import Ended, Runner
from instep.engines.rsync.share import shares
from instep.engines.rsync.source import Big, Kind, Look, Seen, look
from instep.engines.rsync.verdict import Verdict, blame, left_out, one_by_one, verdict
from instep.engines.ssh import COMMAND
from instep.errors import TargetAway, TargetError, ToolMissing
from instep.logs import fields
from instep.model import Batch, Change, Deletions, Failure, Landmarks, Outcome, Postponed, Progress
from instep.paths import RelPath, Scope
from instep.rules import Preserve, Rule
from instep.spec import MaxDelete

log = logging.getLogger(__name__)

PARALLEL = 4
"""rsync sleeps for 40 of the 47 ms that a run takes, so four runs at once fill two processors; over one ssh
connection they are four channels of it, below sshd's default limit of ten."""

INLINE_CHANGES = 200
"""Batches up to this size look at the source in the loop's thread: 200 names take about 1 ms."""


def why_unavailable(program: bytes = b"rsync") -> str | None:
    """Why there can be no rsync engine here; None when there can."""
    return None if shutil.which(program) else f"there is no {os.fsdecode(program)} in PATH"


class RsyncEngine:
    """Brings changes over by rsync, with exact lists of names; see ``instep.ports.Engine``."""

    name = "rsync"

    def __init__(
        self,
        source: bytes,
        target: bytes,
        *,
        source_fd: int,
        preserve: Preserve,
        delete: bool,
        rules: Sequence[Rule],
        delete_excluded: bool,
        extra_args: Sequence[bytes],
        program: bytes = b"rsync",
        ssh: Sequence[bytes] = COMMAND,
        password_file: bytes = b"",
        bandwidth_bytes_per_s: float,
        one_file_system: bool,
        dry_run: bool,
        max_delete: MaxDelete,
        big: Big | None,
        locks: Callable[[], Sequence[int]] | None = None,
        mounted: Mounted | None = None,
    ) -> None:
        """Not yet open.

        ``locks``: descriptors that an rsync keeps until it has ended, even if that is after our end; ``mounted``: what
        is mounted in the source, None: nothing that counts.
        """
        self.parallel = PARALLEL
        self.progress = Progress()
        self._source_fd = source_fd
        self._mounted = Mounted(source_fd) if mounted is None else mounted
        self._big = big
        self._max_delete = max_delete
        self._address = address(target)
        self._roots = Roots(source, source_fd, self._address)
        settings = Settings(
            address=self._address,
            preserve=preserve,
            rules=tuple(rules),
            delete=delete,
            delete_excluded=delete_excluded,
            extra_args=tuple(extra_args),
            program=program,
            password_file=password_file,
            bandwidth_bytes_per_s=bandwidth_bytes_per_s,
            one_file_system=one_file_system,
            dry_run=dry_run,
        )
        self._runner = Runner(settings, self._roots, progress=self.progress, max_delete=max_delete, locks=locks)
        self._ssh = tuple(ssh)
        self._master: Master | None = None
        self._was_open = False
        self._gate = Gate()
        self._links = Links(source_fd)
        self.filter = Filter(rules)
        self._unswept: set[bytes] = set()
        """Directories in which a run that broke off may have left its temporary files."""
        self._splits = self._roots.target_is_here and len(os.sched_getaffinity(0)) > 1
        if bandwidth_bytes_per_s != float("inf"):
            self._splits = False
            self.parallel = 1  # The limit holds for one rsync; several would each take all of it.

    @property
    def lacking(self) -> tuple[str, ...]:
        """What was to be kept, and is given up because the two rsyncs do not both know it; known once open."""
        preserve, found = self._settings.preserve, self._runner.abilities
        given_up = (("ACLs", preserve.acls and not found.acls), ("xattrs", preserve.xattrs and not found.xattrs))
        return tuple(name for name, lost in given_up if lost)

    @property
    def _settings(self) -> Settings:
        return self._runner.settings

    # ---- getting ready ----

    async def open(self) -> bool:
        """Find out what the target can do; nothing is left behind there, save the target directory itself.

        Returns:
            False when a local target is another directory than before; of a far one nothing is known: True.
        """
        known = True
        if (missing := why_unavailable(self._settings.program)) is not None:
            raise ToolMissing("no-rsync", missing, fix="apt install rsync")
        if self._roots.target_is_here:
            known = self._roots.open_target(make=not self._was_open, dry_run=self._settings.dry_run)
        elif self._address.reach is Reach.SSH:
            await self._connect()
        await self._runner.probe()
        self._was_open = True
        return known

    async def _connect(self) -> None:
        """Log in, unless the operator's own remote shell does that: then each rsync does it for itself."""
        if own_shell(self._settings.extra_args) or (self._ssh == COMMAND and b"RSYNC_RSH" in os.environb):
            return
        if shutil.which(self._ssh[0]) is None:
            missing = f"there is no {os.fsdecode(self._ssh[0])} in PATH"
            raise ToolMissing("no-ssh", missing, fix="apt install openssh-client")
        if self._master is None:
            self._master = Master(self._ssh, self._address.host, self._address.port)
        await self._master.open()
        self._runner.settings = replace(self._settings, shell=shell(self._master.client()))

    def prepare(self) -> None:
        """Nothing takes long to start."""

    # ---- a batch ----

    def sync_now(self, batch: Batch) -> tuple[Outcome, Sequence[Change]]:
        """Nothing that rsync does is quick."""
        return Outcome(), batch.changes

    async def sync(self, batch: Batch) -> Outcome:
        """Look at the source, then run as few rsyncs as the batch allows."""
        if self._mounted.mounts and self._settings.delete:
            return await self._sync_with_mounts(batch)
        return await self._sync(batch)

    async def _sync_with_mounts(self, batch: Batch) -> Outcome:
        """Keep what is mounted in the source from being unmounted meanwhile: rsync would delete what it had held."""
        heeded = batch.deletions is Deletions.NONE
        async with self._mounted.held((change.path for change in batch.changes), heeded=heeded) as lost:
            if not lost:
                return await self._sync(batch)
            sure = tuple(change for change in batch.changes if change.path not in lost)
            outcome = await self._sync(replace(batch, changes=sure)) if sure else Outcome()
        unsure = (change for change in batch.changes if change.path in lost)
        outcome.postponed += [Postponed(change, UNSURE_WAIT_S) for change in unsure]
        outcome.unsure = True
        return outcome

    async def _sync(self, batch: Batch) -> Outcome:
        if (trouble := self._roots.trouble()) is not None:
            return Outcome(away=trouble)
        if self._master is not None and not self._master.alive:
            try:
                await self._connect()
            except (TargetAway, TargetError) as error:
                return Outcome(away=str(error) if isinstance(error, TargetAway) else error.what)
        unswept, self._unswept = self._unswept, set()
        looked = await self._look(batch, unswept)
        parted: set[Inode] = set()
        together = await other_names(self._links, self.filter, looked, parted)
        runs = self._plan(batch, looked, together)
        outcome = Outcome(failures=looked.failures, postponed=looked.postponed)
        trees = [one.path for one in looked.seen if one.kind is Kind.DIRECTORY and one.change.scope is not Scope.ENTRY]
        learning = asyncio.create_task(learn(self._links, self._source_fd, self.filter, trees)) if trees else None
        async with self._gate.enter(set().union(*(run.paths() for run in runs))):
            for run in runs:
                # Names of one file stay together: rsync joins only what one run lists.
                splits = self._splits and self._gate.alone and not looked.linked and not together
                outcome.add(await (self._carry_out_shares(run) if splits else self._carry_out(run)))
                if outcome.away or outcome.full:
                    break
            if outcome.full and self._settings.delete:
                gone = {one.path for one in looked.seen if one.kind is Kind.GONE}
                await self._make_room(
                    [run for run in runs if run.style.prune or not gone.isdisjoint(run.members)], outcome
                )
        if not outcome.away and not outcome.full and self._settings.preserve.times and self._gate.empty:
            await self._mend_times()
        if outcome.away:
            self._unswept |= unswept
        if outcome.away or outcome.full:
            self._links.part(parted)
        if learning is not None:
            await learning
        return outcome

    def _plan(self, batch: Batch, looked: Look, together: Sequence[Seen]) -> list[Run]:
        """The runs that bring all this over, each as careful with deletions as the batch has to be."""
        settings = self._settings
        limited = self._is_limited(batch)
        spares = holds(batch) and not limited
        seen = looked.seen if self.filter.is_trivial else [self._heeding_rules(one) for one in looked.seen]
        runs = plan(
            [*seen, *together],
            {} if spares else looked.crowds,  # Names are listed one by one: no other name in their directory may go.
            delete=settings.delete,
            missing_args=self._runner.abilities.missing_args,
            filtered=bool(settings.rules),
        )
        if limited:
            runs = [run.styled(limited=True, strict=batch.deletions is Deletions.NONE) for run in runs]
        elif spares:
            reported = [one.path for one in looked.seen if one.kind is Kind.GONE]
            runs = [each for run in runs for each in run.sparing(reported)]
        if looked.plain is not None and looked.plain.holds and not looked.linked and not together:
            runs = [run.styled(plain=True) if run.names_all else run for run in runs]
        return runs

    def _heeding_rules(self, one: Seen) -> Seen:
        """What to list for a change: its directory, where something stands by now that the filter leaves out.

        rsync would pass over that name, and leave what the target has there.
        """
        if one.kind is Kind.GONE or not self.filter.excludes(RelPath(one.path), one.kind is Kind.DIRECTORY):
            return one
        parent = RelPath(one.path.rpartition(b"/")[0])
        return Seen(Change(parent, Scope.LIST, content=False, is_dir=True), parent, Kind.DIRECTORY, 0)

    async def _make_room(self, runs: Sequence[Run], outcome: Outcome) -> None:
        """Take away what the source lost: rsync stops at the first file that does not fit, before it has come that far.

        What does not succeed here, the next try at the whole batch finds again.
        """
        for run in runs:
            if self._roots.trouble() is None:
                await self._runner.bring(run.styled(delete_only=True), outcome)

    def _is_limited(self, batch: Batch) -> bool:
        """Whether deletions have to be counted before any of them is made."""
        settings = self._settings
        return settings.delete and not settings.dry_run and is_limited(batch, self._max_delete)

    async def _mend_times(self) -> None:
        """Directories that several runs wrote to at once hold the times that the last of them read first."""
        shared = self._gate.take_shared()
        if not shared:
            return
        async with self._gate.enter(shared):
            # What has become a link since has been brought over as one: rsync would go through it.
            directories = {path for path in shared if self._roots.has_directory(path)}
            if directories != {b""}:
                directories.discard(b"")  # The root is brought over with any name below it.
            if directories:
                await self._runner.bring(
                    Run(Style(root_only=directories == {b""}), dict.fromkeys(directories, ())), Outcome()
                )

    async def _look(self, batch: Batch, unswept: Collection[bytes]) -> Look:
        big = None if batch.flushing else self._big
        changes = batch.changes
        if unswept and self._settings.delete:
            sweep = (Change(RelPath(path), Scope.LIST, content=False, is_dir=True) for path in unswept)
            changes = (*changes, *sweep)
        if len(changes) <= INLINE_CHANGES:
            return look(self._source_fd, changes, big=big, now_s=batch.now_s)
        return await asyncio.to_thread(self._look_well, changes, big, batch.now_s)

    def _look_well(self, changes: Sequence[Change], big: Big | None, now_s: float) -> Look:
        """Look, for a large batch, also for what rsync need not be asked to keep."""
        target = self._open_target() if len(changes) >= plain.CHANGES_MIN else -1
        try:
            seen = plain.Plain(self._source_fd, target) if target >= 0 else None
            return look(self._source_fd, changes, big=big, now_s=now_s, plain=seen)
        finally:
            if target >= 0:
                os.close(target)

    def _open_target(self) -> int:
        """A descriptor of the target, to look for ACLs and xattrs there; -1 where rsync cannot do without looking."""
        settings = self._settings
        keeps = settings.preserve.acls or settings.preserve.xattrs
        if settings.extra_args or not keeps:
            return -1  # The operator's arguments may have files stay what they are, or fake what is kept.
        return self._roots.target_descriptor()

    async def _carry_out_shares(self, run: Run) -> Outcome:
        """A large run as two, side by side."""
        async with asyncio.TaskGroup() as group:
            sharing = [group.create_task(self._carry_out(share)) for share in shares(run)]
        outcome = Outcome()
        for each in sharing:
            outcome.add(each.result())
        return outcome

    async def _carry_out(self, run: Run) -> Outcome:
        """One run, and whatever it takes to know what became of each of its changes."""
        outcome = Outcome()
        kind, words = Verdict.ABORTED, ""
        try:
            ended = await self._runner.bring(run, outcome)
            kind, words = verdict(ended.status, ended.stderr)
        finally:
            if kind in (Verdict.AWAY, Verdict.ABORTED):  # Or cancelled: however politely it is asked to end.
                # What it listed with its names is swept when it is listed again; a file's temporary stands beside it.
                self._unswept |= {path.rpartition(b"/")[0] for path in run.paths()}
        if kind is Verdict.AWAY:
            outcome.away = words
        elif kind is Verdict.FULL:
            outcome.full = words
        elif kind is Verdict.ABORTED and (trouble := self._roots.trouble()) is not None:
            outcome.away = trouble
        elif kind in (Verdict.ABORTED, Verdict.PARTIAL):
            said = list(complaints(ended.stderr, self._roots.spellings, dry_run=self._settings.dry_run))
            then = self._settle if kind is Verdict.PARTIAL else self._bring_parts
            await then(run, ended, said, words, outcome)
        return outcome

    async def _bring_parts(
        self, run: Run, ended: Ended, said: Sequence[Complaint], words: str, outcome: Outcome
    ) -> None:
        """One bad name must not hold up the others: what was complained of goes apart, or halving finds it."""
        if outcome.held is not None:
            run = run.styled(limited=False, prune=False)
        if len(run.members) > 1:
            for part in run.parts({one.path for one in said if one.path is not None}):
                outcome.add(await self._carry_out(part))
                if outcome.away or outcome.full:
                    break
            return
        changes = run.changes()
        reason = next((one.text for one in said if not one.vanished), words)
        failures = [Failure(change, reason) for change in changes]
        pruned = True
        if IN_THE_WAY in ended.stderr and not all(
            change.scope is Scope.ENTRY and change.path in run.members for change in changes
        ):
            if run.style.prune:  # Not name by name: they may be too many.
                deleted = await self._runner.bring(run.styled(delete_only=True), outcome)
                pruned = verdict(deleted.status, deleted.stderr)[0] is Verdict.DONE or outcome.held is not None
            compared, differing = await self._runner.differing(run.styled(prune=False), joined=False)
            if pruned and verdict(compared.status, compared.stderr)[0] in (Verdict.DONE, Verdict.PARTIAL):
                failures = one_by_one(changes, differing, said, words) or failures
        outcome.failures += failures

    async def _settle(self, run: Run, ended: Ended, said: Sequence[Complaint], words: str, outcome: Outcome) -> None:
        """Some names failed: find out which."""
        dry_run = self._settings.dry_run
        if dry_run and not said:
            return
        if outcome.held is not None:
            run = run.styled(prune=False)
        if ended.skipped_deletes and run.style.prune:
            unreadable = sorted({c.path for c in said if c.in_source and not c.vanished and c.path})
            again = await self._runner.bring(run, outcome, leave_out=unreadable) if unreadable else ended
            if again.skipped_deletes:
                reason = words if not said else said[0].text
                outcome.failures += [Failure(c, f"nothing was deleted: {reason}") for c in run.changes()]
                return
            if outcome.held is not None:
                run = run.styled(prune=False)
        differing: list[Item] = []
        if not dry_run:
            blocked = IN_THE_WAY in ended.stderr and self._settings.preserve.hard_links
            compared, differing = await self._runner.differing(run, joined=not blocked)
            kind, trouble = verdict(compared.status, compared.stderr)
            if kind is Verdict.AWAY:
                outcome.away = trouble
                return
            if blocked and (len(run.members) > 1 or left_out(differing, said)):
                # Other names of such a file were not brought over either, and no comparison of links tells of them.
                await self._bring_parts(run, ended, said, words, outcome)
                return
        failures = blame(run.members, differing, said, words)
        outcome.failures += failures
        if log.isEnabledFor(logging.DEBUG):
            log.debug("rsync-partial", extra=fields(status=ended.status, failures=len(failures)))

    # ---- what the target holds ----

    async def compare(self, style: Style, names: Sequence[bytes], on_line: Callable[[bytes], None]) -> list[Complaint]:
        """Let rsync say what differs, line by line, at the lowest priority; nothing is changed.

        Returns:
            What it could not look at.

        Raises:
            TargetAway: it did not come to its end, or one of the roots is another directory by now.
        """
        return await self._runner.compare(style, names, on_line)

    async def landmarks(self) -> Landmarks | None:
        """The address and, of a directory here, its inode; with the names in the root, which one rsync lists."""
        return await self._runner.landmarks()

    def flush(self) -> None:
        """Sync the file system of a target on this machine; a far one looks after itself."""
        self._roots.flush()

    def distrust(self, changes: Sequence[Change]) -> None:
        """Nothing to do: what may have another content is written anew, and not compared."""

    # ---- the end ----

    async def close(self) -> None:
        """End the shared ssh connection."""
        if self._master is not None:
            await self._master.close()
