"""Exclude patterns: the same tree as real rsync makes with them, at start and live."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.compare import differences, snapshot
from tests.system.conftest import Start
from tests.system.daemon_process import DaemonProcess, wait_until
from tests.system.faults import ENGINES, MONITORS

RULES: dict[str, list[str]] = {
    "by suffix": ["--exclude=*.o"],
    "a directory": ["--exclude=cache/"],
    "anchored": ["--exclude=/a/keep", "--exclude=/b"],
    "only some": ["--include=*/", "--include=*.c", "--exclude=*"],
    "all below": ["--include=/a/", "--include=/a/**", "--exclude=*"],
    "contents of a directory": ["--exclude=/a/cache/**"],
    "order": ["--include=main.o", "--exclude=*.o", "--exclude=x?"],
}


def plant(root: Path, text: str) -> None:
    for directory in ("a", "a/cache", "a/keep", "a/cache/deep", "b", "b/cache", "c"):
        (root / directory).mkdir(parents=True, exist_ok=True)
        for name in ("main.c", "main.o", "side.o", "xy", "plain"):
            path = root / directory / name
            path.write_text(f"{text} {directory}/{name}")
            os.utime(path, ns=(10**18, 10**18 + len(text)))


def plant_target(root: Path) -> None:
    """What stood there before: names that the source has, and others; excluded ones and others."""
    plant(root, "older")
    for directory in ("a", "a/cache", "gone", "gone/cache", "gone/deep"):
        (root / directory).mkdir(parents=True, exist_ok=True)
        for name in ("extra.c", "extra.o", "extra", "xz"):
            (root / directory / name).write_text("extra")
    shutil.rmtree(root / "c")
    (root / "c").write_text("a file where the source has a directory")


def rsync(source: Path, target: Path, options: list[str]) -> None:
    subprocess.run(["rsync", "-aHAX", "--delete", *options, f"{source}/", f"{target}/"], check=True)


def wait_same(daemon: DaemonProcess, target: Path, reference: Path) -> None:
    unequal: list[str] = []

    def same() -> bool:
        # A directory kept for what is excluded in it has the time of its last deletion.
        unequal[:] = differences(reference, target, directory_times=False)
        return not unequal

    try:
        wait_until(same, "the same tree as rsync's")
    except AssertionError:
        raise AssertionError("rsync's != ours:\n" + "\n".join(unequal[:20]) + "\n" + daemon.text()[-2000:]) from None


@pytest.mark.parametrize("excluded", ["protected", "deleted"])
@pytest.mark.parametrize("engine", ["native", "rsync"])
@pytest.mark.parametrize("rules", RULES)
def test_the_same_tree_as_rsync(
    start: Start, source: Path, target: Path, shm: Path, rules: str, engine: str, excluded: str
) -> None:
    options = RULES[rules] + (["--delete-excluded"] if excluded == "deleted" else [])
    reference = shm / "reference"
    plant(source, "new")
    plant_target(target)
    subprocess.run(["cp", "-a", target, reference], check=True)
    rsync(source, reference, options)
    daemon = start(source, target, f"--engine={engine}", *options)
    daemon.wait_following()
    wait_same(daemon, target, reference)

    (source / "a" / "main.c").write_text("live")
    (source / "a" / "main.o").write_text("live")
    (source / "a" / "cache" / "live.c").write_text("live")
    (source / "b" / "main.c").unlink()
    shutil.rmtree(source / "b" / "cache")
    (source / "new" / "cache").mkdir(parents=True)
    (source / "new" / "cache" / "x.c").write_text("live")
    (source / "new" / "x.o").write_text("live")
    (source / "a" / "plain").rename(source / "a" / "plain.o")
    (source / "a" / "side.o").rename(source / "a" / "side.c")
    rsync(source, reference, options)
    wait_same(daemon, target, reference)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ["native", "rsync"])
@pytest.mark.parametrize("rules", RULES)
def test_directories_renamed_under_rules(
    start: Start, source: Path, target: Path, shm: Path, rules: str, engine: str
) -> None:
    """Nothing of the target's own is in the way here, so there is one right result."""
    plant(source, "new")
    daemon = start(source, target, f"--engine={engine}", *RULES[rules])
    daemon.wait_following()
    for old, new in (("a", "z"), ("b", "a"), ("c", "cache"), ("a/cache", "b"), ("z/cache", "z/keep2"), ("cache", "c")):
        (source / old).rename(source / new)
        if new != "a":
            reference = shm / f"reference-{new.replace('/', '-')}"
            rsync(source, reference, RULES[rules])
            wait_same(daemon, target, reference)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ["native", "rsync", "remote"])
@pytest.mark.parametrize("rules", [["--exclude=x/"], ["--include=x/", "--exclude=x"]], ids=["directories", "others"])
def test_a_name_that_becomes_a_thing_that_is_excluded(
    start: Start, source: Path, target: Path, request: pytest.FixtureRequest, engine: str, rules: list[str]
) -> None:
    """The report of what went finds what has come: of that nothing may come to the target, and what went has to go."""
    far = ["--ssh", request.getfixturevalue("sshd").ssh] if engine == "remote" else []
    place: str | Path = f"there:{target}" if far else target
    daemon = start(*far, source, place, f"--engine={engine}", *rules)
    daemon.wait_following()

    def make(path: Path, *, directory: bool) -> None:
        if directory:
            path.mkdir()
            (path / "below").write_text("below")
        else:
            path.write_text("content")

    was_directory = rules[0] == "--include=x/"
    paths = [Path("x"), *(Path(f"d{number}", "x") for number in range(30))]
    for path in paths:
        (source / path.parent).mkdir(exist_ok=True)
        make(source / path, directory=was_directory)
    wait_until(lambda: all((target / path).exists() for path in paths), "all there")
    for path in (source / path for path in paths):
        if was_directory:
            shutil.rmtree(path)
        else:
            path.unlink()
        make(path, directory=not was_directory)
    (source / "last").touch()
    wait_until((target / "last").exists, "what came last")
    wait_until(lambda: not any((target / path).exists() for path in paths), "none of them there")
    assert daemon.stop() == 0


@pytest.mark.parametrize("monitor", [pytest.param("fanotify", marks=pytest.mark.root), "inotify", "poll"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_directory_has_the_time_at_which_an_excluded_name_came_or_went(
    start: Start, source: Path, target: Path, engine: str, monitor: str
) -> None:
    plant(source, "new")
    daemon = start(source, target, f"--engine={engine}", *MONITORS[monitor], "--exclude=*.o", "--exclude=/b")
    daemon.wait_following()

    def same_times() -> bool:
        return all(
            (source / name).stat().st_mtime_ns == (target / name).stat().st_mtime_ns
            for name in (".", "a", "a/cache", "a/keep", "c")
        )

    steps: list[Callable[[], object]] = [
        (source / "a" / "new.o").touch,
        (source / "a" / "keep" / "main.o").unlink,
        lambda: (source / "a" / "new.o").rename(source / "c" / "newer.o"),
        lambda: (source / "a" / "cache" / "plain").rename(source / "c" / "plain.o"),
        lambda: (source / "b").rename(source / "a" / "dir.o"),
    ]
    for step in steps:
        step()
        wait_until(same_times, "the times of directories")
    assert daemon.stop() == 0
    verified = subprocess.run(
        [sys.executable, "-m", "instep", "verify", "--exclude=*.o", "--exclude=/b", source, target],
        check=False,
        capture_output=True,
        text=True,
    )
    assert verified.returncode == 0, verified.stdout


@pytest.mark.parametrize("engine", ["native", "rsync", "remote"])
def test_the_excluded_name_of_a_linked_file_stays_here(
    start: Start, source: Path, target: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    far = ["--ssh", request.getfixturevalue("sshd").ssh] if engine == "remote" else []
    place: str | Path = f"there:{target}" if far else target
    (source / "kept").mkdir()
    (source / "private").mkdir()
    (source / "kept" / "a").write_text("first")
    os.link(source / "kept" / "a", source / "private" / "a")
    daemon = start(*far, source, place, f"--engine={engine}", "--exclude=private")
    daemon.wait_following()
    (source / "kept" / "a").write_text("second")
    os.link(source / "kept" / "a", source / "private" / "b")
    os.link(source / "kept" / "a", source / "kept" / "c")
    wait_until(
        lambda: (target / "kept" / "c").exists() and (target / "kept" / "a").read_text() == "second", "them there"
    )
    (source / "last").touch()
    wait_until((target / "last").exists, "what came last")
    assert not (target / "private").exists()
    assert daemon.stop() == 0


def test_rules_never_touch_the_source(start: Start, source: Path, target: Path) -> None:
    plant(source, "new")
    plant_target(target)
    before = snapshot(source)
    daemon = start(source, target, "--once", "--exclude=*.o", "--delete-excluded")
    assert daemon.ended() == 0
    assert snapshot(source) == before


@pytest.mark.parametrize("monitor", [pytest.param("fanotify", marks=pytest.mark.root), "inotify", "poll"])
@pytest.mark.parametrize("engine", [*ENGINES, "remote"])
def test_what_is_written_through_an_excluded_name(
    start: Start, source: Path, target: Path, request: pytest.FixtureRequest, engine: str, monitor: str
) -> None:
    """It is reported under that name alone, and changes the file's other names."""
    far = ["--ssh", request.getfixturevalue("sshd").ssh] if engine == "remote" else []
    (source / "d").mkdir()
    (source / "a").write_text("old")
    for other in ("d/b", "d/x.o", "y.o"):
        os.link(source / "a", source / other)
    place: str | Path = f"there:{target}" if far else target
    daemon = start(*far, source, place, f"--engine={engine}", *MONITORS[monitor], "--exclude=*.o")
    daemon.wait_following()

    def same(path: str) -> bool:
        there = target / path
        return there.exists() and there.read_text() == (source / path).read_text()

    def written(through: str, *others: str) -> None:
        with (source / through).open("a") as file:
            file.write(f" by {through}")
        if through == "y.o":
            (source / through).unlink()
        wait_until(lambda: all(map(same, others)), f"what was written through {through}")
        # Where two changes follow one another closely, each name may get its content first.
        wait_until(lambda: len({(target / other).stat().st_ino for other in others}) == 1, "they are one file")

    written("d/x.o", "a", "d/b")
    (source / "d").rename(source / "e")
    wait_until((target / "e").exists, "the directory")
    written("e/x.o", "a", "e/b")
    with (source / "y.o").open("a") as file:
        file.write(" more")
    wait_until(lambda: same("a") and same("e/b"), "what was written through y.o")
    written("y.o", "a", "e/b")
    assert daemon.stop() == 0
