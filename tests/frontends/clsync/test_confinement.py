"""What settings come to in rights, and which programs they allow: all that runs make of them, nothing else."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from instep.confinement import Detached, Identity, Inheritance, RootChange
from instep.frontends.clsync.confinement import plan, vectors
from instep.frontends.clsync.entries import Entry, ObjectType
from instep.frontends.clsync.runs import Runs
from instep.frontends.clsync.settings import DetachNetwork, Given, Inherit, Mode, PivotRoot, Settings, Splitting
from instep.model import Program
from instep.paths import RelPath

ROOT = Identity(0, 0)
USER = Identity(1000, 100)
NOBODY = Identity(65534, 65533)
PLAIN = Settings(b"/w", Mode.SIMPLE, b"/bin/h", (b"sync", b"x", b"%EVENT-MASK%", b"%INCLUDE-LIST%"), None, True)


def test_by_default_root_becomes_nobody_if_it_can_and_programs_are_root() -> None:
    made = plan(PLAIN, started=ROOT, nobody=NOBODY)
    assert (made.identity, made.identity_optional, made.programs) == (NOBODY, True, ROOT)
    assert (made.split, made.system_calls, made.devices, made.root) == (None, False, False, None)
    assert made.inheritance is Inheritance.NONE
    assert (made.detached, made.optional) == (Detached.HOST_NAME, Detached.HOST_NAME)


def test_by_default_others_stay_who_they_are() -> None:
    made = plan(PLAIN, started=USER, nobody=NOBODY)
    assert (made.identity, made.identity_optional, made.programs) == (USER, True, USER)


def test_ids_that_are_given_must_be_had() -> None:
    made = plan(replace(PLAIN, uid=5, sync_handler_gid=6), started=ROOT, nobody=NOBODY)
    assert (made.identity, made.identity_optional) == (Identity(5, 65533), False)
    assert made.programs == Identity(0, 6)


def test_a_filter_for_system_calls_needs_the_helper_and_threads_are_no_help() -> None:
    made = plan(replace(PLAIN, seccomp_filter=True), started=ROOT, nobody=NOBODY)
    assert made.split is not None
    assert "a process of its own" in made.notices[0]
    made = plan(replace(PLAIN, splitting=Splitting.THREAD, privileged_uid=3), started=ROOT, nobody=NOBODY)
    assert made.split is not None
    assert (made.split.identity, made.split.vectors, made.split.network) == (Identity(3, 0), None, True)
    assert made.notices


def test_what_has_no_effect_without_the_helper_is_said() -> None:
    asked = replace(PLAIN, detach_network=DetachNetwork.NON_PRIVILEGED, check_execvp_arguments=True)
    made = plan(asked, started=ROOT, nobody=NOBODY)
    assert [notice.split()[0] for notice in made.notices] == [
        "detach-network=non-privileged",
        "check-execvp-arguments",
    ]
    made = plan(replace(asked, splitting=Splitting.PROCESS), started=ROOT, nobody=NOBODY)
    assert made.split is not None
    assert (made.split.network, made.notices) == (False, ())


def test_namespaces_and_roots() -> None:
    asked = replace(
        PLAIN,
        detach_miscellanea=True,
        detach_network=DetachNetwork.EVERYWHERE,
        chroot=b"/r",
        forbid_devices=True,
        cgroup_group_name=b"web/devices",
        pivot_root=PivotRoot.AUTO_RO,
        inherit_capabilities=Inherit.PERMITTED,
        given={"detach-ipc": Given(b"1", True, "--detach-ipc")},
    )
    made = plan(asked, started=ROOT, nobody=NOBODY)
    assert made.detached == Detached.NETWORK | Detached.HOST_NAME | Detached.IPC
    assert made.optional == Detached(0)
    assert (made.devices, made.device_group) == (True, b"web/devices")
    assert (made.root, made.root_change, made.inheritance) == (b"/r", RootChange.BIND_READ_ONLY, Inheritance.ALL)


# ---- what may be executed ----

HANDLERS = {
    "simple": PLAIN,
    "direct": replace(PLAIN, mode=Mode.DIRECT, arguments=(b"%INCLUDE-LIST%", b"/to/")),
    "shell": replace(PLAIN, mode=Mode.SHELL, arguments=(b"%TYPE%", b"x", b"%INCLUDE-LIST-PATH%")),
    "rsyncshell": replace(
        PLAIN,
        mode=Mode.RSYNCSHELL,
        arguments=(b"rsynclist", b"%INCLUDE-LIST-PATH%", b"%EXCLUDE-LIST-PATH%"),
        lists_dir=b"/run/lists.d",
    ),
    "odd": replace(
        PLAIN,
        mode=Mode.SHELL,
        arguments=(b"50%%", b"%LABEL%", b"a%LABEL%b", b"--list=%INCLUDE-LIST-PATH%", b"a=%INCLUDE-LIST%", b"."),
        initial_arguments=(b"initialsync", b"x", b"%INCLUDE-LIST%"),
        lists_dir=b"/run/lists.d",
    ),
}
PATHS = (b"", b"a", b"d/e f", b"-rf", b"d/-x", b"...", b".hidden", b"\xff\n", b"%label%", b"a..b/..c")


def made_by(settings: Settings) -> list[Program]:
    runs = Runs(
        settings,
        list_dir=lambda: settings.lists_dir or b"/tmp/clsync-Ab12_x",
        own=lambda: None,
        pid=5,
        clock=lambda: 9.5,
        random=lambda: 7,
    )
    entries = [Entry(RelPath(path), 0x40000100, ObjectType.ABSENT, ObjectType.FILE) for path in PATHS]
    entries.append(Entry(RelPath(b"d"), 256, ObjectType.ABSENT, ObjectType.DIRECTORY, recursive=True, absolute=True))
    return [part.work for part in runs.of(entries, iteration=1, status="running") if isinstance(part.work, Program)]


def allows(settings: Settings, argv: tuple[bytes, ...]) -> bool:
    words = b"".join(word + b"\0" for word in argv)
    return any(re.fullmatch(vector, words) for vector in vectors(settings))


@pytest.mark.parametrize("name", HANDLERS)
def test_all_that_runs_are_made_of_is_allowed(name: str) -> None:
    settings = HANDLERS[name]
    programs = made_by(settings)
    assert programs
    for program in programs:
        assert allows(settings, program.argv), program.argv


@pytest.mark.parametrize("name", HANDLERS)
def test_no_word_can_be_changed_left_out_or_added(name: str) -> None:
    settings = HANDLERS[name]
    for program in made_by(settings):
        argv = program.argv
        assert not allows(settings, (b"/bin/sh", *argv[1:]))
        assert not allows(settings, (*argv, b"--more"))
        assert not allows(settings, (argv[0], b"-x", *argv[1:]))
        for place, word in enumerate(argv):
            for other in (b"/etc/passwd", b"../up", b"/w/../etc", b"-c", word + b"/../x"):
                assert not allows(settings, (*argv[:place], other, *argv[place + 1 :])), other


@pytest.mark.parametrize(
    "path",
    [b"/run/lists.d/x", b"/run/lists.d/.clsync-list.1/../x", b"/etc/.clsync-list.1.2", b"/run/listsXd/.clsync-list.1"],
)
def test_only_lists_in_the_directory_for_them_are_allowed(path: bytes) -> None:
    settings = HANDLERS["rsyncshell"]
    good = b"/run/lists.d/.clsync-list.5.6.7.8"
    assert allows(settings, (b"/bin/h", b"rsynclist", good, b""))
    assert not allows(settings, (b"/bin/h", b"rsynclist", path, b""))


def test_hooks_are_allowed_only_if_configured() -> None:
    settings = replace(PLAIN, exit_hook=b"/hooks/exit", permitted_hooks=(b"/hooks/other",))
    assert allows(settings, (b"/hooks/exit", b"any label"))
    assert allows(settings, (b"/hooks/other", b""))
    assert not allows(settings, (b"/hooks/exit", b"label", b"more"))
    assert not allows(settings, (b"/hooks/pre-exit", b"label"))
    assert not allows(settings, (b"/hooks/exit",))
