"""From settings to a module."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from instep.frontends.clsync.modules import PROCESSES_MAX, module_spec
from instep.frontends.clsync.output import Say, take_over
from instep.frontends.clsync.settings import Mode, Output, Settings, Threading
from instep.logs import fields
from instep.spec import ModuleKind

PLAIN = Settings(
    watch_dir=b"/w",
    mode=Mode.SO,
    sync_handler=b"/m.so",
    arguments=(),
    initial_arguments=None,
    default_arguments=True,
    detach_ipc=False,
    verbose=0,
)


@pytest.mark.parametrize(
    ("mode", "kind", "takes_lists", "number"),
    [
        (Mode.SO, ModuleKind.SHARED_OBJECT, False, 7),
        (Mode.RSYNCSO, ModuleKind.SHARED_OBJECT, True, 6),
        (Mode.PY, ModuleKind.PYTHON, False, 7),
        (Mode.RSYNCPY, ModuleKind.PYTHON, True, 6),
    ],
)
def test_modes(mode: Mode, kind: ModuleKind, takes_lists: bool, number: int) -> None:
    spec = module_spec(replace(PLAIN, mode=mode))
    assert (spec.kind, spec.takes_lists, spec.flags) == (kind, takes_lists, {77: number})


def test_what_it_is_told() -> None:
    spec = module_spec(replace(PLAIN, destination_dir=b"/d", label=b"l", lists_dir=b"/t", retries=0))
    assert (spec.path, spec.watch_dir, spec.destination_dir) == (b"/m.so", b"/w", b"/d")
    assert (spec.label, spec.lists_dir, spec.retries, spec.processes) == (b"l", b"/t", 0, 1)


@pytest.mark.parametrize(
    ("changed", "flags"),
    [
        ({"threading": Threading.SAFE}, {112: 1}),
        ({"threading": Threading.FULL}, {112: 2}),
        ({"output": Output.STDOUT}, {89: 1}),
        ({"output": Output.SYSLOG}, {89: 2}),
        ({"debug": 4, "verbose": 3}, {100: 4, 118: 3}),
        ({"have_recursive_sync": True}, {512: 1}),
        ({"rsync_prefer_include": True}, {514: 1}),
        ({"max_iterations": 5}, {528: 5}),
        (
            {"standby_file": b"x", "exit_hook": b"/e", "pre_exit_hook": b"/p", "socket": b"s"},
            {521: 1, 522: 1, 524: 1, 525: 1},
        ),
        ({"exclude_mount_points": True, "one_file_system": True}, {88: 1, 516: 1}),
        ({"detach_ipc": True}, {558: 1}),
    ],
)
def test_options_by_number(changed: dict[str, object], flags: dict[int, int]) -> None:
    settings = replace(PLAIN, **changed)  # type: ignore[arg-type]  # by name
    assert module_spec(settings).flags == {77: 7, **flags}


def test_threading_gives_calls_processes_of_their_own() -> None:
    assert module_spec(replace(PLAIN, threading=Threading.SAFE)).processes == PROCESSES_MAX


def test_what_a_module_says_is_said_as_clsync_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    say = Say()
    take_over(say)
    saying = logging.getLogger("instep.test.saying")
    saying.setLevel(logging.DEBUG)

    def all_of_it() -> list[str]:
        for level, number, debug in (
            (40, 2, None),
            (40, None, None),
            (30, None, None),
            (20, None, None),
            (10, None, 1),
        ):
            values = fields(function="clsyncapi_sync", text="some words", errno=number, debug=debug)
            saying.log(level, "module-says", extra=values)
        return capsys.readouterr().err.splitlines()

    shown = [
        "Error: some words (2: No such file or directory)",
        "Error: some words",
        "Warning: some words",
        "Info: some words",
    ]
    assert all_of_it() == shown
    say.direct(Output.STDERR, debug=1)
    lines = all_of_it()
    assert [line.partition(" (pid")[0] for line in lines] == ["Error", "Error", "Warning", "Info", "Debug1"]
    assert all("clsyncapi_sync(): some words" in line for line in lines)
    saying.setLevel(logging.NOTSET)
