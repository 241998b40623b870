"""The rsync engine itself: looks, plans, starts rsync, and tells what became of each change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from instep.engines.rsync import process
from instep.engines.rsync.command import (
    Abilities,
    Address,
    Reach,
    Settings,
    Style,
    address,
    command,
    end_master,
    own_shell,
)
from instep.engines.rsync.gate import Gate
from instep.engines.rsync.links import Inode, Links, linked_below
from instep.engines.rsync.output import Item, complaints, item
from instep.engines.rsync.plan import Run, plan
from instep.engines.rsync.source import Big, Kind, Look, Seen, look
from instep.engines.rsync.verdict import CANNOT_START, Verdict, blame, verdict
from instep.errors import TargetAway, TargetError, ToolMissing
from instep.logs import fields
from instep.model import ROOT, Batch, Change, Failure, Outcome, Progress, Scope
from instep.spec import Preserve, Rule

log = logging.getLogger(__name__)

PARALLEL = 4
"""rsync sleeps for 40 of the 47 ms that a run takes, so four runs at once fill two processors; over one ssh
connection they are four channels of it, below sshd's default limit of ten."""

INLINE_CHANGES = 200
"""Batches up to this size look at the source in the loop's thread: 200 names take about 1 ms."""

ASTERISK = 0x2A
"""Begins the line of a deleted name."""

PROBE_HERE = b"instep-probe-here"
PROBE_GONE = b"instep-probe-gone"


def why_unavailable() -> str | None:
    """Why there can be no rsync engine here; None when there can."""
    return None if shutil.which("rsync") else "there is no rsync in PATH"


class _Ended(NamedTuple):
    status: int
    stderr: bytes
    skipped_deletes: bool
    """rsync met a read error in the source, and then deletes nothing any more."""


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
        bandwidth_bytes_per_s: float,
        one_file_system: bool,
        dry_run: bool,
        big: Big | None,
    ) -> None:
        self.parallel = PARALLEL
        self.progress = Progress()
        self._source = source
        self._source_fd = source_fd
        self._big = big
        self._settings = Settings(
            address=address(target),
            preserve=preserve,
            rules=tuple(rules),
            delete=delete,
            delete_excluded=delete_excluded,
            extra_args=tuple(extra_args),
            bandwidth_bytes_per_s=bandwidth_bytes_per_s,
            one_file_system=one_file_system,
            dry_run=dry_run,
        )
        self._abilities = Abilities()
        self._control: bytes | None = None
        self._target_id: tuple[int, int] | None = None
        self._was_open = False
        self._gate = Gate()
        self._links = Links()
        self._roots = _spellings(source, self._address)
        if self._settings.bandwidth_bytes_per_s != float("inf"):
            self.parallel = 1  # The limit holds for one rsync; several would each take all of it.

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
        if (missing := why_unavailable()) is not None:
            raise ToolMissing("no-rsync", missing, fix="apt install rsync")
        if self._address.reach is Reach.LOCAL:
            before = self._target_id
            self._open_local(make=not self._was_open)
            known = before == self._target_id
        elif self._address.reach is Reach.SSH:
            if shutil.which("ssh") is None:
                raise ToolMissing("no-ssh", "there is no ssh in PATH", fix="apt install openssh-client")
            if self._control is None and not own_shell(self._settings.extra_args) and b"RSYNC_RSH" not in os.environb:
                self._control = _private_directory()
                self._settings = replace(self._settings, control_path=self._control + b"/s")
        self._abilities = Abilities()
        with tempfile.TemporaryDirectory(prefix="instep-probe-") as scratch:
            directory = os.fsencode(scratch)
            os.mknod(os.path.join(directory, PROBE_HERE), 0o600)
            while await self._probe(directory):
                pass
        self._was_open = True
        return known

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
        looked = await self._look(batch)
        together = await self._linked(looked)
        settings, abilities = self._settings, self._abilities
        runs = plan(
            [*looked.seen, *together],
            looked.crowds,
            delete=settings.delete,
            missing_args=abilities.missing_args,
            filtered=bool(settings.rules),
        )
        outcome = Outcome(failures=looked.failures, postponed=looked.postponed)
        trees = [one.path for one in looked.seen if one.kind is Kind.DIRECTORY and one.change.scope is not Scope.ENTRY]
        learning = asyncio.create_task(self._learn(trees)) if trees else None
        async with self._gate.enter(set().union(*(run.paths() for run in runs))):
            for run in runs:
                outcome.add(await self._carry_out(run))
                if outcome.away or outcome.full:
                    break
        if not outcome.away and not outcome.full and settings.preserve.times and self._gate.empty:
            await self._mend_times()
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

    async def _mend_times(self) -> None:
        """Directories that several runs wrote to at once hold the times that the last of them read first."""
        directories = self._gate.take_shared()
        if directories:
            if directories != {b""}:
                directories.discard(b"")  # The root is brought over with any name below it.
            run = Run(Style(root_only=directories == {b""}), dict.fromkeys(directories, ()))
            async with self._gate.enter(directories):
                await self._rsync(run, Outcome())

    async def _look(self, batch: Batch) -> Look:
        big = None if batch.flushing else self._big
        if len(batch.changes) <= INLINE_CHANGES:
            return look(self._source_fd, batch.changes, big=big, now_s=batch.now_s)
        return await asyncio.to_thread(look, self._source_fd, batch.changes, big=big, now_s=batch.now_s)

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

    async def _carry_out(self, run: Run) -> Outcome:
        """One run, and whatever it takes to know what became of each of its changes."""
        outcome = Outcome()
        ended = await self._rsync(run, outcome)
        kind, words = verdict(ended.status, ended.stderr)
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
        said = list(complaints(ended.stderr, self._roots))
        if ended.skipped_deletes and run.style.prune:
            unreadable = sorted({c.path for c in said if c.in_source and not c.vanished and c.path})
            again = await self._rsync(run, outcome, leave_out=unreadable) if unreadable else ended
            if again.skipped_deletes:
                reason = words if not said else said[0].text
                outcome.failures += [Failure(c, f"nothing was deleted: {reason}") for c in run.changes()]
                return
        differing: list[Item] = []
        if not self._settings.dry_run:
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
        argv = command(self._settings, self._abilities, run.style, leave_out=leave_out)
        progress = self.progress
        dry_run = self._settings.dry_run
        skipped = False

        def on_line(line: bytes) -> None:
            nonlocal skipped
            # As few steps as can be: there is one line for each name. The first column is eleven letters wide.
            if line[11:12] != b"|":
                skipped = skipped or b"skipping file deletion" in line
                return
            if dry_run and (one := item(line)) is not None:
                log.info("would-change", extra=fields(path=one.path, item=one.what.decode("ascii", "replace")))
            if line[0] == ASTERISK:
                outcome.deleted += 1
                return
            outcome.entries += 1
            progress.entries += 1
            if line.startswith((b">f", b"<f")):
                size = int(line[12 : line.index(b"|", 12)])
                outcome.files += 1
                outcome.bytes_copied += size
                progress.files += 1
                progress.bytes_copied += size
            elif line[1:2] == b"d":
                progress.directories += 1

        return await self._start(argv, run, on_line, lambda: skipped)

    async def _compare(self, run: Run, differing: list[Item]) -> _Ended:
        """What still differs, as rsync's own dry run has it."""

        def on_line(line: bytes) -> None:
            if (one := item(line)) is not None:
                differing.append(one)

        argv = command(self._settings, self._abilities, run.style, compare_only=True)
        return await self._start(argv, run, on_line, lambda: False)

    async def _start(
        self, argv: Sequence[bytes], run: Run, on_line: Callable[[bytes], None], skipped: Callable[[], bool]
    ) -> _Ended:
        # By the descriptor, not by name: a root renamed or mounted over between the check and the run is still the
        # one that was looked at.
        status, stderr = await _run(argv, b"/proc/self/fd/%d" % self._source_fd, run.listing(), on_line)
        if log.isEnabledFor(logging.DEBUG):
            log.debug("rsync-ended", extra=fields(status=status, names=len(run.members), style=str(run.style)))
        return _Ended(status, stderr, skipped())

    # ---- the end ----

    async def close(self) -> None:
        """End the shared ssh connection."""
        control, self._control = self._control, None
        if control is None:
            return
        self._settings = replace(self._settings, control_path=None)
        with contextlib.suppress(OSError, TimeoutError):
            argv = end_master(control + b"/s", self._address.host)
            await asyncio.wait_for(process.run(argv, directory=None, listing=b"", on_line=_ignore), 5)
        shutil.rmtree(control, ignore_errors=True)


async def _run(
    argv: Sequence[bytes], directory: bytes, listing: bytes, on_line: Callable[[bytes], None]
) -> process.Exit:
    try:
        return await process.run(argv, directory=directory, listing=listing, on_line=on_line)
    except OSError as error:  # EAGAIN, ENOMEM: no process can be made now; ENOENT: rsync is gone
        return process.Exit(CANNOT_START, str(error).encode())


def _ignore(_: bytes) -> None:
    pass


def _private_directory() -> bytes:
    """A new directory of mode 0700 with a short path: a socket's path may have 107 bytes, ssh adds 17 for a while."""
    for parent in (None, "/tmp"):  # noqa: S108  # mkdtemp makes it private
        directory = os.fsencode(tempfile.mkdtemp(prefix="instep-", dir=parent))
        if len(directory) <= 80 and b" " not in directory and b"'" not in directory and b'"' not in directory:
            return directory
        os.rmdir(directory)
    raise TargetError("no-place-for-socket", "no directory for ssh's socket", fix="set TMPDIR to a short path")


def _spellings(source: bytes, at: Address) -> tuple[bytes, ...]:
    """The roots as rsync may write them in its messages, longest first."""
    roots = {source, os.path.realpath(source)}
    if at.path:
        roots.add(at.path)
        if at.reach is Reach.LOCAL:
            roots.add(os.path.realpath(at.path))
    return tuple(sorted(roots, key=len, reverse=True))
