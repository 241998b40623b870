"""Mode rsyncdirect with its own arguments is what instep does by itself: then runs are an engine's work, not rsync's.

The result is the same as rsync's with these arguments, without its lists, and without a process for each run. It is
left to rsync where somebody could tell the difference: with a handler or arguments of one's own, with lists that are
kept, where the process gives up rights that an engine needs, or where the rules say what no engine understands.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace

from instep.errors import OperatorError
from instep.frontends.clsync.complaints import USAGE, refused
from instep.frontends.clsync.entries import Entry
from instep.frontends.clsync.rules import Rules
from instep.frontends.clsync.runs import Excluded, Part, Runs
from instep.frontends.clsync.settings import EngineChoice, Mode, Settings
from instep.frontends.instep.checks import check
from instep.frontends.instep.output import escaped
from instep.linux.inotify import IN_ATTRIB, IN_ISDIR
from instep.model import Batch, Bring, Change
from instep.paths import Scope
from instep.rules import Preserve
from instep.spec import EngineName, InitialSync, MaxDelete, MirrorSpec, Pace, TargetSpec

COPIED = Preserve(xattrs=False, acls=False, sparse=False)
"""What rsync keeps with -aH."""
_CONFINES = frozenset(
    {
        "uid", "gid", "privileged-uid", "privileged-gid", "sync-handler-uid", "sync-handler-gid", "chroot",
        "pivot-root", "detach-network", "detach-ipc", "detach-miscellanea", "secure-splitting", "splitting",
        "check-execvp-arguments", "seccomp-filter", "forbid-devices", "mountpoints", "preserve-capabilities",
        "inherit-capabilities",
    }
)  # fmt: skip
_NESTED = frozenset({"same-directory", "source-inside-target", "target-inside-source"})


def mirror(settings: Settings, rules: Rules) -> MirrorSpec | None:
    """The mirror that a mode rsyncdirect amounts to; None where the handler has to be run.

    Raises:
        Refused: an engine was asked for that cannot do what the other settings want, or the destination lies in the
            watched directory, or the other way round.
    """
    destination = settings.destination_dir
    if settings.mode is not Mode.RSYNCDIRECT or destination is None:
        return None
    spec = _spec(settings, destination, rules)
    _check_nesting(spec, settings)
    reason = _why_not(settings, rules, spec)
    if not reason:
        return spec
    if settings.engine in (EngineChoice.NATIVE, EngineChoice.RSYNC):
        raise refused(f"--engine {settings.engine.value} cannot be used: {reason}", "leave out --engine")
    return None


def _why_not(settings: Settings, rules: Rules, spec: MirrorSpec) -> str:
    native = spec.targets[0].engine is EngineName.NATIVE
    if settings.engine is EngineChoice.HANDLER:
        return "the handler was asked for"
    if not settings.default_arguments:
        return "the handler has arguments of its own"
    if not _is_rsync(settings.sync_handler):
        return "the handler is not rsync"
    if settings.engine is EngineChoice.NATIVE and settings.destination_is_remote:
        return "the native engine only serves directories of this machine"
    if settings.rsync_prefer_include:
        return "with rsync-prefer-include rsync deletes nothing"
    if settings.dont_unlink_lists:
        return "the lists are to be kept"
    if settings.lists_dir is not None and _is_inside(settings.lists_dir, settings.watch_dir):
        return "the list directory lies in the watched one"
    if is_to_be_confined(settings):
        return "the process gives up rights that an engine needs"
    if spec.rules and not native:
        return "with rules only the native engine can be used"
    if not rules.is_trivial and (not native or settings.full_initialsync or rules.for_engines() is None):
        return "the rules say what engines do not understand"
    return ""


def is_to_be_confined(settings: Settings) -> bool:
    """Whether the process was asked to give up rights: then everything is brought over by the handler."""
    return not _CONFINES.isdisjoint(settings.given)


def _spec(settings: Settings, destination: bytes, rules: Rules) -> MirrorSpec:
    wants_rsync = settings.destination_is_remote or settings.engine is EngineChoice.RSYNC
    return MirrorSpec(
        source=settings.watch_dir,
        targets=(TargetSpec(destination, EngineName.RSYNC if wants_rsync else EngineName.NATIVE),),
        pace=Pace(),
        rules=rules.for_engines() or (),
        initial_sync=InitialSync.FULL,
        max_delete=MaxDelete(percent=100),
        preserve=COPIED,
        one_file_system=settings.one_file_system or settings.exclude_mount_points,
    )


def _check_nesting(spec: MirrorSpec, settings: Settings) -> None:
    if settings.destination_is_remote:
        return
    try:
        check(spec)
    except OperatorError as error:
        if error.code not in _NESTED:
            return
        fix = error.fix
        if error.code == "target-inside-source":
            below = os.path.relpath(spec.targets[0].address, spec.source)
            fix = f"give a destination beside it, or have a rule (--rules-file) leave it out: -d^{escaped(below)}$"
        raise refused(error.what, fix, status=USAGE) from None


def _is_inside(path: bytes, directory: bytes) -> bool:
    return (os.path.realpath(path) + b"/").startswith(directory.rstrip(b"/") + b"/")


def _is_rsync(handler: bytes) -> bool:
    usual, found = shutil.which("rsync"), shutil.which(os.fsdecode(handler))
    return usual is not None and found is not None and os.path.realpath(usual) == os.path.realpath(found)


def _without_origins(spec: MirrorSpec) -> MirrorSpec:
    """The same whatever line its rules stand in."""
    return replace(spec, rules=tuple(rule._replace(origin="") for rule in spec.rules))


class EngineRuns:
    """In the place of ``runs.Runs``: each run is one batch for the engine, which brings over what it was started for.

    While other settings or rules hold, which it knows nothing of, runs are those of the handler.
    """

    leaves_mounts = True
    """The monitor is begun so, and stays so."""

    def __init__(
        self, spec: MirrorSpec, settings: Settings, rules: Rules, usual: Runs, say: Callable[[str], None]
    ) -> None:
        """Nothing is asked yet.

        Args:
            spec: what the engine is started for; what ``mirror`` makes of these settings and rules.
            settings: those of the start.
            rules: the same.
            usual: makes the handler's runs.
            say: told when the one takes the other's place.
        """
        self._spec = _without_origins(spec)
        self._settings = settings
        self._rules = rules
        self._usual = usual
        self._say = say
        self._by_engine = True

    @property
    def tells_singly(self) -> bool:
        """See ``handler.MakesRuns``."""
        return not self._by_engine and self._usual.tells_singly

    def change(self, settings: Settings) -> None:
        """Other settings hold for the runs to come; ``mirror`` takes them."""
        self._settings = settings
        self._usual.change(settings)
        self._choose()

    def follow(self, rules: Rules) -> None:
        """Other rules do; as above."""
        self._rules = rules
        self._choose()

    def _choose(self) -> None:
        spec = mirror(self._settings, self._rules)
        by_engine = spec is not None and _without_origins(spec) == self._spec
        if by_engine is not self._by_engine:
            self._by_engine = by_engine
            handler = escaped(self._settings.sync_handler)
            self._say(
                "All is again as at the start: instep's engine does the work again"
                if by_engine
                else f"instep's engine was started for other rules or settings: {handler} is run from now on"
            )

    def of(
        self, entries: Sequence[Entry], excluded: Sequence[Excluded] = (), *, iteration: int | None, status: str
    ) -> list[Part]:
        """One part for all; the handler's parts where it is run. OSError: as ``runs.Runs``."""
        if not self._by_engine:
            return self._usual.of(entries, excluded, iteration=iteration, status=status)
        changes = tuple(
            Change(
                entry.path,
                Scope.TREE if entry.recursive else Scope.ENTRY,
                content=bool(entry.path) and entry.mask & ~(IN_ATTRIB | IN_ISDIR) != 0,
                is_dir=bool(entry.mask & IN_ISDIR),
            )
            for entry in entries
        )
        if not changes:
            return []
        timeout_s = float(self._settings.timeout_sync_s) or math.inf
        return [Part(Bring(Batch(changes, -math.inf, flushing=True), timeout_s), entries)]
