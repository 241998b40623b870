"""Combinations of settings that are refused, as clsync refuses them, and those that are odd. Asks nobody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from instep.frontends.clsync.complaints import Complaint, Note
from instep.frontends.clsync.options import BY_NAME
from instep.frontends.clsync.settings import EngineChoice, Mode, PivotRoot, Settings, Splitting, Threading
from instep.frontends.instep.output import escaped

_OWN_ENGINES: Final = (EngineChoice.NATIVE, EngineChoice.RSYNC)


@dataclass(frozen=True, slots=True)
class Check:
    """One combination that does not go together."""

    applies: Callable[[Settings], bool]
    what: str
    fix: str


def _needs_socket(name: str) -> Check:
    return Check(
        lambda s: _is_given(s, name) and s.socket is None,
        f"--{name} does nothing without --socket",
        "give a --socket, or drop it",
    )


def _no_threading(name: str, applies: Callable[[Settings], bool]) -> Check:
    return Check(
        lambda s: s.threading is not Threading.OFF and applies(s),
        f"--threading and --{name} do not go together",
        "drop one, or write --threading=off",
    )


def _no_skip(name: str, applies: Callable[[Settings], bool]) -> Check:
    return Check(
        lambda s: s.skip_initialsync and applies(s),
        f"--skip-initialsync and --{name} contradict each other",
        "drop one",
    )


def _no_rsync(name: str, applies: Callable[[Settings], bool]) -> Check:
    return Check(
        lambda s: applies(s) and s.mode.has_rsync_lists,
        f"--{name} does not go together with rsync's lists",
        "drop it, or take one of the modes direct, shell, so",
    )


CHECKS: Final = (
    _needs_socket("socket-own"),
    _needs_socket("socket-mod"),
    _needs_socket("socket-auth"),
    Check(
        lambda s: s.pivot_root is not PivotRoot.OFF and s.chroot is None,
        "--pivot-root does nothing without --chroot",
        "say which directory is the new root: --chroot=DIR",
    ),
    Check(
        lambda s: s.standby_file is not None and s.mode is Mode.SIMPLE,
        "--standby-file cannot be used in mode simple, in which nothing waits",
        "drop it, or take another mode",
    ),
    _no_threading("only-initialsync", lambda s: s.only_initialsync),
    _no_threading("exit-on-no-events", lambda s: s.exit_on_no_events),
    _no_threading("max-iterations", lambda s: s.max_iterations > 0),
    _no_threading("pre-exit-hook", lambda s: s.pre_exit_hook is not None),
    _no_threading("splitting=thread", lambda s: s.splitting is Splitting.THREAD),
    _no_threading("seccomp-filter", lambda s: s.seccomp_filter),
    _no_skip("exit-on-no-events", lambda s: s.exit_on_no_events),
    _no_skip("only-initialsync", lambda s: s.only_initialsync),
    _no_skip("full-initialsync", lambda s: s.full_initialsync),
    Check(
        lambda s: s.only_initialsync and s.exit_on_no_events,
        "--only-initialsync and --exit-on-no-events contradict each other",
        "drop one",
    ),
    Check(
        lambda s: bool(s.modification_signature) and s.cancel_stat,
        "--modification-signature needs the look at files that --cancel-syscalls=mon_stat does without",
        "drop one",
    ),
    _no_rsync("have-recursive-sync", lambda s: s.have_recursive_sync),
    _no_rsync("synclist-simplify", lambda s: s.synclist_simplify),
    Check(
        lambda s: s.synclist_simplify and s.lists_dir is None,
        "--synclist-simplify does nothing without --lists-dir",
        "say where lists are made: -L DIR",
    ),
    Check(
        lambda s: s.check_execvp_arguments and s.mode is Mode.DIRECT,
        "--check-execvp-arguments cannot tell paths from arguments in mode direct",
        "write --check-execvp-arguments=0, or take a mode with list files",
    ),
    Check(
        lambda s: s.seccomp_filter and _is_given(s, "monitor") and s.given["monitor"].text.startswith(b"gio"),
        "--monitor=gio and --seccomp-filter do not go together",
        "write --monitor=inotify",
    ),
    Check(
        lambda s: s.engine in _OWN_ENGINES and s.mode is not Mode.RSYNCDIRECT,
        "--engine is for mode rsyncdirect alone",
        "drop it, or write -M rsyncdirect",
    ),
    Check(
        lambda s: s.engine in _OWN_ENGINES and s.mode is Mode.RSYNCDIRECT and not s.default_arguments,
        "--engine native and rsync know nothing of arguments of your own",
        "drop them, or write --engine=handler",
    ),
    Check(
        lambda s: s.engine is EngineChoice.NATIVE and s.destination_is_remote,
        "--engine=native only reaches directories of this machine",
        "drop it, or write --engine=rsync",
    ),
)


def complaints(settings: Settings) -> list[Complaint]:
    """Why these settings cannot be used."""
    return [Complaint(check.what, check.fix) for check in CHECKS if check.applies(settings)]


def notes(settings: Settings) -> list[Note]:
    """What is odd about them, and what has no effect."""
    found = []
    if settings.rsync_prefer_include and not settings.mode.has_rsync_lists:
        found.append(Note(f"--rsync-prefer-include does nothing in mode {settings.mode.value}"))
    if settings.pivot_root is not PivotRoot.OFF and settings.mountpoints:
        found.append(Note("--mountpoints does nothing with --pivot-root: the old root is gone with all its mounts"))
    if settings.cgroup_group_name is not None and not settings.forbid_devices:
        found.append(Note("--cgroup-group-name does nothing without --forbid-devices"))
    if settings.splitting is Splitting.THREAD:
        found.append(Note("--splitting=thread: a process takes the part of the privileged thread", is_warning=False))
    monitor = settings.given.get("monitor")
    if monitor is not None and monitor.meant is not None and not monitor.text.startswith(b"inotify"):
        found.append(Note(f"--monitor={escaped(monitor.text)}: inotify is used in its place", is_warning=False))
    for name in settings.given:
        option = BY_NAME[name]
        if option.idle:
            found.append(Note(f"--{name} has no effect: {option.idle}", is_warning=name.startswith("cluster")))
    return found


def _is_given(settings: Settings, name: str) -> bool:
    one = settings.given.get(name)
    return one is not None and one.meant is not None
