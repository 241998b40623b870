"""What clsync's options and configuration files come to: one frozen value, replaced when a setting changes.

Facts (names, defaults, meanings): the manual page of clsync 0.4.5 and its observed behaviour. Fields are named as the
options, with underscores. Paths are absolute, as resolved at start.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Mode(enum.Enum):
    """What becomes of changed paths."""

    SIMPLE = "simple"
    """A program for each event."""
    DIRECT = "direct"
    """A program for each run, with the paths as its arguments."""
    SHELL = "shell"
    """A program for each run, with the paths in a list file."""
    RSYNCSHELL = "rsyncshell"
    """The same with rsync's include and exclude lists."""
    RSYNCDIRECT = "rsyncdirect"
    """rsync itself."""
    RSYNCSO = "rsyncso"
    SO = "so"
    """Functions of a loaded module."""
    RSYNCPY = "rsyncpy"
    PY = "py"
    """Functions of a Python module; clsync does not have these two."""

    @property
    def has_rsync_lists(self) -> bool:
        """Paths are told in rsync's lists, so a directory can stand for all that is in it."""
        return self in (Mode.RSYNCSHELL, Mode.RSYNCDIRECT, Mode.RSYNCSO, Mode.RSYNCPY)

    @property
    def calls(self) -> bool:
        """Functions are called; no program is run."""
        return self in (Mode.SO, Mode.RSYNCSO, Mode.PY, Mode.RSYNCPY)


class Threading(enum.Enum):
    """Which runs may go on at the same time."""

    OFF = "off"
    SAFE = "safe"
    """Those that share no path."""
    FULL = "full"


class Splitting(enum.Enum):
    """Who has the privileges."""

    OFF = "off"
    THREAD = "thread"
    """Served as PROCESS."""
    PROCESS = "process"


class PivotRoot(enum.Enum):
    """How the root directory is changed."""

    OFF = "off"
    DIRECT = "direct"
    AUTO = "auto"
    AUTO_RO = "auto-ro"


class DetachNetwork(enum.Enum):
    """Which side loses the network."""

    OFF = "off"
    NON_PRIVILEGED = "non-privileged"
    EVERYWHERE = "everywhere"


class Inherit(enum.Enum):
    """Which capabilities handlers inherit."""

    PERMITTED = "permittied"
    DONT_TOUCH = "dont-touch"
    CLSYNC = "clsync"
    EMPTY = "empty"


class Output(enum.Enum):
    """Where messages go."""

    STDERR = "stderr"
    STDOUT = "stdout"
    SYSLOG = "syslog"


class EngineChoice(enum.Enum):
    """Who brings paths over in mode rsyncdirect; clsync does not have this option."""

    AUTO = "auto"
    """The native or the rsync engine where the arguments are the default ones, else the handler."""
    HANDLER = "handler"
    NATIVE = "native"
    RSYNC = "rsync"


@dataclass(frozen=True, slots=True)
class Start:
    """How the process was started: what relative names, bare names and ``%PID%`` refer to, then and later."""

    directory: bytes = b"/"
    """Absolute."""
    path: bytes = b"/usr/bin:/bin"
    """``PATH``."""
    home: bytes | None = None
    """``HOME``."""
    pid: int = 0


@dataclass(frozen=True, slots=True)
class Given:
    """One option as it was given."""

    text: bytes
    """What ``%NAME%`` stands for in other values; macros in it are already replaced."""
    meant: object
    """What it says; None: the default."""
    origin: str
    """Where it stands, for messages: ``--label`` or ``FILE:LINE: label``."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set; times in seconds, sizes in bytes."""

    watch_dir: bytes
    """Resolved."""
    mode: Mode
    sync_handler: bytes
    """A path where it names a file, else a name to be looked up in PATH; for the modes that call: the module."""
    arguments: tuple[bytes, ...]
    """Of the handler, as given or by default, as templates: the macros that differ from run to run still stand in them
    (``%TYPE%``; all in upper case), and ``%%`` is a percent sign. There is no other ``%``."""
    initial_arguments: tuple[bytes, ...] | None
    """Of the handler for a recursive call; None: the same."""
    default_arguments: bool
    """Nobody gave any."""
    destination_dir: bytes | None = None
    """An absolute local path, or an address of another machine as given."""
    destination_is_remote: bool = False
    rules_file: bytes | None = None
    label: bytes = b"nolabel"

    socket: bytes | None = None
    socket_auth: str = "null"
    socket_mode: int | None = None
    socket_owner: tuple[int, int] | None = None
    """User and group."""
    status_file: bytes | None = None
    pid_file: bytes | None = None
    dump_dir: bytes = b"/tmp/clsync-dump-nolabel"
    background: bool = False
    output: Output = Output.STDERR
    verbose: int = 3
    debug: int = 0
    quiet: bool = False

    config_file: bytes | None = None
    """The one that was read; None: none was."""
    config_block: str = "default"
    custom_signals: Mapping[int, str] = field(default_factory=dict)
    """From the signal's number to the block that is read then."""

    uid: int | None = None
    """None: not given; nobody, if possible."""
    gid: int | None = None
    privileged_uid: int | None = None
    privileged_gid: int | None = None
    sync_handler_uid: int | None = None
    """None: as the process was started."""
    sync_handler_gid: int | None = None
    chroot: bytes | None = None
    pivot_root: PivotRoot = PivotRoot.OFF
    detach_network: DetachNetwork = DetachNetwork.OFF
    detach_ipc: bool = True
    detach_miscellanea: bool = False
    mountpoints: tuple[bytes, ...] = ()
    splitting: Splitting = Splitting.OFF
    check_execvp_arguments: bool = False
    permitted_hooks: tuple[bytes, ...] = ()
    seccomp_filter: bool = False
    forbid_devices: bool = False
    cgroup_group_name: bytes | None = None
    """Of the control group without devices; None: one of the process's own."""
    preserve_capabilities: frozenset[str] = frozenset({"CAP_DAC_READ_SEARCH", "CAP_SETUID", "CAP_SETGID", "CAP_KILL"})
    inherit_capabilities: Inherit = Inherit.EMPTY

    threading: Threading = Threading.OFF
    retries: int = 1
    """Tries per run; 0: for ever."""
    ignore_failures: bool = False
    ignore_exitcode: frozenset[int] = frozenset({0})
    """Those that count as success."""
    exit_on_sync_skipping: bool = False
    one_file_system: bool = False
    exclude_mount_points: bool = False
    max_iterations: int = 0
    standby_file: bytes | None = None
    modification_signature: frozenset[str] = frozenset()
    """Names of fields, as in ``st_mtime`` without ``st_``."""
    timeout_sync_s: int = 86400
    delay_sync_s: int = 30
    delay_collect_s: int = 30
    delay_collect_bigfile_s: int = 1800
    threshold_bigfile: int = 134217728
    """0: no file is big."""
    cancel_stat: bool = False
    """Of ``cancel-syscalls=mon_stat``: nothing is looked at when it is reported."""
    lists_dir: bytes | None = None
    """None: a temporary one, made when a list is needed."""
    have_recursive_sync: bool = False
    synclist_simplify: bool = False
    rsync_inclimit: int = 20000
    """Lines; 0: no limit."""
    rsync_prefer_include: bool = False
    dont_unlink_lists: bool = False
    full_initialsync: bool = False
    only_initialsync: bool = False
    skip_initialsync: bool = False
    exit_on_no_events: bool = False
    exit_hook: bytes | None = None
    pre_exit_hook: bytes | None = None
    sync_on_quit: bool = False
    monitor: str = "inotify"
    engine: EngineChoice = EngineChoice.AUTO

    absolute_paths: bool = False
    """Paths are told with the watched directory in front, in list files too; the command line of 2013."""
    run_per_object: bool = False
    """Each object of a queue has a run of its own, whatever the arguments; the command line of 2013."""
    given: Mapping[str, Given] = field(default_factory=dict, repr=False)
    """All options that were set, by their long names: from these everything above was made."""
    start: Start = field(default_factory=Start, repr=False)
