"""What a run consists of, also against what the original starts for the same tree."""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instep.frontends.clsync.entries import Entry, ObjectType
from instep.frontends.clsync.runs import Part, Runs
from instep.frontends.clsync.settings import Mode, Settings
from instep.frontends.clsync.templates import Arguments
from instep.linux.inotify import IN_CREATE, IN_ISDIR
from instep.model import Call, Program, Told
from instep.paths import ROOT, RelPath
from tests import original_clsync as original
from tests.original_clsync import Run

RSYNC = (
    "-aH",
    "--delete",
    "--exclude-from",
    "%EXCLUDE-LIST-PATH%",
    "--include-from",
    "%INCLUDE-LIST-PATH%",
    "--exclude=*",
)
DEFAULTS = {
    Mode.SIMPLE: ("sync", "nolabel", "%EVENT-MASK%", "%INCLUDE-LIST%"),
    Mode.DIRECT: ("%INCLUDE-LIST%", "/dst/"),
    Mode.SHELL: ("synclist", "nolabel", "%INCLUDE-LIST-PATH%"),
    Mode.RSYNCDIRECT: (*RSYNC, "/src/", "/dst/"),
    Mode.RSYNCSHELL: ("rsynclist", "nolabel", "%INCLUDE-LIST-PATH%", "%EXCLUDE-LIST-PATH%"),
}
INITIAL = ("initialsync", "nolabel", "%INCLUDE-LIST%")


def words(arguments: Sequence[str]) -> tuple[bytes, ...]:
    return tuple(map(os.fsencode, arguments))


def settings_for(mode: Mode, arguments: Sequence[str] | None = None, **more: Any) -> Settings:
    given = DEFAULTS.get(mode, ()) if arguments is None else arguments
    initial = words(INITIAL) if mode is Mode.SHELL and arguments is None else None
    plain = Settings(b"/src", mode, b"handler", words(given), initial, default_arguments=arguments is None)
    return replace(plain, **more)


def runs_for(settings: Settings) -> Runs:
    numbers = itertools.count(1)
    return Runs(
        settings, list_dir=lambda: b"/lists", own=lambda: None, pid=7, clock=lambda: 99.5, random=lambda: next(numbers)
    )


def parts_of(settings: Settings, entries: Sequence[Entry], excluded: Sequence[tuple[RelPath, bool]] = ()) -> list[Part]:
    return runs_for(settings).of(entries, excluded, iteration=3, status="running")


def programs(parts: Sequence[Part]) -> list[Program]:
    found = [part.work for part in parts]
    assert all(isinstance(each, Program) for each in found)
    return [each for each in found if isinstance(each, Program)]


def arguments_of(settings: Settings, entries: Sequence[Entry]) -> list[tuple[bytes, ...]]:
    return [each.argv[1:] for each in programs(parts_of(settings, entries))]


def file(path: bytes, mask: int = IN_CREATE) -> Entry:
    return Entry(RelPath(path), mask, ObjectType.ABSENT, ObjectType.FILE)


def directory(path: bytes, *, recursive: bool = False, absolute: bool = False) -> Entry:
    return Entry(
        RelPath(path),
        IN_CREATE | IN_ISDIR,
        ObjectType.ABSENT,
        ObjectType.DIRECTORY,
        recursive=recursive,
        absolute=absolute,
    )


# ---- as the original -----------------------------------------------------------------------------------------------

TREE = [b"a", b"d/", b"d/b", b"d/e/", b"d/e/c d", b"c[d]", "ä".encode()]


def walk() -> list[Entry]:
    return [directory(ROOT), *(directory(path[:-1]) if path.endswith(b"/") else file(path) for path in TREE)]


def ours(part: Part) -> Run:
    """One of our runs in the original's terms."""
    work = part.work
    assert isinstance(work, Program)
    files = {each.path: sorted(each.content.split(b"\n")[:-1]) for each in work.files}
    arguments = work.argv[1:]
    kinds = {kind: argument.rpartition(b"=")[2] for argument in arguments if (kind := original.list_named(argument))}
    return Run(
        work.environment[b"CLSYNC_STATUS"],
        work.environment[b"CLSYNC_ITERATION"],
        [original.without_list(argument) for argument in arguments],
        {kind: files[path] for kind, path in kinds.items()},
    )


CASES: list[tuple[Mode, list[str], Sequence[str] | None, dict[str, Any]]] = [
    (Mode.SIMPLE, [], None, {}),
    (Mode.SIMPLE, [], ["%TYPE%", "m%EVENT-MASK%n", "%INCLUDE-LIST%", "p=%INCLUDE-LIST-PATH%"], {}),
    (Mode.SIMPLE, [], ["nothing"], {}),
    (Mode.SIMPLE, ["--have-recursive-sync"], ["%TYPE%", "%INCLUDE-LIST%"], {"have_recursive_sync": True}),
    (Mode.DIRECT, [], None, {}),
    (Mode.DIRECT, [], ["x%TYPE%y", "%TYPE%", "m%EVENT-MASK%n", "%EVENT-MASK%", "%FOO%", "x%FOO%y", "a=%INCLUDE-LIST%"], {}),
    (Mode.DIRECT, [], ["p=%INCLUDE-LIST-PATH%", "%TYPE%", "%INCLUDE-LIST%"], {}),
    (Mode.DIRECT, [], ["build"], {}),
    (Mode.DIRECT, [], ["%TYPE%", "%EVENT-MASK%", "x%%"], {}),
    (Mode.DIRECT, ["-L", "LISTS"], ["%TYPE%", "%EVENT-MASK%"], {"lists_dir": b"/lists"}),
    (Mode.DIRECT, ["--have-recursive-sync"], None, {"have_recursive_sync": True}),
    (Mode.DIRECT, ["--have-recursive-sync"], ["%TYPE%", "%INCLUDE-LIST-PATH%"], {"have_recursive_sync": True}),
    (Mode.SHELL, [], None, {}),
    (Mode.SHELL, [], ["%TYPE%", "%INCLUDE-LIST%"], {}),
    (Mode.SHELL, ["--have-recursive-sync"], None, {"have_recursive_sync": True}),
    (Mode.SHELL, ["-L", "LISTS", "--synclist-simplify"], None, {"lists_dir": b"/lists", "synclist_simplify": True}),
    (Mode.RSYNCSHELL, [], None, {}),
    (Mode.RSYNCSHELL, ["--rsync-prefer-include"], ["%TYPE%", "%INCLUDE-LIST-PATH%"], {"rsync_prefer_include": True}),
    (Mode.RSYNCDIRECT, [], None, {}),
    (Mode.RSYNCDIRECT, [], ["%TYPE%", "%INCLUDE-LIST%", "e=%EXCLUDE-LIST-PATH%"], {}),
    (Mode.RSYNCDIRECT, [], ["%TYPE%", "x"], {}),
]  # fmt: skip


@original.needs_clsync
@pytest.mark.parametrize(("mode", "options", "arguments", "more"), CASES)
def test_as_the_original(
    tmp_path: Path, mode: Mode, options: list[str], arguments: Sequence[str] | None, more: dict[str, Any]
) -> None:
    source, lists_dir, target = tmp_path / "src", tmp_path / "lists", tmp_path / "dst"
    source.mkdir()
    target.mkdir()
    lists_dir.mkdir(mode=0o700)
    for path in TREE:
        place = os.path.join(os.fsencode(source), path)
        if path.endswith(b"/"):
            os.mkdir(place)
        else:
            Path(os.fsdecode(place)).touch()

    def placed(text: str) -> str:
        return text.replace("/src", str(source)).replace("/dst", str(target)).replace("LISTS", str(lists_dir))

    theirs = original.initial(
        tmp_path, source, [f"-M{mode.value}", f"-D{target}", *map(placed, options)], [*map(placed, arguments or [])]
    )
    settings = settings_for(mode, arguments, watch_dir=os.fsencode(source), **more)
    settings = replace(settings, arguments=tuple(os.fsencode(placed(os.fsdecode(each))) for each in settings.arguments))
    if settings.have_recursive_sync:
        entries = [directory(ROOT, absolute=True)]
    elif mode.has_rsync_lists and not settings.rsync_prefer_include:
        entries = [directory(ROOT, recursive=True)]
    else:
        entries = walk()
    iteration = 0 if mode is Mode.SIMPLE or settings.have_recursive_sync else 1
    found = [ours(part) for part in runs_for(settings).of(entries, iteration=iteration, status="initsync")]

    def ordered(runs: Sequence[Run]) -> list[Run]:
        # The original has its paths in no order, and the mask of rsync's root as it comes.
        several = mode in (Mode.DIRECT, Mode.SHELL)
        told = [run._replace(arguments=sorted(run.arguments) if several else run.arguments) for run in runs]
        return sorted(told, key=lambda run: run.arguments)

    assert ordered(found) == ordered(theirs)


# ---- arguments -----------------------------------------------------------------------------------------------------


def test_names_are_neither_macros_nor_options() -> None:
    names = [b"%", b"%label%", b"50%off", b"%INCLUDE-LIST%", b"%%", b"-rf", b"--delete", b"d/-x", b"-"]
    told = (*names[:5], b"./-rf", b"./--delete", b"d/-x", b"./-")
    assert arguments_of(settings_for(Mode.DIRECT), [file(name) for name in names]) == [(*told, b"/dst/")]
    absolute = arguments_of(settings_for(Mode.SIMPLE), [file(name) for name in names])
    assert [each[-1] for each in absolute] == [b"/src/" + name for name in names]
    single = settings_for(Mode.DIRECT, ["%INCLUDE-LIST%"], run_per_object=True)
    assert arguments_of(single, [file(name) for name in names]) == [(each,) for each in told]


def test_so_many_paths_as_the_original_has() -> None:
    entries = [file(b"%d" % number) for number in range(600)]
    parts = parts_of(settings_for(Mode.DIRECT), entries)
    assert [len(part.work.argv) for part in parts if isinstance(part.work, Program)] == [256, 256, 94]
    assert [entry for part in parts for entry in part.entries] == entries
    many = ["x"] * 250
    assert [len(each) for each in arguments_of(settings_for(Mode.DIRECT, [*many, "%INCLUDE-LIST%"]), entries[:12])] == [
        255, 255, 252,
    ]  # fmt: skip
    too_many = settings_for(Mode.DIRECT, [*many, *many, "%INCLUDE-LIST%"])
    assert [len(each) for each in arguments_of(too_many, entries[:2])] == [501, 501]


def test_parts_have_lists_of_their_own_paths() -> None:
    settings = settings_for(Mode.DIRECT, ["%INCLUDE-LIST-PATH%", "%INCLUDE-LIST%"])
    found = programs(parts_of(settings, [file(b"%d" % number) for number in range(300)]))
    assert [len(each.files) for each in found] == [1, 1]
    for each in found:
        assert each.argv[1] == each.files[0].path
        assert [line.split(b" ", 3)[3] for line in each.files[0].content.split(b"\n")[:-1]] == list(each.argv[2:])


def test_the_mask_is_known_where_one_path_is_told() -> None:
    arguments = ["%EVENT-MASK%", "m%EVENT-MASK%n", "%TYPE%"]
    entries = [file(b"a", 10), file(b"b", 512)]
    assert arguments_of(settings_for(Mode.SHELL, arguments), entries) == [
        (b"10", b"m10n", b"sync"),
        (b"512", b"m512n", b"sync"),
    ]
    assert arguments_of(settings_for(Mode.SHELL, [*arguments, "%INCLUDE-LIST%"]), entries) == [
        (b"%EVENT-MASK%", b"mn", b"synclist", b"a", b"b")
    ]
    # For a directory that is told as a whole the original prints what happens to be in its memory.
    whole = [directory(b"d", recursive=True, absolute=True)]
    assert arguments_of(settings_for(Mode.SIMPLE), whole) == [(b"sync", b"nolabel", b"1073742080", b"/src/d")]


def test_whole_directories_have_runs_of_their_own_beside_the_rest() -> None:
    entries = [file(b"a"), directory(b"d", recursive=True, absolute=True), file(b"b")]
    parts = parts_of(settings_for(Mode.SHELL), entries)
    whole, rest = programs(parts)
    assert whole.argv == (b"handler", b"initialsync", b"nolabel", b"/src/d")
    assert rest.files[0].content == b"sync nolabel 256 a\nsync nolabel 256 b\n"
    assert [list(part.entries) for part in parts] == [[entries[1]], [entries[0], entries[2]]]


def test_runs_for_single_paths_say_so() -> None:
    for settings in (settings_for(Mode.SIMPLE), settings_for(Mode.RSYNCSHELL, ["x"]), settings_for(Mode.DIRECT, ["x"])):
        assert runs_for(settings).tells_singly
        entries = [file(b"a"), file(b"b")]
        assert [list(part.entries) for part in parts_of(settings, entries)] == [[entry] for entry in entries]
    for settings in (settings_for(Mode.DIRECT), settings_for(Mode.SO), settings_for(Mode.RSYNCPY)):
        assert not runs_for(settings).tells_singly


@pytest.mark.parametrize(("watch_dir", "expected"), [(b"/", (b"/a", b"/")), (b"/src", (b"/src/a", b"/src"))])
def test_absolute_paths(watch_dir: bytes, expected: tuple[bytes, ...]) -> None:
    settings = settings_for(Mode.DIRECT, ["%INCLUDE-LIST%"], watch_dir=watch_dir, absolute_paths=True)
    assert arguments_of(settings, [file(b"a"), directory(ROOT)]) == [expected]
    settings = replace(settings, mode=Mode.SHELL, arguments=(b"%INCLUDE-LIST-PATH%",))
    (program,) = programs(parts_of(settings, [file(b"a"), directory(ROOT)]))
    assert tuple(line.split(b" ", 3)[3] for line in program.files[0].content.split(b"\n")[:-1]) == expected


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        (b"", [b""]),
        (b"%%", [b"%"]),
        (b"100%%", [b"100%"]),
        (b"%%TYPE%%", [b"%TYPE%"]),
        (b"%TYPE%%EVENT-MASK%", [b"T5"]),
        (b"%TYPE%", [b"T"]),
        (b"%INCLUDE-LIST%", [b"x", b"%TYPE%"]),
        (b"-%INCLUDE-LIST%-", [b"--"]),
        (b"%INCLUDE-LIST%%%", [b"%"]),
        (b"%UNKNOWN%", [b"%UNKNOWN%"]),
        (b"a%UNKNOWN%b", [b"ab"]),
        (b"% %", [b"% %"]),
    ],
)
def test_templates(template: bytes, filled: list[bytes]) -> None:
    assert Arguments([template]).filled({b"TYPE": b"T", b"EVENT-MASK": b"5"}, [b"x", b"%TYPE%"]) == filled


# ---- lists ---------------------------------------------------------------------------------------------------------


def test_names_of_list_files() -> None:
    (program,) = programs(parts_of(settings_for(Mode.RSYNCSHELL), [file(b"a")]))
    patterns = [rb"/lists/\.clsync-list\.7\.[0-9]+\.99\.1", rb"/lists/\.clsync-exclist\.7\.[0-9]+\.99\.2"]
    for pattern, each, argument in zip(patterns, program.files, program.argv[3:], strict=True):
        assert re.fullmatch(pattern, each.path)
        assert argument == each.path
        assert not each.keep
    (kept,) = programs(parts_of(settings_for(Mode.SHELL, dont_unlink_lists=True), [file(b"a")]))
    assert kept.files[0].keep


def test_no_list_where_none_is_named() -> None:
    """The original makes one all the same, and leaves it."""

    def never() -> bytes:
        raise AssertionError

    for mode in (Mode.DIRECT, Mode.SHELL, Mode.RSYNCSHELL, Mode.RSYNCDIRECT):
        settings = settings_for(mode, ["%INCLUDE-LIST%"], lists_dir=b"/lists")
        runs = Runs(settings, list_dir=never, own=lambda: None, pid=1, clock=lambda: 0.0, random=lambda: 0)
        (part,) = runs.of([file(b"a")], iteration=1, status="running")
        assert isinstance(part.work, Program)
        assert part.work.files == ()


def test_an_exclude_list_that_the_mode_does_not_have() -> None:
    """The original fails at the end of such a run."""
    arguments = ["%INCLUDE-LIST-PATH%", "%EXCLUDE-LIST-PATH%"]
    for settings in (
        settings_for(Mode.SHELL, arguments),
        settings_for(Mode.RSYNCSHELL, arguments, rsync_prefer_include=True),
    ):
        (program,) = programs(parts_of(settings, [file(b"a")]))
        assert program.argv == (b"handler", program.files[0].path, b"")
        assert len(program.files) == 1


def test_rsync_parts_share_the_excluded() -> None:
    excluded = [(RelPath(b"d/x"), False), (RelPath(b"d/mnt"), True)]
    settings = settings_for(Mode.RSYNCSHELL, rsync_inclimit=3)
    entries = [directory(b"d", recursive=True), file(b"e/f"), file(b"g")]
    found = programs(parts_of(settings, entries, excluded))
    assert [each.files[0].content for each in found] == [b"/d/***\n/e/f\n/e\n", b"/g\n"]
    assert {each.files[1].content for each in found} == {b"/d/x\n/d/mnt/**\n"}
    assert len({each.path for program in found for each in program.files}) == 4


def test_names_that_no_line_can_hold_are_left_out_and_told(caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_for(Mode.SHELL)
    entries = [file(b"a"), file(b"b\nsync nolabel 8 /etc/passwd")]
    with caplog.at_level(logging.WARNING):
        (part,) = parts_of(settings, entries)
    assert isinstance(part.work, Program)
    assert part.work.files[0].content == b"sync nolabel 256 a\n"
    assert list(part.entries) == entries[:1]
    assert [record.msg for record in caplog.records] == ["name-cannot-be-listed"]
    assert parts_of(settings, entries[1:]) == []


# ---- calls ---------------------------------------------------------------------------------------------------------


def calls(parts: Sequence[Part]) -> list[Call]:
    found = [part.work for part in parts]
    return [each for each in found if isinstance(each, Call)]


@pytest.mark.parametrize("mode", [Mode.SO, Mode.PY])
def test_functions_are_told_of_paths(mode: Mode) -> None:
    entries = [directory(ROOT), file(b"a\nb", 10), directory(b"d", recursive=True, absolute=True)]
    (call,) = calls(parts_of(settings_for(mode, timeout_sync_s=5), entries))
    made = IN_CREATE | IN_ISDIR
    assert call.events == (
        Told(b"", made, False, 1, 3),
        Told(b"a\nb", 10, False, 1, 2),
        Told(b"/src/d", made, True, 1, 3),
    )
    assert (call.include, call.exclude, call.files, call.timeout_s) == (None, None, (), 5)
    assert call.environment == {b"CLSYNC_STATUS": b"running", b"CLSYNC_ITERATION": b"3"}


@pytest.mark.parametrize("mode", [Mode.RSYNCSO, Mode.RSYNCPY])
def test_functions_are_told_of_lists(mode: Mode) -> None:
    settings = settings_for(mode, rsync_inclimit=2)
    excluded = [(RelPath(b"x"), False)]
    found = calls(parts_of(settings, [file(b"a"), file(b"b")], excluded))
    assert [[each.content for each in call.files] for call in found] == [[b"/a\n", b"/x\n"], [b"/b\n", b"/x\n"]]
    for call in found:
        assert [call.include, call.exclude] == [each.path for each in call.files]
        assert call.events == ()
    (call,) = calls(parts_of(replace(settings, rsync_prefer_include=True), [file(b"a")], excluded))
    assert (call.exclude, len(call.files)) == (None, 1)


# ---- the rest ------------------------------------------------------------------------------------------------------


def test_how_programs_are_started() -> None:
    settings = settings_for(Mode.DIRECT, sync_handler_uid=1, sync_handler_gid=2, timeout_sync_s=9)
    (program,) = programs(parts_of(settings, [file(b"a")]))
    assert program.environment == {b"CLSYNC_STATUS": b"running", b"CLSYNC_ITERATION": b"3"}
    assert (program.directory, program.user, program.group, program.timeout_s) == (b"/src", 1, 2, 9)
    (program,) = programs(parts_of(replace(settings, timeout_sync_s=0), [file(b"a")]))
    assert program.timeout_s == math.inf
    (part,) = runs_for(settings).of([file(b"a")], iteration=None, status="hold on")
    assert isinstance(part.work, Program)
    assert part.work.environment == {b"CLSYNC_STATUS": b"hold on"}


@pytest.mark.parametrize("mode", Mode)
def test_nothing_to_tell(mode: Mode) -> None:
    assert parts_of(settings_for(mode, DEFAULTS.get(mode, ())), []) == []


def test_settings_may_change() -> None:
    runs = runs_for(settings_for(Mode.DIRECT))
    runs.change(settings_for(Mode.DIRECT, ["other", "%INCLUDE-LIST%"]))
    (program,) = programs(runs.of([file(b"a")], iteration=1, status="running"))
    assert program.argv == (b"handler", b"other", b"a")
