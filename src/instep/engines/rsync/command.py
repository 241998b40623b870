"""The rsync command line: what each part of a run needs, as an argument list.

Facts (rsync 3.5.0 and receivers back to 3.0.9, measured):
- Names on a ``--files-from`` list that begin with ``#`` or ``;`` are comments even with ``--from0``; ``./`` in front
  makes them names, and the root directory an implied entry, so that its mode and time are brought over as well.
- The default quick check compares whole seconds; ``--modify-window=-1`` compares nanoseconds. Even so a copy that
  overlapped the last write may be torn with equal size and time: only ``--ignore-times`` heals that.
- Filter rules apply to explicitly listed names too, and protect what they match from being deleted.
- Without TCP_NODELAY a run against a daemon takes 96 ms instead of 8.
- rsync splits ``-e`` at blanks itself; no shell is involved on this side.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from instep.core.filters import anchored, anchored_tree
from instep.engines.ssh import place
from instep.paths import TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from instep.rules import Preserve, Rule

OUT_FORMAT = b"--out-format=%i|%l|%n"

_REMOTE = re.compile(rb"((?:[^@:/]+@)?(?:\[[^]/]*\]|[^:/\[]*)):(.*)", re.DOTALL)
_PLAIN_REMOTE_PATH = re.compile(rb"[A-Za-z0-9_./:@%+,=~\[\]-]*")


class Reach(enum.Enum):
    """The way rsync takes to a target."""

    LOCAL = "local"
    SSH = "ssh"
    DAEMON = "daemon"


@dataclass(frozen=True, slots=True)
class Address:
    """A target as rsync reads it."""

    reach: Reach
    argument: bytes
    """What stands on the command line; always ends in a slash."""
    host: bytes = b""
    """``user@host`` for ssh."""
    path: bytes = b""
    """The directory on that side, without the trailing slash, as far as the address tells."""
    port: int | None = None
    """Of ssh, where the address names one."""


def address(target: bytes) -> Address:
    """Take a target apart by rsync's own rule: it is remote when a colon stands before the first slash.

    ``ssh://host:port/path``, which rsync does not know, is put into its words.
    """
    if target.startswith(b"ssh://") and (url := place(target)) is not None:
        user, at, host = url.host.rpartition(b"@")
        named = user + at + (b"[%b]" % host if b":" in host else host)
        return replace(address(b"%b:%b" % (named, url.path)), port=url.port)
    bare = target.rstrip(b"/")
    argument = bare + b"/"
    if target.startswith(b"rsync://"):
        return Address(Reach.DAEMON, argument)
    found = _REMOTE.fullmatch(target)
    if found is None:
        return Address(Reach.LOCAL, argument, path=bare)
    host, rest = found[1], found[2]
    if rest.startswith(b":"):
        return Address(Reach.DAEMON, argument)
    if not rest.rstrip(b"/"):
        # "host:" is the home directory there, "host:/" the root; stripping must not turn one into the other.
        argument = target if rest else target + b"./"
    return Address(Reach.SSH, argument, host.replace(b"[", b"").replace(b"]", b""), rest.rstrip(b"/"))


@dataclass(frozen=True, slots=True)
class Abilities:
    """What the far side's rsync was found to understand."""

    missing_args: bool = True
    """``--delete-missing-args`` works there."""
    acls: bool = True
    xattrs: bool = True
    by_descriptor: bool = True
    """A target on this machine can be handed over as a descriptor: nothing closes that before rsync is there."""


@dataclass(frozen=True, slots=True)
class Style:
    """How one run treats the names on its list."""

    recurse: bool = False
    """Everything below a listed directory as well, not only the directory itself."""
    ignore_times: bool = False
    """Bring the content over even when size and time agree."""
    prune: bool = False
    """Delete what the source does not have, in the directories that are listed with their contents."""
    root_only: bool = False
    """The list holds the root alone, and none of its names is meant."""
    delete_only: bool = False
    """Nothing is brought over; only what the source does not have is taken away."""
    checksum: bool = False
    """Contents are compared, not only size and time: both sides read every file."""
    count: bool = False
    """Say at the end how many names there were."""
    limited: bool = False
    """Delete nothing yet, but say how many names would be."""
    strict: bool = False
    """However few those are, none is deleted."""
    plain: bool = False
    """Nothing that it brings over, or brings it into, has ACLs or extended attributes: rsync need not look for any."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is the same for every run of one target."""

    address: Address
    preserve: Preserve
    rules: tuple[Rule, ...] = ()
    delete: bool = True
    delete_excluded: bool = False
    extra_args: tuple[bytes, ...] = ()
    program: bytes = b"rsync"
    bandwidth_bytes_per_s: float = math.inf
    one_file_system: bool = False
    dry_run: bool = False
    shell: bytes | None = None
    """rsync's remote shell, in its own quoting; None: whatever rsync takes by itself."""
    password_file: bytes = b""
    """For daemons; only its name is ever handed on."""


def own_shell(extra_args: Sequence[bytes]) -> bool:
    """Whether the operator's arguments choose the remote shell."""
    return any(a.startswith(b"--rsh") or (a.startswith(b"-e") and not a.startswith(b"--")) for a in extra_args)


def shell(words: Sequence[bytes]) -> bytes:
    """A command as rsync's ``-e`` takes it apart: at blanks outside quotes; a doubled quote inside them is one."""
    return b" ".join(
        b'"' + word.replace(b'"', b'""') + b'"' if not word or any(char in word for char in b" '\"") else word
        for word in words
    )


def preserved(preserve: Preserve, abilities: Abilities) -> bytes:
    """The bundle of single-letter options for what is to be kept; without root's rights rsync itself keeps less."""
    letters = b"-l"
    if preserve.mode:
        letters += b"p"
    if preserve.times:
        letters += b"t"
    if preserve.owner:
        letters += b"og"
    if preserve.devices:
        letters += b"D"
    if preserve.hard_links:
        letters += b"H"
    if preserve.acls and preserve.mode and abilities.acls:  # --acls switches --perms on
        letters += b"A"
    if preserve.xattrs and abilities.xattrs:
        letters += b"X"
    if preserve.sparse:
        letters += b"S"
    return letters


def filters(rules: Sequence[Rule]) -> list[bytes]:
    """The rules as arguments, in their order; our own temporary names are hidden first.

    Hidden, not excluded: a temporary left over at the target by a killed process is then deleted like any other
    name that the source does not have.
    """
    hidden = b"--filter=H " + TEMPORARY_PREFIX + b"*" + TEMPORARY_SUFFIX
    # The root is an entry among others to it, called ".": a rule that excludes all would leave its time as it is.
    root = [b"--filter=+ /./"] if rules else []
    return [hidden, *root, *((b"--filter=+ " if rule.include else b"--filter=- ") + rule.pattern for rule in rules)]


def command(settings: Settings, abilities: Abilities, style: Style, *, compare_only: bool = False,
            leave_out: Sequence[bytes] = (), only: Sequence[bytes] = ()) -> list[bytes]:  # fmt: skip
    """The whole command for one run; it is started in the source directory. The last word is the target.

    Args:
        settings: what is the same for every run.
        abilities: what the far side understands.
        style: how the names of this run are treated.
        compare_only: change nothing, print what still differs.
        leave_out: source paths that can not be read, neither to be sent nor deleted.
        only: if there are any, the only paths that may be deleted.
    """
    at = settings.address
    if style.plain and not compare_only:
        abilities = replace(abilities, acls=False, xattrs=False)
    argv = [settings.program, preserved(settings.preserve, abilities)]
    argv += [b"--recursive" if style.recurse else b"--no-recursive"]
    argv += [b"--from0", b"--files-from=-", b"--modify-window=-1", b"--8-bit-output", OUT_FORMAT]
    if at.reach is Reach.LOCAL or not settings.preserve.owner_names:
        argv.append(b"--numeric-ids")
    if style.ignore_times and not compare_only:
        argv.append(b"--ignore-times")
    if style.checksum:
        argv.append(b"--checksum")
    if style.count or style.limited:
        argv.append(b"--stats")
    if settings.delete:
        argv.append(b"--force")
        if abilities.missing_args:
            argv.append(b"--delete-missing-args")
        if style.prune:
            argv.append(b"--delete")
            if settings.delete_excluded:
                argv.append(b"--delete-excluded")
            if style.limited and not compare_only:
                argv.append(b"--max-delete=0")
    if style.delete_only:
        argv += [b"--existing", b"--ignore-existing"]
    if settings.one_file_system:
        argv.append(b"--one-file-system")
    if settings.dry_run or compare_only:
        argv.append(b"--dry-run")
    if not math.isinf(settings.bandwidth_bytes_per_s):
        argv.append(b"--bwlimit=%d" % max(1, round(settings.bandwidth_bytes_per_s / 1024)))
    argv += _transport(settings)
    argv += [b"--filter=R " + pattern for path in only for pattern in (anchored(path), anchored_tree(path))]
    if only:
        argv.append(b"--filter=P *")
    argv += [b"--filter=- " + anchored(path) for path in leave_out]
    if style.root_only:
        argv.append(b"--filter=- *")
    argv += filters(settings.rules)
    argv += settings.extra_args
    return [*argv, b"--", b"./", at.argument]


def listing(settings: Settings, nowhere: bytes) -> list[bytes]:
    """The command that prints the names in the target's root; ``nowhere`` is an empty directory."""
    argv = [settings.program, b"--dry-run", b"--links", b"--devices", b"--specials", b"--dirs", b"--ignore-times"]
    argv += [b"--8-bit-output", OUT_FORMAT, *_transport(settings), *settings.extra_args]
    return [*argv, b"--", settings.address.argument, nowhere]


def _transport(settings: Settings) -> list[bytes]:
    """How to get to the target."""
    at = settings.address
    argv: list[bytes] = []
    if at.reach is Reach.DAEMON:
        argv += [b"--sockopts=TCP_NODELAY", b"--contimeout=10"]
        if settings.password_file:
            argv.append(b"--password-file=" + settings.password_file)
    if at.reach is not Reach.LOCAL:
        argv.append(b"--timeout=60")
    if at.reach is Reach.SSH:
        if settings.shell is not None:
            argv += [b"-e", settings.shell]
        if not _PLAIN_REMOTE_PATH.fullmatch(at.path):
            argv.append(b"--protect-args")  # rsync before 3.2.4 lets the remote shell split and expand the path
    return argv
