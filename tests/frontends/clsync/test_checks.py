"""Combinations that are refused, each by itself and with the value that turns it off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from instep.frontends.clsync import checks
from instep.frontends.clsync.settings import (
    EngineChoice,
    Given,
    Mode,
    PivotRoot,
    Settings,
    Splitting,
    Threading,
)

PLAIN = Settings(
    watch_dir=b"/w", mode=Mode.SHELL, sync_handler=b"/h", arguments=(), initial_arguments=None, default_arguments=True
)
ONE = Given(b"1", 1, "")
UNSET = Given(b"", None, "")


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({}, []),
        ({"given": {"socket-own": ONE}}, ["--socket-own"]),
        ({"given": {"socket-mod": ONE}}, ["--socket-mod"]),
        ({"given": {"socket-auth": ONE}}, ["--socket-auth"]),
        ({"given": {"socket-auth": UNSET}}, []),
        ({"given": {"socket-auth": ONE}, "socket": b"/s"}, []),
        ({"pivot_root": PivotRoot.AUTO}, ["--pivot-root"]),
        ({"pivot_root": PivotRoot.AUTO, "chroot": b"/c"}, []),
        ({"standby_file": b"/s"}, []),
        ({"standby_file": b"/s", "mode": Mode.SIMPLE}, ["--standby-file"]),
        ({"threading": Threading.SAFE}, []),
        ({"threading": Threading.SAFE, "only_initialsync": True}, ["--threading"]),
        ({"threading": Threading.FULL, "exit_on_no_events": True}, ["--threading"]),
        ({"threading": Threading.SAFE, "max_iterations": 2}, ["--threading"]),
        ({"threading": Threading.SAFE, "pre_exit_hook": b"/p"}, ["--threading"]),
        ({"threading": Threading.SAFE, "splitting": Splitting.THREAD}, ["--threading"]),
        ({"threading": Threading.SAFE, "splitting": Splitting.PROCESS}, []),
        ({"threading": Threading.SAFE, "seccomp_filter": True}, ["--threading"]),
        ({"skip_initialsync": True}, []),
        ({"skip_initialsync": True, "exit_on_no_events": True}, ["--skip-initialsync"]),
        ({"skip_initialsync": True, "only_initialsync": True}, ["--skip-initialsync"]),
        ({"skip_initialsync": True, "full_initialsync": True}, ["--skip-initialsync"]),
        ({"only_initialsync": True, "exit_on_no_events": True}, ["--only-initialsync"]),
        ({"modification_signature": frozenset({"uid"})}, []),
        ({"modification_signature": frozenset({"uid"}), "cancel_stat": True}, ["--modification-signature"]),
        ({"have_recursive_sync": True}, []),
        ({"have_recursive_sync": True, "mode": Mode.RSYNCDIRECT}, ["--have-recursive-sync"]),
        ({"have_recursive_sync": True, "mode": Mode.RSYNCPY}, ["--have-recursive-sync"]),
        ({"synclist_simplify": True, "lists_dir": b"/l"}, []),
        ({"synclist_simplify": True, "lists_dir": b"/l", "mode": Mode.RSYNCSHELL}, ["--synclist-simplify"]),
        ({"synclist_simplify": True}, ["--synclist-simplify"]),
        ({"check_execvp_arguments": True}, []),
        ({"check_execvp_arguments": True, "mode": Mode.DIRECT}, ["--check-execvp-arguments"]),
        ({"seccomp_filter": True}, []),
        ({"seccomp_filter": True, "given": {"monitor": Given(b"inotify", "inotify", "")}}, []),
        ({"seccomp_filter": True, "given": {"monitor": Given(b"gio", "inotify", "")}}, ["--monitor=gio"]),
        ({"given": {"monitor": Given(b"gio", "inotify", "")}}, []),
        ({"engine": EngineChoice.HANDLER}, []),
        ({"engine": EngineChoice.NATIVE}, ["--engine"]),
        ({"engine": EngineChoice.RSYNC, "mode": Mode.RSYNCDIRECT}, []),
        ({"engine": EngineChoice.RSYNC, "mode": Mode.RSYNCDIRECT, "default_arguments": False}, ["--engine"]),
        ({"engine": EngineChoice.NATIVE, "mode": Mode.RSYNCDIRECT, "destination_is_remote": True}, ["--engine=native"]),
    ],
    ids=lambda each: ", ".join(f"{key}={value}" for key, value in each.items()) if isinstance(each, dict) else "",
)  # fmt: skip
def test_combinations(changes: dict[str, object], refused: Sequence[str]) -> None:
    settings = replace(PLAIN, **changes)  # type: ignore[arg-type]  # a table of fields
    found = checks.complaints(settings)
    assert [complaint.what.split()[0] for complaint in found] == refused
    assert all(complaint.status == 22 and complaint.fix for complaint in found)


def test_all_that_is_wrong_is_told_at_once() -> None:
    settings = replace(PLAIN, threading=Threading.FULL, only_initialsync=True, max_iterations=3, skip_initialsync=True)
    assert len(checks.complaints(settings)) == 3


@pytest.mark.parametrize(
    ("settings", "text", "is_warning"),
    [
        (replace(PLAIN, rsync_prefer_include=True), "--rsync-prefer-include does nothing in mode shell", True),
        (replace(PLAIN, pivot_root=PivotRoot.AUTO, mountpoints=(b"/a",)), "--mountpoints does nothing", True),
        (replace(PLAIN, cgroup_group_name=b"a"), "--cgroup-group-name does nothing without --forbid-devices", True),
        (replace(PLAIN, splitting=Splitting.THREAD), "--splitting=thread: a process", False),
        (replace(PLAIN, given={"monitor": Given(b"gio", "inotify", "")}), "--monitor=gio: inotify is used", False),
        (replace(PLAIN, given={"permit-mprotect": ONE}), "--permit-mprotect has no effect: ", False),
        (replace(PLAIN, given={"cluster-port": ONE}), "--cluster-port has no effect: ", True),
    ],
    ids=lambda each: each.split()[0] if isinstance(each, str) else "",
)
def test_what_is_odd_is_told(settings: Settings, text: str, *, is_warning: bool) -> None:
    (note,) = checks.notes(settings)
    assert note.text.startswith(text)
    assert note.is_warning == is_warning


def test_nothing_is_odd_about_the_usual() -> None:
    assert checks.notes(replace(PLAIN, given={"monitor": Given(b"inotify", "inotify", "")})) == []
    assert checks.notes(replace(PLAIN, rsync_prefer_include=True, mode=Mode.RSYNCSHELL)) == []
    assert checks.notes(replace(PLAIN, cgroup_group_name=b"a", forbid_devices=True)) == []
