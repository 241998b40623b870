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
from dataclasses import dataclass

from instep.model import TEMPORARY_PREFIX, TEMPORARY_SUFFIX
from instep.spec import Preserve, Rule

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


def address(target: bytes) -> Address:
    """Take a target apart by rsync's own rule: it is remote when a colon stands before the first slash."""
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


@dataclass(frozen=True, slots=True)
class Settings:
    """What is the same for every run of one target."""

    address: Address
    preserve: Preserve
    rules: tuple[Rule, ...] = ()
    delete: bool = True
    delete_excluded: bool = False
    extra_args: tuple[bytes, ...] = ()
    bandwidth_bytes_per_s: float = math.inf
    one_file_system: bool = False
    dry_run: bool = False
    control_path: bytes | None = None
    """The ssh master's socket, when ssh is ours to configure."""


def own_shell(extra_args: Sequence[bytes]) -> bool:
    """Whether the operator's arguments choose the remote shell."""
    return any(a.startswith(b"--rsh") or (a.startswith(b"-e") and not a.startswith(b"--")) for a in extra_args)


def ssh(control_path: bytes) -> list[bytes]:
    """The ssh command that shares one connection among all runs."""
    return [
        *(b"ssh", b"-o", b"ControlPath=" + control_path.replace(b"%", b"%%")),
        *(b"-o", b"ControlMaster=auto", b"-o", b"ControlPersist=600", b"-o", b"BatchMode=yes"),
        *(b"-o", b"ServerAliveInterval=5", b"-o", b"ServerAliveCountMax=3", b"-o", b"ConnectTimeout=10"),
    ]


def end_master(control_path: bytes, host: bytes) -> list[bytes]:
    """The command that ends the shared ssh connection."""
    return [b"ssh", b"-o", b"ControlPath=" + control_path.replace(b"%", b"%%"), b"-O", b"exit", b"--", host]


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
    return [hidden, *((b"--filter=+ " if rule.include else b"--filter=- ") + rule.pattern for rule in rules)]


def command(settings: Settings, abilities: Abilities, style: Style, *, compare_only: bool = False,
            leave_out: Sequence[bytes] = ()) -> list[bytes]:  # fmt: skip
    """The whole command for one run; it is started in the source directory.

    Args:
        settings: what is the same for every run.
        abilities: what the far side understands.
        style: how the names of this run are treated.
        compare_only: change nothing, print what still differs.
        leave_out: source paths that can not be read, neither to be sent nor deleted.
    """
    at = settings.address
    argv = [b"rsync", preserved(settings.preserve, abilities)]
    argv += [b"--recursive" if style.recurse else b"--no-recursive"]
    argv += [b"--from0", b"--files-from=-", b"--modify-window=-1", b"--numeric-ids", b"--8-bit-output", OUT_FORMAT]
    if style.ignore_times and not compare_only:
        argv.append(b"--ignore-times")
    if settings.delete:
        argv.append(b"--force")
        if abilities.missing_args:
            argv.append(b"--delete-missing-args")
        if style.prune:
            argv.append(b"--delete")
            if settings.delete_excluded:
                argv.append(b"--delete-excluded")
    if settings.one_file_system:
        argv.append(b"--one-file-system")
    if settings.dry_run or compare_only:
        argv.append(b"--dry-run")
    if not math.isinf(settings.bandwidth_bytes_per_s):
        argv.append(b"--bwlimit=%d" % max(1, round(settings.bandwidth_bytes_per_s / 1024)))
    if at.reach is Reach.DAEMON:
        argv += [b"--sockopts=TCP_NODELAY", b"--contimeout=10"]
    if at.reach is not Reach.LOCAL:
        argv.append(b"--timeout=60")
    if at.reach is Reach.SSH:
        if settings.control_path is not None:
            argv += [b"-e", b" ".join(ssh(settings.control_path))]
        if not _PLAIN_REMOTE_PATH.fullmatch(at.path):
            argv.append(b"--protect-args")  # rsync before 3.2.4 lets the remote shell split and expand the path
    argv += [b"--filter=- " + anchored(path) for path in leave_out]
    if style.root_only:
        argv.append(b"--filter=- *")
    argv += filters(settings.rules)
    argv += settings.extra_args
    return [*argv, b"--", b"./", at.argument]


_SPECIAL = re.compile(rb"[\[*?\\]")


def anchored(path: bytes) -> bytes:
    """A filter pattern that matches this very path of the source.

    A backslash escapes only in patterns that hold one of ``*?[``; in others it is itself (exclude.c, rule_matches).
    """
    if not any(wild in path for wild in (b"*", b"?", b"[")):
        return b"/" + path
    return b"/" + _SPECIAL.sub(rb"\\\g<0>", path)
