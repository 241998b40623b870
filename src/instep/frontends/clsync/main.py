"""The ``clsync`` command: from a command line to a task that the daemon carries out.

Facts (observed): settings are checked, files of state made and rules read before anything is watched; relative paths
of the files of state are meant from the watched directory on. Whoever starts it in the background is told here how
that went, which clsync does not do.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import grp
import os
import pwd
import random
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from instep.confinement import Confinement, Identity
from instep.errors import OperatorError
from instep.frontends.clsync import changes, confinement, dump, read
from instep.frontends.clsync.complaints import Refused, refused
from instep.frontends.clsync.control import Session
from instep.frontends.clsync.diskchecks import complaints, notes
from instep.frontends.clsync.engine import EngineRuns, is_to_be_confined, mirror
from instep.frontends.clsync.files import PidFile, State, StatusFile
from instep.frontends.clsync.handler import ClsyncHandler, Surroundings
from instep.frontends.clsync.listdir import ListDirectories
from instep.frontends.clsync.modules import module_spec
from instep.frontends.clsync.output import Say, take_over
from instep.frontends.clsync.protocol import CLSYNC
from instep.frontends.clsync.rules import ALL, Rules, parse
from instep.frontends.clsync.runs import Runs
from instep.frontends.clsync.settings import Settings, Threading
from instep.frontends.clsync.tree import LocalTree, Tree
from instep.frontends.instep.output import escaped
from instep.paths import RelPath
from instep.spec import MirrorSpec, ModuleSpec

SIGNALS: Final = (
    signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
    signal.SIGSTKFLT, signal.SIGIO,
)  # fmt: skip
NOBODY: Final = 65534
CRASHED: Final = 1
"""The exit status of the parent when the daemon ended before it could say why."""

Detach = Callable[[int], Callable[[int], None]]


@dataclass(frozen=True, slots=True)
class Socket:
    """The control socket to be served."""

    path: bytes
    mode: int
    owner: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Task:
    """What the daemon is to carry out."""

    settings: Settings
    handler: ClsyncHandler
    mirror: MirrorSpec | None
    """For an engine's work."""
    module: ModuleSpec | None
    """For calls."""
    confinement: Confinement | None
    """None: the process keeps what it has."""
    confined: Callable[[Tree | None], None]
    """To be called once the process has given up its rights, with how it then looks at the watched directory; None: by
    itself. OperatorError, OSError: with what is left it cannot go on."""
    reread: Callable[[], None]
    """Has a copy of the handler, in a helper, decide by the rules as they are now what is watched."""
    signals: tuple[int, ...]
    """To be given to the handler."""
    socket: Socket | None
    converse: Callable[[Callable[[], None]], Session]
    """Begins a conversation; given what has the handler looked at again."""


Run = Callable[[Task], int]


Reader = Callable[[Sequence[bytes], Mapping[bytes, bytes], bytes, int], read.Reading | read.Answer]


def main(argv: Sequence[str] | None, *, run: Run, detach: Detach, reader: Reader = read.read) -> int:
    """The command; returns the exit status.

    Args:
        argv: the words after the program's name; None: as the process was started.
        reader: understands them; ``read.read``, or that of the command line of 2013.
        run: carries out a task, and returns the exit status.
        detach: goes into the background; see ``daemon.background``.
    """
    words = [os.fsencode(word) for word in (sys.argv[1:] if argv is None else argv)]
    for name in (b"CLSYNC_STATUS", b"CLSYNC_ITERATION"):
        os.environb.pop(name, None)  # of another clsync that runs this one
    say = Say()
    take_over(say)
    try:
        reading = reader(words, dict(os.environb), os.getcwdb(), os.getpid())
    except Refused as error:
        say.direct(error.talk.output, verbose=error.talk.verbose, debug=error.talk.debug, quiet=error.talk.quiet)
        say.refused(error)
        return error.status
    if isinstance(reading, read.Answer):
        sys.stdout.write(reading.text + "\n")
        return reading.status
    say.configure(reading.settings)
    for note in reading.notes:
        say.note(note)
    return serve(reading.settings, say, run=run, detach=detach)


def serve(settings: Settings, say: Say, *, run: Run, detach: Detach) -> int:
    """Run with these settings until the end; returns the exit status."""

    def life() -> int:
        with contextlib.ExitStack() as stack:
            session = _Session(settings, say, stack, run, detach)
            status = _said(say, session.run)
            session.tell(status)  # Whoever waits for it ends with that, so it is told when all is said.
            return status

    return _said(say, life)


def _said(say: Say, do: Callable[[], int]) -> int:
    """What this returns; where it is refused or fails, that is said, and the exit status for it."""
    try:
        return do()
    except Refused as error:
        say.refused(error)
        return error.status
    except OperatorError as error:
        say.error(f"{error.what}; {error.fix}" if error.fix else error.what)
        return _status_of(error)
    except OSError as error:
        say.error(f"{os.fsdecode(error.filename)}" if error.filename else "Cannot start", error.errno or errno.EIO)
        return _status_of(error)


def _status_of(error: OperatorError | OSError) -> int:
    """The errno of the failed step, as clsync has it."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno:
        return cause.errno
    return int(getattr(error, "status", errno.EINVAL))


@contextlib.contextmanager
def _making(what: str, path: bytes) -> Iterator[None]:
    """OSError becomes Refused, which says what cannot be made."""
    try:
        yield
    except OSError as error:
        raise refused(
            f"the {what} {escaped(path)} cannot be made: {error.strerror}",
            "see that its directory is there and may be written, or name another path",
            status=error.errno or errno.EIO,
        ) from error


class LateTree:
    """The tree, once it is known how it is reached: by ourselves, or by a helper that has the rights.

    In the helper nobody says so, and it looks by itself.
    """

    def __init__(self, root: bytes) -> None:
        """Nothing is opened."""
        self._root = root

    @functools.cached_property
    def tree(self) -> Tree:
        """OSError: the root cannot be opened."""
        return LocalTree(self._root)

    def look(self, path: RelPath) -> os.stat_result | None:
        """See ``tree.Tree``."""
        return self.tree.look(path)

    def listed(self, path: RelPath) -> Sequence[tuple[bytes, bool]]:
        """As above."""
        return self.tree.listed(path)


class _Session:
    """One life of the process."""

    def __init__(self, settings: Settings, say: Say, stack: contextlib.ExitStack, run: Run, detach: Detach) -> None:
        self._settings = settings
        self._say = say
        self._stack = stack
        self._run = run
        self._detach = detach
        self._tell: Callable[[int], None] | None = None
        self._status_file: StatusFile | None = None

    def run(self) -> int:
        """Everything from the checks on."""
        settings = self._settings
        started = Identity(os.geteuid(), os.getegid())
        rules = self._rules(settings)
        spec = mirror(settings, rules)
        plan = self._plan(started, by_engine=spec is not None)
        owner = None if plan is None else (plan.identity.user, plan.identity.group)
        found = complaints(settings, writer=started.user if owner is None else owner[0])
        if found:
            raise Refused(found)
        for note in notes(settings):
            self._say.note(note)
        os.chdir(settings.watch_dir)
        if settings.background:
            self._tell = self._detach(CRASHED)
            signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        return self._run(self._task(rules, spec, plan, owner))

    def tell(self, status: int) -> None:
        """How the start went, to whoever waits for that; nothing the second time, and where nobody does."""
        tell, self._tell = self._tell, None
        if tell is not None:
            tell(status)

    def _plan(self, started: Identity, *, by_engine: bool) -> Confinement | None:
        """How far the process is shut in; not at all where an engine of ours or a module needs what it has."""
        settings = self._settings
        if not is_to_be_confined(settings) and (by_engine or settings.mode.calls or started.user != 0):
            return None
        plan = confinement.plan(settings, started=started, nobody=_nobody())
        for notice in plan.notices:
            self._say.warning(notice)
        return plan

    def _task(
        self, rules: Rules, spec: MirrorSpec | None, plan: Confinement | None, owner: tuple[int, int] | None
    ) -> Task:
        settings, stack = self._settings, self._stack
        if settings.status_file is not None:
            with _making("status file", settings.status_file):
                self._status_file = StatusFile(settings.status_file, owner=owner)
            stack.callback(self._status_file.remove)
            self._status_file.announce(State.STARTING)
        if settings.pid_file is not None:
            with _making("pid file", settings.pid_file):
                stack.callback(PidFile(settings.pid_file, owner=owner).remove)
        lists = ListDirectories(
            settings.lists_dir,
            watch_dir=settings.watch_dir,
            keep=settings.dont_unlink_lists,
            base=os.environb.get(b"TMPDIR"),
        )
        stack.callback(lists.close)
        tree = LateTree(settings.watch_dir)
        module = module_spec(settings) if settings.mode.calls else None
        runs = self._runs(lists)

        def changed(new: Settings) -> None:
            if found := changes.complaints(
                handler.settings, new, module=module, has_helper=plan is not None and plan.split is not None
            ):
                raise Refused(found)
            if spec is not None:
                mirror(new, handler.collector.rules)  # Refused, where an engine was asked for that could not go on.
            lists.change(new.lists_dir, keep=new.dont_unlink_lists)
            self._say.configure(new)

        def read_rules(now: Settings) -> Rules:
            found = self._rules(now)
            if spec is not None:
                mirror(now, found)  # as above
            return found

        handler = ClsyncHandler(
            settings,
            rules,
            runs if spec is None else EngineRuns(spec, settings, rules, runs, self._say.info),
            Surroundings(
                tree=tree,
                say=self._say,
                announce=self._announce,
                ready=self._ready,
                is_own=lists.is_own,
                exists=os.path.lexists,
                read_rules=read_rules,
                read_block=self._block,
                changed=changed,
                dump=write_dump,
            ),
        )
        socket = None
        if settings.socket is not None:
            mode = 0o777 & ~_umask() if settings.socket_mode is None else settings.socket_mode
            socket = Socket(settings.socket, mode, settings.socket_owner or owner)

        def reread() -> None:
            handler.collector.is_starting = False
            with contextlib.suppress(OperatorError):  # It is said by the daemon.
                handler.collector.rules = self._rules(settings)

        def confined(reached: Tree | None) -> None:
            lists.check()
            if reached is None:
                reached = LocalTree(settings.watch_dir)
                stack.callback(reached.close)
            tree.tree = reached

        return Task(
            settings,
            handler,
            spec,
            module,
            plan,
            confined,
            reread,
            tuple({*SIGNALS, *settings.custom_signals}),
            socket,
            lambda poke: Session(Commands(handler, self._say, poke)),
        )

    def _runs(self, lists: ListDirectories) -> Runs:
        return Runs(
            self._settings,
            list_dir=lists.path,
            own=lists.own,
            pid=os.getpid(),
            clock=time.time,
            random=functools.partial(random.getrandbits, 31),
        )

    def _announce(self, state: State) -> None:
        self._say.debug(1, f"state: {state.value}")
        if self._status_file is not None:
            self._status_file.announce(state)

    def _ready(self) -> None:
        """The start is over, and went well."""
        self.tell(0)

    def _rules(self, settings: Settings) -> Rules:
        """Read the rules; those that come from no file are read once."""
        path = settings.rules_file
        if path is None:
            return ALL
        try:
            with open(path, "rb") as file:
                if self._status_file is not None and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise refused(f"{os.fsdecode(path)} is no file, and cannot be read twice", "start anew")
                rules = parse(file.read(), os.fsdecode(path))
        except OSError as error:
            raise refused(
                f"the rules file {os.fsdecode(path)} cannot be read: {error.strerror}",
                "name a file that is there",
                status=error.errno or errno.EINVAL,
            ) from None
        for note in rules.notes:
            self._say.note(note)
        if settings.mode.has_rsync_lists and rules.split_walk:
            self._say.warning(
                f"{os.fsdecode(path)}: w, m and s rules keep a directory from being walked, watched or told, but not "
                "from being copied by rsync with the directory above it; use d or * rules for that"
            )
        return rules

    def _block(self, settings: Settings, block: str) -> Settings:
        reading = read.again(settings, block)
        for note in reading.notes:
            self._say.note(note)
        return reading.settings


class Commands:
    """What the control socket can ask for."""

    version = CLSYNC

    def __init__(self, handler: ClsyncHandler, say: Say, poke: Callable[[], None]) -> None:
        self._handler = handler
        self._say = say
        self._poke = poke

    def info(self) -> tuple[bytes, bytes]:
        """The block of the configuration file, and the label."""
        settings = self._handler.settings
        return os.fsencode(settings.config_block), settings.label

    def dump(self, path: bytes) -> None:
        """Write a dump; OSError: it cannot be written."""
        write_dump(self._handler, os.path.join(self._handler.settings.watch_dir, path))

    def set(self, key: str, value: bytes) -> None:
        """Change one option; Refused: nothing is changed."""
        reading = read.changed(self._handler.settings, key, value)
        for note in reading.notes:
            self._say.note(note)
        self._handler.change(reading.settings)
        self._poke()

    def die(self) -> None:
        """End as after SIGTERM."""
        self._handler.signalled(signal.SIGTERM, time.monotonic())
        self._poke()


def write_dump(handler: ClsyncHandler, path: bytes) -> None:
    """Show what waits and what runs; OSError: the directory is there already, or cannot be made."""
    side_by_side = handler.settings.threading is not Threading.OFF
    now_s, wall_s = time.monotonic(), time.time()
    runs = list(handler.running)
    picture = dump.Picture(
        handler.status.value,
        handler.waiting(),
        () if side_by_side else [line for run in runs for line in dump.lines(run.entries)],
        [
            dump.Run(
                iteration=handler.iteration,
                number=number,
                thread=run.number,
                started_at=int(wall_s - (now_s - run.began_s)),
                expires_at=int(wall_s - (now_s - run.began_s)) + handler.settings.timeout_sync_s,
                child_pid=0,
                try_number=run.tries + 1,
                command=run.command,
                lines=dump.lines(run.entries),
            )
            for number, run in enumerate(runs)
        ]
        if side_by_side
        else (),
    )
    dump.write(path, picture)


def _nobody() -> Identity:
    """The user and the group without files; 65534 where they have no names."""
    with contextlib.suppress(KeyError):
        return Identity(pwd.getpwnam("nobody").pw_uid, grp.getgrnam("nogroup").gr_gid)
    return Identity(NOBODY, NOBODY)


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now
