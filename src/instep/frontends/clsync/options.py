"""The one table of options: command line, configuration files, run-time changes, help and manual page come from it.

Facts (names, letters, values): the manual page of clsync 0.4.5 and its observed behaviour.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Final

from instep.frontends.clsync.getopt import Takes
from instep.frontends.clsync.kinds import (
    BYTES,
    SECONDS,
    Arguments,
    Below,
    Capabilities,
    Choice,
    Count,
    ExitCodes,
    Kind,
    Name,
    Number,
    Owner,
    Path,
    Paths,
    Permissions,
    Signals,
    Switch,
    Text,
    User,
    UserGroup,
    Words,
)
from instep.frontends.clsync.macros import split
from instep.frontends.clsync.settings import (
    DetachNetwork,
    EngineChoice,
    Inherit,
    Mode,
    Output,
    PivotRoot,
    Settings,
    Splitting,
    Threading,
)
from instep.linux.capabilities import NAMES


class Group(enum.Enum):
    """Headings in help, in their order."""

    WHAT = "What is watched, and what becomes of it"
    WHEN = "When"
    RUNS = "Runs of the handler"
    LISTS = "Lists"
    WATCHING = "What counts as a change"
    LIFE = "Start and end"
    PROCESS = "Files and messages"
    CONFIG = "Configuration files"
    PRIVILEGES = "Privileges"
    IDLE = "Taken, but without effect"
    ANSWERS = "Answers"


class Live(enum.Enum):
    """When a change that is made while the program runs takes effect."""

    NOW = "at once"
    HUP = "after SIGHUP"
    REFUSED = "never; it is refused"
    START = "at the start alone"


@dataclass(frozen=True, slots=True)
class Option:
    """One row."""

    name: str
    """The long name, without dashes."""
    short: str
    takes: Takes
    kind: Kind
    group: Group
    help: str
    live: Live = Live.NOW
    field: str = ""
    """Of Settings; empty: more than one, or none."""
    default: str = ""
    """As it would be typed; empty: nothing is set."""
    from_start: bool = False
    """A relative path is one in the directory where the program was started, not in the watched one."""
    adds_up: bool = False
    """Repeated options add up; else the last one counts."""
    idle: str = ""
    """Why it has no effect here."""
    yields: bool = False
    """Debian's clsync does not have it; so it does not make shortened names ambiguous."""
    answers: bool = False
    """It is a question, for the command line alone."""

    @property
    def flags(self) -> str:
        """As typed: ``-d, --debug``."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"

    @property
    def usage(self) -> str:
        """The flags with the value's placeholder."""
        match self.takes:
            case Takes.NOTHING:
                return self.flags
            case Takes.OPTIONAL:
                return self.flags if self.answers else f"{self.flags}[={self.kind.metavar}]"
            case Takes.VALUE:
                return f"{self.flags}={self.kind.metavar}"


_SIGNATURE: Final = frozenset(
    {"dev", "ino", "mode", "nlink", "uid", "gid", "rdev", "size", "blksize", "blocks", "atime", "mtime", "ctime"}
)

_VALUE, _OPTIONAL, _NOTHING = Takes.VALUE, Takes.OPTIONAL, Takes.NOTHING
_NOW, _HUP, _REFUSED, _START = Live
_SWITCH: Final = Switch()
_MONITORS: Final = Choice({"inotify": "inotify"}, also={"gio": "inotify", "fanotify": "inotify"})
_SPLITTING: Final = Choice.of(Splitting, also={"0": Splitting.OFF, "1": Splitting.THREAD, "2": Splitting.PROCESS})
_INHERIT: Final = Choice.of(Inherit, also={"permitted": Inherit.PERMITTED})
_FIELDS: Final = frozenset(each.name for each in fields(Settings))
_CLUSTER: Final = "clsync's clusters were never finished, and it refuses them as well"
_MEMORY: Final = "privileges are split between processes that share no memory"


def _row(
    flags: str, takes: Takes, kind: Kind, live: Live, help_text: str, *, field: str | None = None, default: str = "",
    from_start: bool = False, adds_up: bool = False, yields: bool = False,
) -> Option:  # fmt: skip
    """A row whose group is still to come; its field is called as it is, where there is such a field."""
    name, _, short = flags.partition(" ")
    own = name.replace("-", "_")
    where = (own if own in _FIELDS else "") if field is None else field
    return Option(
        name, short, takes, kind, Group.WHAT, help_text, live, where, default, from_start, adds_up, yields=yields
    )


def _under(group: Group, *rows: Option) -> Iterator[Option]:
    return (replace(option, group=group) for option in rows)


def _idle() -> Iterator[Option]:
    for name, why in (
        ("forget-privthread-info", "there is no privileged thread"),
        ("permit-mprotect", _MEMORY),
        ("shm-mprotect", _MEMORY),
        ("fts-experimental-optimization", "directories are not walked by fts(3)"),
    ):
        yield Option(name, "", _OPTIONAL, _SWITCH, Group.IDLE, "", _START, idle=why)
    yield Option(
        "auto-add-rules-w", "A", _OPTIONAL, _SWITCH, Group.IDLE, "", _START, idle="it never did anything", yields=True
    )
    for name, short in (
        ("cluster-iface", "c"),
        ("cluster-ip", "m"),
        ("cluster-port", "P"),
        ("cluster-timeout", "G"),
        ("cluster-node-name", "n"),
        ("cluster-hash-dl-min", "o"),
        ("cluster-hash-dl-max", "O"),
        ("cluster-scan-dl-max", ""),
    ):
        yield Option(name, short, _VALUE, Text("VALUE"), Group.IDLE, "", _START, idle=_CLUSTER, yields=True)


# fmt: off
_MEANT: Final = (
    *_under(
        Group.WHAT,
        _row("watch-dir W", _VALUE, Path("DIR"), _REFUSED,
             "The directory to watch, with all below it.", field="", from_start=True),
        _row("destination-dir D", _VALUE, Path("DIR"), _START,
             "Where to: a directory that exists, or an address that rsync understands (user@host:/path, host:/path, "
             "rsync://host/module).", field="", from_start=True),
        _row("mode M", _VALUE, Choice.of(Mode, empty=False, metavar="MODE"), _NOW,
             "What becomes of changes. simple: a run of the handler for each event. direct: one for each batch, with "
             "the paths as arguments. shell: the paths are in a list file. rsyncshell: in rsync's include and "
             "exclude lists. rsyncdirect: rsync itself. so, rsyncso: functions of a shared object. py, rsyncpy: "
             "functions of a Python module."),
        _row("sync-handler S", _VALUE, Path("PROGRAM"), _NOW,
             "The program to run, or the module to load (in the modes so and rsyncso one that ends in .py is a "
             "Python module). A name without slash is looked for in PATH, then in the current directory. By default "
             "cp in mode direct and rsync in mode rsyncdirect.", field="", from_start=True),
        _row("--", _VALUE, Arguments(split), _NOW,
             "The handler's arguments in one line; quotes group. The same as operands of the command line, for "
             "configuration files.", adds_up=True),
        _row("---", _VALUE, Arguments(split), _NOW,
             "The same for runs that stand for a whole directory (--have-recursive-sync).", adds_up=True),
        _row("rules-file R", _VALUE, Path(), _HUP,
             "Rules for what is watched and brought over, one a line.", from_start=True),
        _row("label l", _VALUE, Text("LABEL", empty_counts=True), _NOW,
             "A name that handlers and hooks are told.", default="nolabel"),
        _row("engine", _VALUE, Choice.of(EngineChoice), _START,
             "Who does the work in mode rsyncdirect (clsync does not have this option). auto: with the default "
             "arguments instep itself, else the handler. handler: always the handler. native, rsync: instep's own "
             "engines.", default="auto", yields=True),
    ),
    *_under(
        Group.WHEN,
        _row("delay-sync w", _VALUE, SECONDS, _NOW,
             "Least time between runs, and before another try.", field="delay_sync_s", default="30"),
        _row("delay-collect t", _VALUE, SECONDS, _NOW,
             "Time for which changes are collected before a run.", field="delay_collect_s", default="30"),
        _row("delay-collect-bigfile T", _VALUE, SECONDS, _NOW,
             "The same for big files.", field="delay_collect_bigfile_s", default="1800"),
        _row("threshold-bigfile B", _VALUE, BYTES, _NOW,
             "Files of more than this size are big; 0: none is.", default="134217728"),
        _row("standby-file", _VALUE, Path(), _NOW, "While this file exists nothing is run; changes are collected."),
    ),
    *_under(
        Group.RUNS,
        _row("threading p", _VALUE, Choice.of(Threading), _NOW,
             "Which runs may go on side by side. safe: those that share no path. full: any.", default="off"),
        _row("retries r", _VALUE, Number(), _NOW, "Tries for each run; 0: for ever.", default="1"),
        _row("timeout-sync k", _VALUE, SECONDS, _NOW,
             "A run that takes longer is ended, and has failed; 0: no limit.", field="timeout_sync_s", default="86400"),
        _row("ignore-exitcode x", _VALUE, ExitCodes(), _NOW,
             "Exit codes of the handler that count as success; 0 forgets those before it. May be repeated.",
             adds_up=True),
        _row("ignore-failures", _OPTIONAL, _SWITCH, _NOW,
             "A failed run does not end the program; its paths are tried again with the next."),
        _row("have-recursive-sync", _OPTIONAL, _SWITCH, _NOW,
             "The handler can bring over whole directories: it is told a new directory instead of all that is in it."),
    ),
    *_under(
        Group.LISTS,
        _row("lists-dir L", _VALUE, Path("DIR"), _NOW,
             "Where list files are made; nobody else may have access to it. By default in a directory of their own "
             "in TMPDIR."),
        _row("dont-unlink-lists U", _OPTIONAL, _SWITCH, _NOW, "List files are kept."),
        _row("synclist-simplify", _OPTIONAL, _SWITCH, _NOW, "Lines of list files are paths and nothing else."),
        _row("rsync-inclimit", _VALUE, Number("LINES"), _NOW,
             "Lines of an include list, from which on another one is begun; 0: no limit.", default="20000"),
        _row("rsync-prefer-include", _OPTIONAL, _SWITCH, _NOW,
             "Every object has a line of its own in include lists, and no exclude lists are made."),
    ),
    *_under(
        Group.WATCHING,
        _row("one-file-system", _OPTIONAL, _SWITCH, _NOW, "What is mounted below is left alone."),
        _row("exclude-mount-points X", _OPTIONAL, _SWITCH, _NOW,
             "The same, and rsync is told to leave it out as well."),
        _row("modification-signature", _VALUE, Words(_SIGNATURE, star=_SIGNATURE - {"nlink"}), _NOW,
             "Changes that leave all of these as they were do not count: dev, ino, mode, nlink, uid, gid, rdev, "
             "size, blksize, blocks, atime, mtime, ctime; *: all but nlink."),
        _row("cancel-syscalls", _VALUE, Words(frozenset({"mon_stat"}), adds_up=True), _NOW,
             "System calls to do without. mon_stat: files are not looked at when they are reported, so none is big.",
             adds_up=True),
        _row("monitor", _VALUE, _MONITORS, _REFUSED,
             "The kernel facility that reports changes; gio and fanotify are taken for inotify.", default="inotify"),
    ),
    *_under(
        Group.LIFE,
        _row("full-initialsync F", _OPTIONAL, _SWITCH, _NOW,
             "The first sync brings over everything, whatever the rules say."),
        _row("only-initialsync", _OPTIONAL, _SWITCH, _START, "End after the first sync; nothing is watched."),
        _row("skip-initialsync", _OPTIONAL, _SWITCH, _START, "Begin without one."),
        _row("exit-on-no-events", _OPTIONAL, _SWITCH, _NOW, "End as soon as nothing has changed during the last run."),
        _row("max-iterations", _VALUE, Number(), _NOW, "End after so many syncs; 0: no limit.", default="0"),
        _row("exit-on-sync-skipping", _OPTIONAL, _SWITCH, _NOW,
             "End when reports of changes were lost, instead of looking at everything again."),
        _row("pre-exit-hook", _VALUE, Path("PROGRAM"), _NOW,
             "Run before the last sync (on SIGQUIT and with --exit-on-no-events), with the label as its argument."),
        _row("exit-hook", _VALUE, Path("PROGRAM"), _NOW, "Run at an orderly end, with the label as its argument."),
        _row("sync-on-quit", _OPTIONAL, _SWITCH, _NOW, "On SIGQUIT bring over what has just been reported, too."),
    ),
    *_under(
        Group.PROCESS,
        _row("background b", _OPTIONAL, _SWITCH, _START, "Go into the background once all is checked."),
        _row("pid-file z", _VALUE, Path(), _REFUSED, "The number of the process is written there."),
        _row("status-file", _VALUE, Path(), _START, "The state of the program is written there."),
        _row("dump-dir", _VALUE, Path("DIR"), _NOW,
             "On SIGIO a directory of this name is made, which shows what is queued.",
             default="/tmp/clsync-dump-%label%"),  # noqa: S108  # clsync's
        _row("socket s", _VALUE, Path("SOCKET"), _START, "A UNIX socket for control."),
        _row("socket-auth", _VALUE, Choice({"null": "null"}), _START,
             "How users of the socket prove who they are: they do not.", default="null"),
        _row("socket-mod", _VALUE, Permissions(), _START, "The socket's permissions.", field="socket_mode"),
        _row("socket-own", _VALUE, Owner(), _START, "The socket's owner.", field="socket_owner"),
        _row("output Y", _VALUE, Choice.of(Output), _NOW, "Where messages go.", default="stderr"),
        _row("verbose v", _OPTIONAL, Count(3), _NOW,
             "0: no messages, 1: errors, 2: warnings too, 3: information too.", default="3"),
        _row("debug d", _OPTIONAL, Count(0), _NOW, "Messages for finding faults; up to 8.", default="0"),
        _row("quiet q", _OPTIONAL, _SWITCH, _NOW, "No messages at all."),
    ),
    *_under(
        Group.CONFIG,
        _row("config-file H", _VALUE, Path(), _NOW,
             "The configuration file; /NULL/: none. By default the first there is of ~/.clsync.conf, "
             "/etc/clsync/clsync.conf, /etc/clsync.conf and the same two under /usr/local.", field="", from_start=True),
        _row("config-block K", _VALUE, Name(), _NOW, "The block of it that counts.", default="default"),
        _row("config-block-inherits", _VALUE, Name(), _START,
             "Within a block: another one, for all that this one does not say."),
        _row("custom-signals", _VALUE, Signals(), _REFUSED,
             "Blocks that are read while the program runs, when the signal with this number comes.", adds_up=True),
    ),
    *_under(
        Group.PRIVILEGES,
        _row("uid u", _VALUE, User(), _START, "Whom the program runs as; by default nobody, where it may."),
        _row("gid g", _VALUE, UserGroup(), _START, "The same for the group."),
        _row("sync-handler-uid", _VALUE, User(), _START,
             "Whom handlers and hooks run as; by default who started the program."),
        _row("sync-handler-gid", _VALUE, UserGroup(), _START, "The same for the group."),
        _row("privileged-uid", _VALUE, User(), _START, "Whom the privileged process of --splitting runs as."),
        _row("privileged-gid", _VALUE, UserGroup(), _START, "The same for the group."),
        _row("preserve-capabilities C", _VALUE, Capabilities(frozenset(NAMES)), _START,
             "The capabilities that are kept.", default="CAP_DAC_READ_SEARCH,CAP_SETUID,CAP_SETGID,CAP_KILL"),
        _row("inherit-capabilities", _OPTIONAL, _INHERIT, _START,
             "Which capabilities programs that are run inherit.", default="empty"),
        _row("secure-splitting", _NOTHING, _SWITCH, _START,
             "--splitting=process, --check-execvp-arguments, --seccomp-filter and --forbid-devices, save those that "
             "are set themselves.", yields=True),
        _row("splitting", _VALUE, _SPLITTING, _START,
             "A small process keeps the privileges, the rest has none; thread is taken for process.", default="off"),
        _row("check-execvp-arguments", _OPTIONAL, _SWITCH, _START,
             "The privileged process only runs what was configured at start."),
        _row("add-permitted-hook-files", _VALUE, Paths(), _REFUSED,
             "Further programs that it runs as hooks.", field="permitted_hooks"),
        _row("seccomp-filter", _OPTIONAL, _SWITCH, _START,
             "The rest is left with the system calls that it needs.", yields=True),
        _row("forbid-devices", _OPTIONAL, _SWITCH, _START,
             "No devices but null, zero, random and urandom.", yields=True),
        _row("cgroup-group-name", _VALUE, Below(), _START,
             "The control group for that, below the one in which the program is started; by default one of its own.",
             yields=True),
        _row("chroot", _VALUE, Path("DIR"), _REFUSED, "Another root directory."),
        _row("pivot-root", _VALUE, Choice.of(PivotRoot), _START,
             "The root of --chroot replaces the old one altogether. direct: it has a directory old_root. auto: it "
             "need not. auto-ro: and nothing can be written in it.", default="off"),
        _row("mountpoints", _VALUE, Paths(), _REFUSED, "Everything is unmounted but these."),
        _row("detach-network", _VALUE, Choice.of(DetachNetwork), _START,
             "Go without a network: the part without privileges, or all.", default="off"),
        _row("detach-ipc", _VALUE, _SWITCH, _START,
             "A UTS namespace of its own; where it is asked for, an IPC namespace too.", default="1"),
        _row("detach-miscellanea", _OPTIONAL, _SWITCH, _START, "IPC and UTS namespaces of its own."),
    ),
)
# fmt: on
_ANSWERS: Final = (
    Option("help", "h", _OPTIONAL, _SWITCH, Group.ANSWERS, "This text.", _START, answers=True),
    Option("version", "V", _OPTIONAL, _SWITCH, Group.ANSWERS, "The version.", _START, answers=True),
)

OPTIONS: Final = (*_MEANT, *_idle(), *_ANSWERS)
BY_NAME: Final = {option.name: option for option in OPTIONS}

FORMER_NAMES: Final = {
    "dir-destination": "destination-dir",
    "dir-lists": "lists-dir",
    "initialsync-enable": "have-recursive-sync",
    "rules-path": "rules-file",
    "syslog": "output = syslog",
}
"""Keys of old configurations that clsync passes over in silence, and what they are called now."""
