"""The one table of options: the command line, its help, its errors, the defaults and docs/options.md come from it."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from instep.frontends.instep.kinds import (
    Choice,
    Deletable,
    Directory,
    Every,
    File,
    Flag,
    Kind,
    Program,
    Rate,
    Seconds,
    Size,
    Whole,
    Words,
)
from instep.spec import Compress, EngineName, InitialSync, MirrorSpec, MonitorName


class Reload(enum.Enum):
    """When a change of the option takes effect."""

    RESTART = "at the next start"
    SIGHUP = "on SIGHUP"
    """The file is read again; the option itself belongs to the command line, which never changes."""


class LogFormat(enum.Enum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


class ShowProgress(enum.Enum):
    """When a progress bar is drawn."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


class Format(enum.Enum):
    """How a command's answer is written."""

    TEXT = "text"
    JSON = "json"


class Group(enum.Enum):
    """Headings in help, in their order."""

    TIMING = "When a change is brought over"
    CHOICE = "What is brought over"
    KEEP = "What is kept"
    START = "Start and end"
    HOW = "How"
    VERIFY = "Verification"
    TALK = "Messages"


@dataclass(frozen=True, slots=True)
class Option:
    """One row."""

    flags: tuple[str, ...]
    """As typed, the long one last."""
    kind: Kind
    default: object
    help: str
    group: Group
    lands: str
    """Where the value goes: a field of MirrorSpec (``pace.quiet_s``), ``target.engine``, or ``ui.NAME``."""
    repeat: bool = False
    """It may be given more than once; all are taken, in their order."""
    reload: Reload = Reload.RESTART

    @property
    def name(self) -> str:
        """The long flag."""
        return self.flags[-1]

    @property
    def is_flag(self) -> bool:
        """It takes no value."""
        return isinstance(self.kind, Flag)

    @property
    def shown_default(self) -> str:
        """The default as one would type it."""
        return self.kind.show(self.default)


_SPEC: Final = MirrorSpec(source=b"/", targets=())
"""Its defaults are the defaults."""


def _option(
    flags: str, kind: Kind, lands: str, group: Group, help_text: str, *, default: object = None, repeat: bool = False,
    reload: Reload = Reload.RESTART,
) -> Option:  # fmt: skip
    if default is None and not repeat:
        at: object = _SPEC
        for part in lands.split("."):
            at = getattr(at, part)
        default = at
    return Option(tuple(flags.split()), kind, default, help_text, group, lands, repeat=repeat, reload=reload)


def _rows() -> Iterator[Option]:
    timing, choice, keep, start, how, verify, talk = Group
    yield _option(
        "--quiet-time",
        Seconds(),
        "pace.quiet_s",
        timing,
        "Bring a path over once it has been unchanged for this long; 0: at once.",
    )
    yield _option(
        "--hold-time",
        Seconds(),
        "pace.hold_s",
        timing,
        "Bring a path over this long after its first change, even if it never rests.",
    )
    yield _option(
        "--big",
        Size(),
        "pace.big_bytes",
        timing,
        "Files of this size in bytes and more follow the two times below instead.",
    )
    yield _option("--big-quiet-time", Seconds(), "pace.big_quiet_s", timing, "--quiet-time of big files.")
    yield _option("--big-hold-time", Seconds(), "pace.big_hold_s", timing, "--hold-time of big files.")
    yield _option(
        "--spacing",
        Seconds(),
        "pace.spacing_s",
        timing,
        "Let at least this long pass between the starts of two batches to one target.",
    )

    yield _option(
        "--include",
        Words("PATTERN"),
        "rules",
        choice,
        repeat=True,
        help_text="Bring over what matches. Patterns are rsync's; the first that matches decides, so order counts.",
    )
    yield _option(
        "--exclude", Words("PATTERN"), "rules", choice, repeat=True, help_text="Leave out what matches, on both sides."
    )
    yield _option(
        "--include-from",
        Words("FILE"),
        "rules",
        choice,
        repeat=True,
        reload=Reload.SIGHUP,
        help_text="Patterns from a file, one a line; '- ' in front excludes, # and ; begin comments.",
    )
    yield _option(
        "--exclude-from",
        Words("FILE"),
        "rules",
        choice,
        repeat=True,
        reload=Reload.SIGHUP,
        help_text="The same; without '+ ' in front a pattern excludes.",
    )
    yield _option(
        "--no-delete",
        Flag(value=False),
        "delete",
        choice,
        "Keep at the targets what the source no longer has, also a directory that is in the way of something else.",
    )
    yield _option("--delete-excluded", Flag(), "delete_excluded", choice, "Delete excluded names at the targets.")
    yield _option(
        "--max-delete",
        Deletable(),
        "max_delete",
        choice,
        "When a comparison of the whole tree would delete more names than this at a target, or than this share of "
        "them, delete none, say so, and wait for the signal RTMIN+1; the same, however few they are, when the source "
        "is empty or a file system that was mounted in it is missing. none or 100%: no limit.",
    )
    yield _option(
        "--force-delete",
        Flag(),
        "force_delete",
        choice,
        "The comparison at this start may delete without limit, also what was on file systems that are missing.",
    )
    yield _option(
        "-x --one-file-system", Flag(), "one_file_system", choice, "Leave out what is mounted below the source."
    )

    for name, field, what in (
        ("owner", "owner", "Owners"),
        ("perms", "mode", "Permissions"),
        ("times", "times", "Modification times"),
        ("xattrs", "xattrs", "Extended attributes"),
        ("acls", "acls", "Access control lists"),
        ("hard-links", "hard_links", "Hard links"),
        ("devices", "devices", "Devices, sockets, FIFOs"),
    ):
        yield _option(f"--no-{name}", Flag(value=False), f"preserve.{field}", keep, f"{what} are not kept.")
    yield _option(
        "--owner-names",
        Flag(),
        "preserve.owner_names",
        keep,
        "On other machines an owner is whoever has the same name there, and where nobody has it, the same number; "
        "without this option it is always the same number.",
    )

    yield _option(
        "--initial-sync",
        Choice(InitialSync),
        "initial_sync",
        start,
        "What is compared at start. auto: the source with the index, where that can be believed, else everything."
        " full: everything. index: as auto, or refuse. none: nothing, the targets are taken to be in step.",
    )
    yield _option(
        "--once",
        Flag(),
        "once",
        start,
        "End when everything is in step; exit status 1 if something could not be brought over.",
    )
    yield _option(
        "--state-dir",
        Directory(),
        "state_dir",
        start,
        default="auto",
        help_text="Where to remember things between two runs; auto: /var/lib/instep as root, else "
        "$XDG_STATE_HOME/instep or ~/.local/state/instep. It is never mirrored itself. none: remember nothing.",
    )
    yield _option("-n --dry-run", Flag(), "dry_run", start, "Say what would be done, change nothing.")

    yield _option(
        "--monitor",
        Choice(MonitorName),
        "monitor",
        how,
        "How changes are noticed; auto takes the best that works here.",
    )
    yield _option("--poll-interval", Seconds(least=0.05), "poll_s", how, "Time between two looks of the poll monitor.")
    yield _option(
        "--engine",
        Choice(EngineName),
        "target.engine",
        how,
        default=EngineName.AUTO,
        help_text="How targets are reached; auto: native for directories of this machine, remote where ssh leads "
        "(rsync, if there is no python3), rsync for its daemons.",
    )
    yield _option(
        "--inplace-from",
        Size(),
        "inplace_bytes",
        how,
        "Patch changed files of this size in bytes and more in place: fast, but not atomic: a reader may see "
        "half of a change, and a crash leaves it so until the next start.",
    )
    yield _option(
        "--bwlimit",
        Rate(),
        "bandwidth_bytes_per_s",
        how,
        "At most this much a second to each target; a plain number is KiB, suffixes as for sizes, 0: no limit.",
    )
    yield _option(
        "--compress",
        Choice(Compress),
        "compress",
        how,
        "Pack what the remote engine sends; auto: where the connection is slow enough to gain by it.",
    )
    yield _option(
        "--rsync-arg",
        Words("ARG"),
        "rsync_args",
        how,
        repeat=True,
        help_text="One more argument for every rsync, e.g. --rsync-arg=--compress.",
    )
    yield _option(
        "--ssh",
        Program(),
        "ssh",
        how,
        'The ssh command, e.g. "ssh -p 2222 -i /etc/instep/key". It never asks for anything: keys and host keys must '
        "be in place.",
    )
    yield _option(
        "--password-file",
        File(),
        "password_file",
        how,
        "The password for rsync daemons, in the first line of a file that only its owner may read.",
    )
    yield _option("--workers", Whole(1, 256), "workers", how, "Processes that copy in bulk for the native engine.")

    yield _option(
        "--verify",
        Every(),
        "verify",
        verify,
        "Compare each target with the source this long after the comparison before, at the lowest priority, and "
        "bring in step what differs; checksum: contents too.",
    )

    yield _option("-v --verbose", Flag(), "ui.verbose", talk, repeat=True, help_text="Say more: every change.")
    yield _option(
        "-q --quiet",
        Flag(),
        "ui.quiet",
        talk,
        repeat=True,
        help_text="Say less: only warnings and errors; twice: only errors. (For a quiet time see --quiet-time.)",
    )
    yield _option(
        "--log-format",
        Choice(LogFormat),
        "ui.log_format",
        talk,
        default=LogFormat.TEXT,
        help_text="How log lines are written; json: one object a line.",
    )
    yield _option(
        "--progress",
        Choice(ShowProgress),
        "ui.progress",
        talk,
        default=ShowProgress.AUTO,
        help_text="Draw a progress bar for the first comparison; auto: if standard error is a terminal.",
    )


MIRROR: Final[tuple[Option, ...]] = tuple(_rows())
"""The options of ``instep mirror``."""

CHECK: Final[tuple[Option, ...]] = (
    *(option for option in MIRROR if option.group is Group.KEEP),
    *(option for option in MIRROR if option.name in ("--engine", "--rsync-arg", "--ssh", "--password-file")),
    _option(
        "--format",
        Choice(Format),
        "ui.format",
        Group.TALK,
        "How the answer is written; json: one object a target, one a line.",
        default=Format.TEXT,
    ),
)
"""The options of ``instep check``: those of the mirror that is meant, as far as they touch a target."""


def _verify_rows() -> Iterator[Option]:
    verify = Group.VERIFY
    yield _option(
        "--checksum",
        Flag(),
        "ui.checksum",
        verify,
        default=False,
        help_text="Compare contents too: both sides read every file, at most --bwlimit a second. What the kernel holds "
        "in memory is not read from the disk again.",
    )
    yield _option(
        "--repair",
        Flag(),
        "ui.repair",
        verify,
        default=False,
        help_text="Bring in step what differs, and look at it again.",
    )
    yield _option(
        "--format",
        Choice(Format),
        "ui.format",
        verify,
        default=Format.TEXT,
        help_text="How differences are written to standard output; json: one object a line.",
    )
    shared = {
        *("--state-dir", "--engine", "--inplace-from", "--bwlimit", "--rsync-arg", "--ssh", "--password-file"),
        *("--workers", "--verbose", "--quiet", "--log-format"),
    }
    for option in MIRROR:
        if option.group in (Group.CHOICE, Group.KEEP) or option.name in shared:
            yield option


VERIFY: Final[tuple[Option, ...]] = tuple(_verify_rows())
"""The options of ``instep verify``."""

AGENT: Final[tuple[Option, ...]] = (
    _option("--root", Words("DIR"), "ui.root", Group.HOW, "Write below this directory, and nowhere else.", default=""),
    _option(
        "--receive-only",
        Flag(),
        "ui.receive_only",
        Group.HOW,
        "Take what is sent, and give out no content of any file. There is no other way; it has to be said.",
        default=False,
    ),
)
"""The options of ``instep agent``."""

UNITS: Final = (
    "SECONDS takes the units ms, s, m, h. SIZE and RATE take K, M, G, T (powers of 1024) or KB, MB ... (of 1000)."
)


def options_page() -> str:
    """docs/options.md."""
    lines = [
        "# Options of `instep mirror`",
        "",
        "Made from the option table by `python -m instep.frontends.instep.options > docs/options.md`.",
        "",
        "    instep mirror [OPTION...] SOURCE TARGET [TARGET...]",
        "",
        "A target is a directory, or what rsync takes: `host:/path`, `rsync://host/module/path`, `host::module/path`.",
        UNITS,
    ]
    for group in Group:
        lines += [
            "",
            f"## {group.value}",
            "",
            "| option | default | takes effect | meaning |",
            "| --- | --- | --- | --- |",
        ]
        lines += [_line(option) for option in MIRROR if option.group is group]
    also = ", ".join(f"`{option.name}`" for option in VERIFY if option.group in (Group.START, Group.HOW))
    lines += [
        "",
        "# Options of `instep verify`",
        "",
        "    instep verify [OPTION...] SOURCE TARGET [TARGET...]",
        "",
        f"Those of `instep mirror` under *{Group.CHOICE.value}*, *{Group.KEEP.value}* and *{Group.TALK.value}*,",
        f"{also}; and:",
        "",
        "| option | default | takes effect | meaning |",
        "| --- | --- | --- | --- |",
        *(_line(option) for option in VERIFY if option not in MIRROR),
    ]
    return "\n".join([*lines, ""])


def _line(option: Option) -> str:
    flags = ", ".join(f"`{flag}`" for flag in option.flags)
    value = "" if option.is_flag else " " + option.kind.metavar.replace("|", "\\|")
    repeat = " (may be repeated)" if option.repeat and not option.is_flag else ""
    return f"| {flags}{value}{repeat} | {option.shown_default} | {option.reload.value} | {option.help} |"


if __name__ == "__main__":
    sys.stdout.write(options_page())
