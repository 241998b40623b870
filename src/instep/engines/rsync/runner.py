"""rsync at work: one run from its arguments to what it said, and whether it may delete that much."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from instep.core.deletions import NONE_MAY_GO
from instep.engines.rsync import process
from instep.engines.rsync.command import Abilities, Reach, Settings, Style, command, listing
from instep.engines.rsync.output import Complaint, Item, complaints, deletions_stopped, item, names_listed
from instep.engines.rsync.plan import Run
from instep.engines.rsync.roots import Roots
from instep.engines.rsync.verdict import CANNOT_START, HUNG, NO_TARGET, Verdict, verdict
from instep.errors import TargetAway, TargetError
from instep.logs import fields
from instep.model import Held, Landmarks, Outcome, Progress
from instep.spec import MaxDelete

log = logging.getLogger(__name__)

ASTERISK = 0x2A
"""Begins the line of a deleted name."""

PLUS = 0x2B
"""Follows the two letters of the kind in the line of a name that the target did not have."""

EXAMPLES = 5
"""So many of the names to be deleted are shown."""

_MADE = b"cd+++++++++|"
"""Begins the line of a directory that is made: ``./`` is the target itself."""

PROBE_HERE = b"instep-probe-here"
PROBE_GONE = b"instep-probe-gone"

OnLine = Callable[[bytes], None]
"""Is given each line of rsync's standard output, without its end."""


class Ended(NamedTuple):
    """What became of a run."""

    status: int
    stderr: bytes
    skipped_deletes: bool = False
    """rsync met a read error in the source, and then deletes nothing any more."""
    kept: int = 0
    """Names that both sides had, as far as a limited run told."""
    names: int = 0
    """Names that the source had, the same."""


class Runner:
    """Starts rsyncs between two roots. Lives in the loop; none of its coroutines raises for what rsync says."""

    def __init__(
        self,
        settings: Settings,
        roots: Roots,
        *,
        progress: Progress,
        max_delete: MaxDelete,
        locks: Callable[[], Sequence[int]] | None,
    ) -> None:
        """``locks``: descriptors that an rsync keeps until it has ended, even if that is after our end."""
        self.settings = settings
        """The remote shell in it is known once the target is open."""
        self.abilities = Abilities()
        """Known after ``probe``."""
        self._roots = roots
        self._progress = progress
        self._max_delete = max_delete
        self._locks = locks

    # ---- what the two rsyncs can do ----

    async def probe(self) -> None:
        """Find out what the target can do, and give up what one of the two rsyncs cannot.

        Raises:
            TargetAway: nobody can tell now.
            TargetError: they cannot work together, or refuse the operator's arguments.
        """
        self.abilities = Abilities()
        with tempfile.TemporaryDirectory(prefix="instep-probe-") as scratch:
            directory = os.fsencode(scratch)
            os.mknod(os.path.join(directory, PROBE_HERE), 0o600)
            while await self._probe(directory):
                pass

    async def _probe(self, directory: bytes) -> bool:
        """Let the far side read a harmless list, changing nothing; True: an ability was given up, probe again.

        One name that exists and one that does not: that is what receivers with a broken --delete-missing-args
        stumble over (rsync 3.4.3, and distributions' security updates that keep an older version number).
        """
        settings = replace(self.settings, rules=(), dry_run=True)
        argv = command(settings, self.abilities, Style(prune=True))
        names = b"./" + PROBE_HERE + b"\0./" + PROBE_GONE + b"\0"
        sees_target = True

        def on_line(line: bytes) -> None:
            nonlocal sees_target
            sees_target = sees_target and not (line.startswith(_MADE) and line.endswith(b"|./"))

        status, stderr = await self._rsync(argv, names, on_line, directory=directory)
        if not sees_target and self._roots.target_inode and self.abilities.by_descriptor:
            # A program in front of it, sudo say, closes it.
            self.abilities = replace(self.abilities, by_descriptor=False)
            return True
        if status in (0, 23, 24):
            return False
        target = settings.address.argument
        abilities = self.abilities
        if abilities.acls and b"ACLs are not supported" in stderr:
            log.warning("acls-dropped", extra=fields(target=target, now="ACLs are not kept there"))
            self.abilities = replace(abilities, acls=False)
            return True
        if abilities.xattrs and (
            b"xattrs are not supported" in stderr or b"extended attributes are not" in stderr.lower()
        ):
            log.warning("xattrs-dropped", extra=fields(target=target, now="xattrs are not kept there"))
            self.abilities = replace(abilities, xattrs=False)
            return True
        if b"modify-window" in stderr:
            raise TargetError(
                "rsync-too-old",
                "the target's rsync cannot compare times by the nanosecond",
                fix="install rsync 3.1.3 or newer at the target",
            )
        if abilities.missing_args and settings.delete and (status in (2, 4) or b"delete-missing-args" in stderr):
            log.info("missing-args-unusable", extra=fields(target=target, now="directories are listed"))
            self.abilities = replace(abilities, missing_args=False)
            return True
        kind, words = verdict(status, stderr)
        if status in (1, 2, 4):
            raise TargetError("rsync-refused", words, fix="check the rsync arguments and the target's configuration")
        if kind in (Verdict.AWAY, Verdict.FULL):
            raise TargetAway(words)
        raise TargetError("rsync-unusable", words)

    # ---- bringing over ----

    async def bring(self, run: Run, outcome: Outcome, *, leave_out: Sequence[bytes] = ()) -> Ended:
        """One run; a limited one only brings over, and shows what there is to delete. That, or not, is for another."""
        ended = await self._once(run, outcome, leave_out)
        if not run.style.limited or not (count := deletions_stopped(ended.stderr)):
            return ended
        limit = NONE_MAY_GO if run.style.strict else self._max_delete
        run = run.styled(limited=False)
        if count > limit.most(ended.kept, source=ended.names):
            outcome.held = await self._held(run, ended, count, leave_out)
            run = run.styled(prune=False)  # Not the limited run's word: names that stood in the way stayed there.
        return await self._once(run, outcome, leave_out)

    async def _held(self, run: Run, ended: Ended, count: int, leave_out: Sequence[bytes]) -> Held:
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

        argv = command(self.settings, self.abilities, run.style, compare_only=True, leave_out=leave_out)
        await self._start(argv, run, on_line)
        count = max(count, found)
        return Held(count, ended.kept + count, tuple((tops + deeper)[:EXAMPLES]), source_is_empty=not ended.names)

    async def _once(self, run: Run, outcome: Outcome, leave_out: Sequence[bytes]) -> Ended:
        argv = command(self.settings, self.abilities, run.style, leave_out=leave_out, only=run.only)
        progress = self._progress
        dry_run = self.settings.dry_run
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

        ended = await self._start(argv, run, on_line)
        return ended._replace(
            skipped_deletes=skipped, kept=max(0, names - created - 1), names=max(0, names - 1)
        )  # 1: the root

    async def _start(self, argv: Sequence[bytes], run: Run, on_line: OnLine) -> Ended:
        locks = self._locks() if self._locks is not None else ()
        settings = self.settings
        alone = settings.address.reach is Reach.LOCAL and not settings.extra_args
        status, stderr = await self._rsync(argv, run.listing(), on_line, locks, alone=alone)
        if status == HUNG:
            log.warning(
                "rsync-hung",
                extra=fields(
                    target=settings.address.argument,
                    names=len(run.members),
                    now="it was ended; its names are brought over in smaller parts",
                ),
            )
        if log.isEnabledFor(logging.DEBUG):
            log.debug("rsync-ended", extra=fields(status=status, names=len(run.members), style=str(run.style)))
        return Ended(status, stderr)

    async def _rsync(
        self,
        argv: Sequence[bytes],
        listed: bytes,
        on_line: OnLine,
        keeps: Sequence[int] = (),
        *,
        directory: bytes | None = None,
        alone: bool = False,
    ) -> tuple[int, bytes]:
        """Run a command that ends in the target: where that is here, by a descriptor of what was looked at.

        rsync makes a directory that is not there, and fills any that it finds under the name.
        """
        directory = directory or self._roots.directory
        if not self._roots.target_inode or not self.abilities.by_descriptor:
            return await _run(argv, directory, listed, on_line, keeps, alone=alone)
        fd = self._roots.target_descriptor()
        if fd < 0:
            return NO_TARGET, (self._roots.trouble() or "the target was not there for a moment").encode()
        link = b"/proc/self/fd/%d" % fd
        try:
            argv = [*argv[:-1], link + b"/"]
            status, stderr = await _run(argv, directory, listed, on_line, [*keeps, fd], alone=alone)
        finally:
            os.close(fd)
        # Each name in it stands in quotes.
        return status, stderr.replace(b'"' + link + b"/", b'"' + self.settings.address.argument)

    # ---- asking ----

    async def differing(self, run: Run, *, joined: bool = True) -> tuple[Ended, list[Item]]:
        """What still differs of what a run brought over, as rsync's own dry run has it; links only if ``joined``."""
        found: list[Item] = []

        def on_line(line: bytes) -> None:
            if (one := item(line)) is not None:
                found.append(one)

        settings = self.settings
        if not joined:
            settings = replace(settings, preserve=settings.preserve._replace(hard_links=False))
        argv = command(settings, self.abilities, run.style, compare_only=True, only=run.only)
        return await self._start(argv, run, on_line), found

    async def compare(self, style: Style, names: Sequence[bytes], on_line: OnLine) -> list[Complaint]:
        """Let rsync say what differs, line by line, at the lowest priority; nothing is changed.

        Returns:
            What it could not look at.

        Raises:
            TargetAway: it did not come to its end, or one of the roots is another directory by now.
        """
        argv = [*_gently(), *command(self.settings, self.abilities, style, compare_only=True)]
        listed = b"".join(b"./" + name + b"\0" for name in names)
        status, stderr = await self._rsync(argv, listed, on_line)
        if (trouble := self._roots.trouble()) is not None:
            raise TargetAway(trouble)
        kind, words = verdict(status, stderr)
        if kind not in (Verdict.DONE, Verdict.PARTIAL):
            raise TargetAway(words)
        return [complaint for complaint in complaints(stderr, self._roots.spellings) if not complaint.vanished]

    async def landmarks(self) -> Landmarks | None:
        """The address and, of a directory here, its inode; with the names in the root, which one rsync lists."""
        names: set[bytes] = set()

        def on_line(line: bytes) -> None:
            found = item(line)
            if found is not None and found.path:
                names.add(found.path)

        with tempfile.TemporaryDirectory(prefix="instep-probe-") as nowhere:
            status, _ = await _run(listing(self.settings, os.fsencode(nowhere)), b"/", b"", on_line)
        if status:
            return None
        return Landmarks(self.settings.address.argument + b" %d" % self._roots.target_inode, frozenset(names))


async def _run(
    argv: Sequence[bytes],
    directory: bytes,
    listed: bytes,
    on_line: OnLine,
    keeps: Sequence[int] = (),
    *,
    alone: bool = False,
) -> tuple[int, bytes]:
    """The exit status, or what stands for one that there is not, and the standard error."""
    try:
        end = await process.run(argv, directory=directory, listing=listed, on_line=on_line, keeps=keeps, alone=alone)
    except OSError as error:  # EAGAIN, ENOMEM: no process can be made now; ENOENT: rsync is gone
        return CANNOT_START, str(error).encode()
    return HUNG if end.hung else end.status, end.stderr


def _gently() -> list[bytes]:
    """What to write before a command so that it takes only what others leave."""
    words = [b"nice", b"-n", b"19"] if shutil.which("nice") else []
    return [*words, b"ionice", b"-c", b"3"] if shutil.which("ionice") else words
