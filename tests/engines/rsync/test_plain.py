"""When rsync may do without looking for ACLs and extended attributes, and that none is lost by it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from instep.engines.rsync import engine as engine_module
from instep.engines.rsync import plain, runner
from instep.engines.rsync.command import Abilities, Settings, Style, command
from instep.engines.rsync.plan import Run
from instep.model import Change
from instep.paths import RelPath, Scope
from tests.engines.rsync.places import Place, assert_done, entry, names, tree

FILES = 80
NAMES = [b"d/e/%02d" % number for number in range(FILES)]


@pytest.fixture
def styles(monkeypatch: pytest.MonkeyPatch) -> list[Style]:
    """How the runs of a batch of any size were styled."""
    seen: list[Style] = []

    def noting(
        settings: Settings, abilities: Abilities, style: Style, *, compare_only: bool = False,
        leave_out: Sequence[bytes] = (), only: Sequence[bytes] = (),
    ) -> list[bytes]:  # fmt: skip
        if not settings.dry_run and not compare_only and not style.root_only:
            seen.append(style)
        return command(settings, abilities, style, compare_only=compare_only, leave_out=leave_out, only=only)

    monkeypatch.setattr(runner, "command", noting)
    monkeypatch.setattr(engine_module, "INLINE_CHANGES", 0)
    monkeypatch.setattr(plain, "CHANGES_MIN", 1)
    return seen


@pytest.fixture
def planted(place: Place) -> Place:
    (place.source / "d/e").mkdir(parents=True)
    for name in NAMES:
        (place.source / os.fsdecode(name)).write_bytes(name)
    place.sync(place.engine(), tree())
    try:
        os.setxattr(place.source / "d/e/00", "user.x", b"")
    except OSError:
        pytest.skip("no extended attributes here")
    os.removexattr(place.source / "d/e/00", "user.x")
    return place


def attributes(root: Path) -> dict[str, list[str]]:
    return {
        str(path.relative_to(root)): os.listxattr(path, follow_symlinks=False)
        for path in [root, *root.rglob("*")]
        if not path.is_symlink()
    }


def rewrite(place: Place) -> None:
    for name in NAMES:
        (place.source / os.fsdecode(name)).write_bytes(name + b"2")


def assert_alike(place: Place) -> None:
    place.assert_equal()
    assert attributes(place.source) == attributes(place.target)


def test_plain_files_in_plain_directories(planted: Place, styles: list[Style]) -> None:
    rewrite(planted)
    # What a file has at the target alone goes with the file.
    os.setxattr(planted.target / "d/e/01", "user.x", b"y")
    assert_done(planted.sync(planted.engine(), *map(entry, NAMES)))
    assert [style.plain for style in styles] == [True]
    assert_alike(planted)


@pytest.mark.parametrize(
    ("side", "where"),
    [
        *[("source", where) for where in ("", "d", "d/e", "d/e/79", "d/e/40")],
        *[("target", where) for where in ("", "d", "d/e")],
    ],
)
def test_one_attribute_of_a_file_in_the_source_or_of_a_directory(
    planted: Place, styles: list[Style], side: str, where: str
) -> None:
    rewrite(planted)
    os.setxattr((planted.source if side == "source" else planted.target) / where, "user.x", b"y")
    assert_done(planted.sync(planted.engine(), *map(entry, [*NAMES, b"d", b"d/e"])))
    assert not any(style.plain for style in styles)
    assert_alike(planted)


def test_a_neighbour_that_comes_with_its_directory(planted: Place, styles: list[Style]) -> None:
    rewrite(planted)
    os.setxattr(planted.source / "d/e/79", "user.x", b"y")
    assert_done(planted.sync(planted.engine(), *map(entry, NAMES[:-1])))
    assert [(style.prune, style.plain) for style in styles] == [(True, False)]
    assert_alike(planted)


def test_a_directory_that_the_target_lacks(planted: Place, styles: list[Style]) -> None:
    rewrite(planted)
    (planted.source / "n").mkdir()
    for number in range(9):
        (planted.source / f"n/{number}").write_bytes(b"n")
    changes = [*map(entry, NAMES), entry(b"n"), *(entry(b"n/%d" % number) for number in range(9))]
    assert_done(planted.sync(planted.engine(), *changes))
    assert [style.plain for style in styles if style.ignore_times] == [True]
    assert_alike(planted)


def test_a_symbolic_link_is_left_to_rsync(planted: Place, styles: list[Style]) -> None:
    (planted.source / "d/e/link").symlink_to("nowhere")
    assert_done(planted.sync(planted.engine(), *map(entry, NAMES), entry(b"d/e/link")))
    assert not any(style.plain for style in styles)


def test_what_stands_where_a_directory_was_is_left_to_rsync(planted: Place, styles: list[Style]) -> None:
    (planted.source / "f").write_bytes(b"f")
    assert_done(planted.sync(planted.engine(), *map(entry, NAMES), entry(b"f/below")))
    assert not any(style.plain for style in styles)


def test_the_operators_arguments_are_not_second_guessed(planted: Place, styles: list[Style]) -> None:
    rewrite(planted)
    assert_done(planted.sync(planted.engine(extra_args=[b"--inplace"]), *map(entry, NAMES)))
    assert not any(style.plain for style in styles)


def test_directories_that_cost_more_to_look_at_than_is_saved(planted: Place, styles: list[Style]) -> None:
    assert_done(planted.sync(planted.engine(), *map(entry, NAMES[: plain.FILES_MIN - 1])))
    assert not any(style.plain for style in styles)


def test_what_was_something_else_a_moment_ago(planted: Place) -> None:
    fd = os.open(planted.source, os.O_RDONLY)
    place = b"/proc/self/fd/%d/" % fd

    def holds(directory: bytes, files: Sequence[bytes]) -> bool:
        one = plain.Plain(fd, fd)
        one.see_directories([directory], names=FILES)
        one.see_files(place, files)
        return one.holds

    try:
        assert holds(b"d/e", NAMES)
        assert not holds(b"d/e", [NAMES[0], b"gone"])
        assert not holds(NAMES[0], [])
    finally:
        os.close(fd)


def test_only_runs_of_files_that_are_brought_over_anew() -> None:
    def run(style: Style, *changes: Change) -> Run:
        return Run(style, {change.path: [change] for change in changes})

    anew = Style(ignore_times=True)
    assert run(anew, entry(b"a"), entry(b"b")).names_all
    assert not run(Style(), entry(b"a")).names_all
    assert not run(Style(ignore_times=True, recurse=True), entry(b"a")).names_all
    assert not run(anew, entry(b"a"), names(b"d")).names_all
    assert not run(anew, Change(RelPath(b"d"), Scope.TREE)).names_all
