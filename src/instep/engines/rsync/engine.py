"""The rsync engine itself: looks, plans, starts rsync, and tells what became of each change."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from instep.core.deletions import is_limited
from instep.engines.rsync import plain, process
from instep.engines.rsync.command import (
    Abilities,
    Address,
    Reach,
    Settings,
    Style,
    address,
    command,
    listing,
    own_shell,
    shell,
)
from instep.engines.rsync.gate import Gate
from instep.engines.rsync.links import Inode, Links, linked_below
from instep.engines.rsync.master import Master
from instep.engines.rsync.output import Complaint, Item, complaints, deletions_stopped, item, names_listed
from instep.engines.rsync.plan import Run, plan
from instep.engines.rsync.share import shares
from instep.engines.rsync.source import Big, Kind, Look, Seen, look
from instep.engines.rsync.verdict import CANNOT_START, HUNG, Verdict, blame, verdict
from instep.engines.ssh import COMMAND
from instep.errors import TargetAway, TargetError, ToolMissing
from instep.linux.libc import sync_file_system
from instep.linux.openat import DIRECTORY, open_directory
from instep.logs import fields
from instep.model import Batch, Change, Deletions, Failure, Held, Landmarks, Outcome, Progress
from instep.paths import ROOT, RelPath, Scope
from instep.rules import Preserve, Rule
from instep.spec import MaxDelete

log = logging.getLogger(__name__)

PARALLEL = 4
"""rsync sleeps for 40 of the 47 ms that a run takes, so four runs at once fill two processors; over one ssh
connection they are four channels of it, below sshd's default limit of ten."""

INLINE_CHANGES = 200
"""Batches up to this size look at the source in the loop's thread: 200 names take about 1 ms."""

ASTERISK = 0x2A
"""Begins the line of a deleted name."""

PLUS = 0x2B
"""Follows the two letters of the kind in the line of a name that the target did not have."""

EXAMPLES = 5
"""So many of the names to be deleted are shown."""

PROBE_HERE = b"instep-probe-here"
PROBE_GONE = b"instep-probe-gone"


def why_unavailable(program: bytes = b"rsync") -> str | None:
    """Why there can be no rsync engine here; None when there can."""
    return None if shutil.which(program) else f"there is no {os.fsdecode(program)} in PATH"


class _Ended(NamedTuple):
    status: int
    stderr: bytes
    skipped_deletes: bool
    """rsync met a read error in the source, and then deletes nothing any more."""
    kept: int = 0
    """Names that both sides had, as far as a limited run told."""
    names: int = 0
    """Names that the source had, the same."""


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
    ) -> None:
        """``locks``: descriptors that an rsync keeps until it has ended, even if that is after our end."""
        self.parallel = PARALLEL
        self.progress = Progress()
        self._source = source
        self._source_fd = source_fd
        self._big = big
        self._locks = locks
        self._max_delete = max_delete
        self._settings = Settings(
            address=address(target),
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
        self._abilities = Abilities()
        self._ssh = tuple(ssh)
        self._master: Master | None = None
        self._target_id: tuple[int, int] | None = None
        self._was_open = False
        self._gate = Gate()
        self._links = Links()
        self._unswept: set[bytes] = set()
        """Directories in which a run that broke off may have left its temporary files."""
        self._roots = _spellings(source, self._address)
        self._splits = self._address.reach is Reach.LOCAL and len(os.sched_getaffinity(0)) > 1
        if self._settings.bandwidth_bytes_per_s != float("inf"):
            self._splits = False
            self.parallel = 1  # The limit holds for one rsync; several would each take all of it.

    @property
    def lacking(self) -> tuple[str, ...]:
        """What was to be kept, and is given up because the two rsyncs do not both know it; known once open."""
        preserve, found = self._settings.preserve, self._abilities
        given_up = (("ACLs", preserve.acls and not found.acls), ("xattrs", preserve.xattrs and not found.xattrs))
        return tuple(name for name, lost in given_up if lost)

    @property
    def _address(self) -> Address:
        return self._settings.address

    # ---- getting ready ----

    async def open(self) -> bool:
        """Find out what the target can do; nothing is left behind there, save the target directory itself.

        Returns:
            False when a local target is another directory than before; of a far one nothing is known: True.
        """
        known = True
        if (missing := why_unavailable(self._settings.program)) is not None:
            raise ToolMissing("no-rsync", missing, fix="apt install rsync")
        if self._address.reach is Reach.LOCAL:
            before = self._target_id
            self._open_local(make=not self._was_open)
            known = before == self._target_id
        elif self._address.reach is Reach.SSH:
            await self._connect()
        self._abilities = Abilities()
        with tempfile.TemporaryDirectory(prefix="instep-probe-") as scratch:
            directory = os.fsencode(scratch)
            os.mknod(os.path.join(directory, PROBE_HERE), 0o600)
            while await self._probe(directory):
                pass
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
        self._settings = replace(self._settings, shell=shell(self._master.client()))

    def prepare(self) -> None:
        """Nothing takes long to start."""

    def _open_local(self, *, make: bool) -> None:
        path = self._address.path or b"/"
        shown = os.fsdecode(path)
        try:
            try:
                st = os.stat(path)
            except FileNotFoundError:
                if self._settings.dry_run:
                    self._target_id = None
                    return
                if not make:
                    raise  # What was there before may be a file system that is not mounted now: never fill its place.
                os.mkdir(path)
                log.info("target-created", extra=fields(path=path))
                st = os.stat(path)
        except OSError as error:
            raise TargetAway(f"cannot use the target directory {shown}: {error.strerror}") from error
        if not os.path.isdir(path):
            raise TargetError(
                "target-not-a-directory", f"the target {shown} is not a directory", fix="name a directory"
            )
        self._target_id = (st.st_dev, st.st_ino)

    async def _probe(self, directory: bytes) -> bool:
        """Let the far side read a harmless list, changing nothing; True: an ability was given up, probe again.

        One name that exists and one that does not: that is what receivers with a broken --delete-missing-args
        stumble over (rsync 3.4.3, and distributions' security updates that keep an older version number).
        """
        settings = replace(self._settings, rules=(), dry_run=True)
        argv = command(settings, self._abilities, Style(prune=True))
        listing = b"./" + PROBE_HERE + b"\0./" + PROBE_GONE + b"\0"
        status, stderr = await _run(argv, directory, listing, _ignore)
        if status in (0, 23, 24):
            return False
        abilities = self._abilities
        if abilities.acls and b"ACLs are not supported" in stderr:
            log.warning("acls-dropped", extra=fields(target=self._address.argument, now="ACLs are not kept there"))
            self._abilities = replace(abilities, acls=False)
            return True
        if abilities.xattrs and (
            b"xattrs are not supported" in stderr or b"extended attributes are not" in stderr.lower()
        ):
            log.warning("xattrs-dropped", extra=fields(target=self._address.argument, now="xattrs are not kept there"))
            self._abilities = replace(abilities, xattrs=False)
            return True
        if b"modify-window" in stderr:
            raise TargetError(
                "rsync-too-old",
                "the target's rsync cannot compare times by the nanosecond",
                fix="install rsync 3.1.3 or newer at the target",
            )
        if abilities.missing_args and self._settings.delete and (status in (2, 4) or b"delete-missing-args" in stderr):
            log.info("missing-args-unusable", extra=fields(target=self._address.argument, now="directories are listed"))
            self._abilities = replace(abilities, missing_args=False)
            return True
        kind, words = verdict(status, stderr)
        if status in (1, 2, 4):
            raise TargetError("rsync-refused", words, fix="check the rsync arguments and the target's configuration")
        if kind in (Verdict.AWAY, Verdict.FULL):
            raise TargetAway(words)
        raise TargetError("rsync-unusable", words)

    # ---- a batch ----

    def sync_now(self, batch: Batch) -> tuple[Outcome, Sequence[Change]]:
        """Nothing that rsync does is quick."""
        return Outcome(), batch.changes

    async def sync(self, batch: Batch) -> Outcome:
        """Look at the source, then run as few rsyncs as the batch allows."""
        if (trouble := self._trouble()) is not None:
            return Outcome(away=trouble)
        if self._master is not None and not self._master.alive:
            try:
                await self._connect()
            except (TargetAway, TargetError) as error:
                return Outcome(away=str(error) if isinstance(error, TargetAway) else error.what)
        unswept, self._unswept = self._unswept, set()
        looked = await self._look(batch, unswept)
        together = await self._linked(looked)
        settings, abilities = self._settings, self._abilities
        limited = self._is_limited(batch)
        holds = batch.deletions is Deletions.HELD and not limited
        runs = plan(
            [*looked.seen, *together],
            {} if holds else looked.crowds,  # Names are listed one by one: no other name in their directory may go.
            delete=settings.delete,
            missing_args=abilities.missing_args,
            filtered=bool(settings.rules),
        )
        if limited:
            runs = [run.styled(limited=True) for run in runs]
        elif holds:
            reported = [one.path for one in looked.seen if one.kind is Kind.GONE]
            runs = [each for run in runs for each in run.sparing(reported)]
        if looked.plain is not None and looked.plain.holds and not looked.linked and not together:
            runs = [run.styled(plain=True) if run.names_all else run for run in runs]
        outcome = Outcome(failures=looked.failures, postponed=looked.postponed)
        trees = [one.path for one in looked.seen if one.kind is Kind.DIRECTORY and one.change.scope is not Scope.ENTRY]
        learning = asyncio.create_task(self._learn(trees)) if trees else None
        async with self._gate.enter(set().union(*(run.paths() for run in runs))):
            for run in runs:
                # Names of one file stay together: rsync joins only what one run lists.
                splits = self._splits and self._gate.alone and not looked.linked and not together
                outcome.add(await (self._carry_out_shares(run) if splits else self._carry_out(run)))
                if outcome.away or outcome.full:
                    break
            if outcome.full and settings.delete:
                gone = {one.path for one in looked.seen if one.kind is Kind.GONE}
                await self._make_room(
                    [run for run in runs if run.style.prune or not gone.isdisjoint(run.members)], outcome
                )
        if not outcome.away and not outcome.full and settings.preserve.times and self._gate.empty:
            await self._mend_times()
        if outcome.away:
            self._unswept |= unswept
        if learning is not None:
            await learning
        return outcome

    async def _linked(self, looked: Look) -> list[Seen]:
        """The other names of the files of a batch: what is written through one name is reported under that alone."""
        links, root = self._links, self._source_fd
        if not links and not looked.linked:
            return []
        wanted: dict[Inode, Seen] = {}
        for one in looked.seen:
            # What was here before may have been written through this name just before it went.
            if (before := links.forget(one.path)) is not None:
                wanted.setdefault(before, one)
        # The same of all that was below a directory that went or was replaced.
        tops = {
            one.path: one for one in looked.seen if one.change.is_dir and one.change.scope is Scope.TREE and one.path
        }
        if tops:
            first = next(iter(tops.values()))
            for inode in links.below(tops):
                wanted.setdefault(inode, first)
        for seen, inode, _ in looked.linked:
            links.note(seen.path, inode)
            if inode not in wanted or seen.change.content:
                wanted[inode] = seen
        known = {inode: links.names(root, inode) for inode in wanted}
        lacking = {inode: count for _, inode, count in looked.linked if links.lacks(inode, count)}
        if lacking:
            # A file that gets another name is reported under the new one only.
            for path, inode in await asyncio.to_thread(linked_below, root, [ROOT]):
                links.note(path, inode)
            for inode, count in lacking.items():
                links.sought(inode, count)
                known[inode] = links.names(root, inode)
        there = {one.path for one in looked.seen}
        return [
            Seen(wanted[inode].change, name, Kind.FILE, wanted[inode].size)
            for inode, names in known.items()
            for name in names
            if name not in there
        ]

    async def _learn(self, trees: Sequence[bytes]) -> None:
        """Find the hard links below directories that rsync walks by itself; meanwhile it has the loop to itself."""
        for path, inode in await asyncio.to_thread(linked_below, self._source_fd, trees):
            self._links.note(path, inode)

    async def _make_room(self, runs: Sequence[Run], outcome: Outcome) -> None:
        """Take away what the source lost: rsync stops at the first file that does not fit, before it has come that far.

        What does not succeed here, the next try at the whole batch finds again.
        """
        for run in runs:
            if self._trouble() is None:
                await self._rsync(run.styled(delete_only=True), outcome)

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
            directories = {path for path in shared if self._has_directory(path)}
            if directories != {b""}:
                directories.discard(b"")  # The root is brought over with any name below it.
            if directories:
                await self._rsync(Run(Style(root_only=directories == {b""}), dict.fromkeys(directories, ())), Outcome())

    def _has_directory(self, path: bytes) -> bool:
        """Whether the source has a directory there, and on the whole way to it."""
        try:
            os.close(open_directory(self._source_fd, path))
        except OSError:
            return False
        return True

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
        if self._target_id is None or settings.extra_args or not keeps:
            return -1  # The operator's arguments may have files stay what they are, or fake what is kept.
        try:
            fd = os.open(self._address.path or b"/", DIRECTORY & ~os.O_NOFOLLOW)
        except OSError:
            return -1
        info = os.fstat(fd)
        if (info.st_dev, info.st_ino) == self._target_id:
            return fd
        os.close(fd)
        return -1

    def _trouble(self) -> str | None:
        """Why rsync must not be let loose: to it an empty mount point is a tree in which all was deleted."""
        try:
            here, there = os.fstat(self._source_fd), os.stat(self._source)
        except OSError as error:
            return f"source {os.fsdecode(self._source)}: {error.strerror}"
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            return f"source {os.fsdecode(self._source)} is not the directory any more that it was at start"
        if self._target_id is not None:
            path = self._address.path or b"/"
            try:
                st = os.stat(path)
            except OSError as error:
                return f"target {os.fsdecode(path)}: {error.strerror}"
            if (st.st_dev, st.st_ino) != self._target_id:
                return f"target {os.fsdecode(path)} is not the directory any more that it was"
        return None

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
        ended = await self._rsync(run, outcome)
        kind, words = verdict(ended.status, ended.stderr)
        if kind in (Verdict.AWAY, Verdict.ABORTED):
            # What it listed with its names is swept when it is listed again; a file's temporary stands beside it.
            self._unswept |= {path.rpartition(b"/")[0] for path in run.paths()}
        if kind is Verdict.AWAY:
            outcome.away = words
        elif kind is Verdict.FULL:
            outcome.full = words
        elif kind is Verdict.ABORTED:
            if (trouble := self._trouble()) is not None:
                outcome.away = trouble
            elif len(run.members) > 1:
                # One bad name must not hold up the others; halving finds it.
                for half in run.halves():
                    outcome.add(await self._carry_out(half))
                    if outcome.away or outcome.full:
                        break
            else:
                outcome.failures += [Failure(change, words) for change in run.changes()]
        elif kind is Verdict.PARTIAL:
            await self._settle(run, ended, words, outcome)
        return outcome

    async def _settle(self, run: Run, ended: _Ended, words: str, outcome: Outcome) -> None:
        """Some names failed: find out which."""
        dry_run = self._settings.dry_run
        said = list(complaints(ended.stderr, self._roots, dry_run=dry_run))
        if dry_run and not said:
            return
        if outcome.held is not None:
            run = run.styled(prune=False)
        if ended.skipped_deletes and run.style.prune:
            unreadable = sorted({c.path for c in said if c.in_source and not c.vanished and c.path})
            again = await self._rsync(run, outcome, leave_out=unreadable) if unreadable else ended
            if again.skipped_deletes:
                reason = words if not said else said[0].text
                outcome.failures += [Failure(c, f"nothing was deleted: {reason}") for c in run.changes()]
                return
            if outcome.held is not None:
                run = run.styled(prune=False)
        differing: list[Item] = []
        if not dry_run:
            compared = await self._compare(run, differing)
            kind, trouble = verdict(compared.status, compared.stderr)
            if kind is Verdict.AWAY:
                outcome.away = trouble
                return
        failures = blame(run.members, differing, said, words)
        outcome.failures += failures
        if log.isEnabledFor(logging.DEBUG):
            log.debug("rsync-partial", extra=fields(status=ended.status, failures=len(failures)))

    # ---- rsync ----

    async def _rsync(self, run: Run, outcome: Outcome, *, leave_out: Sequence[bytes] = ()) -> _Ended:
        """One run; a limited one only brings over, and shows what there is to delete. That, or not, is for another."""
        ended = await self._once(run, outcome, leave_out)
        if not run.style.limited or not (count := deletions_stopped(ended.stderr)):
            return ended
        run = run.styled(limited=False)
        if count > self._max_delete.most(ended.kept, source=ended.names):
            outcome.held = await self._held(run, ended, count, leave_out)
            run = run.styled(prune=False)  # Not the limited run's word: names that stood in the way stayed there.
        return await self._once(run, outcome, leave_out)

    async def _held(self, run: Run, ended: _Ended, count: int, leave_out: Sequence[bytes]) -> Held:
        """The deletions that would be made, directories included; ``count`` if that cannot be found out."""
        found = 0
        tops: list[bytes] = []
        deeper: list[bytes] = []

        def on_line(line: bytes) -> None:
            nonlocal found
            if line[:1] == b"*" and (one := item(line)) is not None:
                found += 1
                some = deeper if b"/" in one.path else tops
                if len(some) < EXAMPLES:
                    some.append(one.path)

        argv = command(self._settings, self._abilities, run.style, compare_only=True, leave_out=leave_out)
        await self._start(argv, run, on_line, lambda: False)
        count = max(count, found)
        return Held(count, ended.kept + count, tuple((tops + deeper)[:EXAMPLES]), source_is_empty=not ended.names)

    async def _once(self, run: Run, outcome: Outcome, leave_out: Sequence[bytes]) -> _Ended:
        argv = command(self._settings, self._abilities, run.style, leave_out=leave_out, only=run.only)
        progress = self.progress
        dry_run = self._settings.dry_run
        skipped = False
        names = created = 0

        def on_line(line: bytes) -> None:
            nonlocal skipped, names, created
            # As few steps as can be: there is one line for each name. The first column is eleven letters wide.
            if line[11:12] != b"|":
                skipped = skipped or b"skipping file deletion" in line
                names = names or names_listed(line)
                return
            if dry_run and (one := item(line)) is not None:
                log.info("would-change", extra=fields(path=one.path, item=one.what.decode("ascii", "replace")))
            if line[0] == ASTERISK:
                outcome.deleted += 1
                return
            outcome.entries += 1
            progress.entries += 1
            created += line[2] == PLUS
            if line.startswith((b">f", b"<f")):
                size = int(line[12 : line.index(b"|", 12)])
                outcome.files += 1
                outcome.bytes_copied += size
                progress.files += 1
                progress.bytes_copied += size
            elif line[1:2] == b"d":
                progress.directories += 1

        ended = await self._start(argv, run, on_line, lambda: skipped)
        return ended._replace(kept=max(0, names - created - 1), names=max(0, names - 1))  # 1: the root

    async def _compare(self, run: Run, differing: list[Item]) -> _Ended:
        """What still differs, as rsync's own dry run has it."""

        def on_line(line: bytes) -> None:
            if (one := item(line)) is not None:
                differing.append(one)

        argv = command(self._settings, self._abilities, run.style, compare_only=True, only=run.only)
        return await self._start(argv, run, on_line, lambda: False)

    async def compare(self, style: Style, names: Sequence[bytes], on_line: Callable[[bytes], None]) -> list[Complaint]:
        """Let rsync say what differs, line by line, at the lowest priority; nothing is changed.

        Returns:
            What it could not look at.

        Raises:
            TargetAway: it did not come to its end, or one of the roots is another directory by now.
        """
        argv = [*_gently(), *command(self._settings, self._abilities, style, compare_only=True)]
        listing = b"".join(b"./" + name + b"\0" for name in names)
        status, stderr = await _run(argv, b"/proc/self/fd/%d" % self._source_fd, listing, on_line)
        if (trouble := self._trouble()) is not None:
            raise TargetAway(trouble)
        kind, words = verdict(status, stderr)
        if kind not in (Verdict.DONE, Verdict.PARTIAL):
            raise TargetAway(words)
        return [complaint for complaint in complaints(stderr, self._roots) if not complaint.vanished]

    async def _start(
        self, argv: Sequence[bytes], run: Run, on_line: Callable[[bytes], None], skipped: Callable[[], bool]
    ) -> _Ended:
        # By the descriptor, not by name: a root renamed or mounted over between the check and the run is still the
        # one that was looked at.
        locks = self._locks() if self._locks is not None else ()
        alone = self._address.reach is Reach.LOCAL and not self._settings.extra_args
        source = b"/proc/self/fd/%d" % self._source_fd
        status, stderr = await _run(argv, source, run.listing(), on_line, locks, alone=alone)
        if status == HUNG:
            log.warning(
                "rsync-hung",
                extra=fields(
                    target=self._address.argument,
                    names=len(run.members),
                    now="it was ended; its names are brought over in smaller parts",
                ),
            )
        if log.isEnabledFor(logging.DEBUG):
            log.debug("rsync-ended", extra=fields(status=status, names=len(run.members), style=str(run.style)))
        return _Ended(status, stderr, skipped())

    async def landmarks(self) -> Landmarks | None:
        """The address and, of a directory here, its inode; with the names in the root, which one rsync lists."""
        names: set[bytes] = set()

        def on_line(line: bytes) -> None:
            found = item(line)
            if found is not None and found.path:
                names.add(found.path)

        with tempfile.TemporaryDirectory(prefix="instep-probe-") as nowhere:
            status, _ = await _run(listing(self._settings, os.fsencode(nowhere)), b"/", b"", on_line)
        if status:
            return None
        return Landmarks(self._address.argument + b" %d" % (self._target_id or (0, 0))[1], frozenset(names))

    def flush(self) -> None:
        """Sync the file system of a target on this machine; a far one looks after itself."""
        if self._address.reach is not Reach.LOCAL:
            return
        try:
            fd = os.open(self._address.path or b"/", DIRECTORY & ~os.O_NOFOLLOW)
        except OSError as error:
            raise TargetAway(f"cannot open it: {error.strerror}") from error
        try:
            sync_file_system(fd)
        finally:
            os.close(fd)

    def distrust(self, changes: Sequence[Change]) -> None:
        """Nothing to do: what may have another content is written anew, and not compared."""

    # ---- the end ----

    async def close(self) -> None:
        """End the shared ssh connection."""
        if self._master is not None:
            await self._master.close()


async def _run(
    argv: Sequence[bytes],
    directory: bytes,
    listing: bytes,
    on_line: Callable[[bytes], None],
    keeps: Sequence[int] = (),
    *,
    alone: bool = False,
) -> tuple[int, bytes]:
    """The exit status, or what stands for one that there is not, and the standard error."""
    try:
        end = await process.run(argv, directory=directory, listing=listing, on_line=on_line, keeps=keeps, alone=alone)
    except OSError as error:  # EAGAIN, ENOMEM: no process can be made now; ENOENT: rsync is gone
        return CANNOT_START, str(error).encode()
    return HUNG if end.hung else end.status, end.stderr


def _gently() -> list[bytes]:
    """What to write before a command so that it takes only what others leave."""
    words = [b"nice", b"-n", b"19"] if shutil.which("nice") else []
    return [*words, b"ionice", b"-c", b"3"] if shutil.which("ionice") else words


def _ignore(_: bytes) -> None:
    pass


def _spellings(source: bytes, at: Address) -> tuple[bytes, ...]:
    """The roots as rsync may write them in its messages, longest first."""
    roots = {source, os.path.realpath(source)}
    if at.path:
        roots.add(at.path)
        if at.reach is Reach.LOCAL:
            roots.add(os.path.realpath(at.path))
    return tuple(sorted(roots, key=len, reverse=True))
