"""A file system that was mounted in the source and is missing: what it held stays at the targets."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.conftest import Start
from tests.system.daemon_process import wait_until
from tests.system.faults import ENGINES, MONITORS

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")]
CONFIRM = signal.SIGRTMIN + 1
CYCLES = 3


class Disk:
    """A file system that keeps its content while it is not mounted in the source."""

    def __init__(self, holder: Path, place: Path) -> None:
        self.holder = holder
        self.place = place
        place.mkdir(parents=True)

    def mount(self) -> None:
        subprocess.run(["mount", "--bind", self.holder, self.place], check=True)

    def unmount_when_possible(self, *, lazily: bool) -> None:
        """``lazily``: whether something is open in it or not."""
        if lazily:
            subprocess.run(["umount", "-l", self.place], check=True)
        else:
            wait_until(lambda: subprocess.run(["umount", "-q", self.place], check=False).returncode == 0, "unmounting")

    def unmount(self) -> None:
        subprocess.run(["umount", self.place], check=True)


@pytest.fixture
def disk(shm: Path, source: Path) -> Iterator[Disk]:
    """Mounted at ``data/disk`` in the source, with some files on it, and others beside it."""
    holder = shm / "holder"
    holder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", holder], check=True)
    made = Disk(holder, source / "data" / "disk")
    for number in range(5):
        (holder / f"d{number}").mkdir()
        (holder / f"d{number}" / "file").write_text(f"{number}")
        (source / f"beside{number}").write_text("beside")
    made.mount()
    yield made
    for place in (made.place, holder):
        subprocess.run(["umount", "-l", place], check=False, stderr=subprocess.DEVNULL)


def held(target: Path) -> int:
    """How many of the disk's files are at the target."""
    return len(list((target / "data" / "disk").glob("d*/file")))


@pytest.mark.parametrize(
    ("monitor", "engine"), [*itertools.product(MONITORS, ENGINES), ("inotify", "remote"), ("fanotify", "remote")]
)
def test_unmounted_and_mounted_again(
    start: Start,
    source: Path,
    target: Path,
    disk: Disk,
    request: pytest.FixtureRequest,
    engine: str,
    monitor: str,
) -> None:
    options = [f"--engine={engine}", f"--monitor={monitor}"]
    if engine == "remote":
        options.append(f"--ssh={request.getfixturevalue('sshd').ssh}")
    daemon = start(source, f"there:{target}" if engine == "remote" else target, *options)
    daemon.wait_following()
    daemon.wait_equal(source, target)
    disk.unmount()
    (source / "beside0").unlink()
    (source / "data" / "new").write_text("new")
    missing = daemon.wait_event("file-system-missing")
    assert missing["path"] == "data/disk"
    assert "RTMIN+1" in str(missing["fix"])
    wait_until(lambda: (target / "data" / "new").exists() and not (target / "beside0").exists(), "what is beside it")
    # Neither does a comparison delete it, nor anything else.
    (target / "extra").touch()
    daemon.tell(signal.SIGUSR2)
    assert "a part of the source is missing" in str(daemon.wait_event("deletions-held")["reason"])
    daemon.tell(signal.SIGUSR1)
    assert daemon.wait_event("status")["missing"] == ["data/disk"]
    # Nor a look at the directory above it.
    (source / "data").chmod(0o750)
    wait_until(lambda: (target / "data").stat().st_mode & 0o777 == 0o750, "the directory above it")
    assert held(target) == 5
    shutil.rmtree(disk.holder / "d1")
    (disk.holder / "d2" / "file").write_text("changed")
    disk.mount()
    daemon.wait_event("file-system-missing-no-more")
    daemon.wait_event("deletions-held-no-more")
    daemon.wait_equal(source, target)
    assert held(target) == 4
    shutil.rmtree(disk.holder / "d2")  # Deletions are made again.
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("monitor", "engine", "again"),
    [
        ("fanotify", "native", True),
        ("inotify", "native", False),
        ("poll", "native", True),
        ("fanotify", "rsync", False),
        ("inotify", "rsync", True),
        ("fanotify", "remote", True),
        ("inotify", "remote", False),
    ],
)
def test_the_directory_above_it_is_renamed(
    start: Start,
    source: Path,
    target: Path,
    disk: Disk,
    request: pytest.FixtureRequest,
    engine: str,
    monitor: str,
    again: bool,
) -> None:
    """What it held stays at the target, under the old name or the new one, until it is back."""
    options = [f"--engine={engine}", f"--monitor={monitor}"]
    if engine == "remote":
        options.append(f"--ssh={request.getfixturevalue('sshd').ssh}")
    where = f"there:{target}" if engine == "remote" else target
    daemon = start(source, where, *options)
    daemon.wait_following()
    disk.unmount()
    daemon.wait_event("file-system-missing")
    names = ["data", "moved", "data", "moved"] if again else ["data", "moved"]
    for number, (old, new) in enumerate(itertools.pairwise(names)):
        (source / old).rename(source / new)
        (source / new / f"after{number}").touch()
        wait_until((target / new / f"after{number}").exists, "the new name")
        assert len(list(target.glob("*/disk/d*/file"))) == 5
    daemon.tell(signal.SIGUSR2)
    daemon.wait_event("deletions-held" if (target / "data").exists() else "in-step-again")
    assert len(list(target.glob("*/disk/d*/file"))) == 5
    assert daemon.stop() == 0
    daemon = start(source, where, *options)
    assert daemon.wait_event("file-system-missing")["path"] == "moved/disk"
    daemon.wait_following()
    (source / "later").touch()
    wait_until((target / "later").exists, "what came later")
    assert len(list(target.glob("*/disk/d*/file"))) == 5
    disk.place = source / "moved" / "disk"
    disk.mount()
    daemon.wait_event("file-system-missing-no-more")
    daemon.wait_equal(source, target)
    assert not (target / "data").exists()
    assert daemon.stop() == 0


def test_the_directory_above_it_is_renamed_while_it_is_mounted(
    start: Start, source: Path, target: Path, disk: Disk
) -> None:
    daemon = start(source, target)
    daemon.wait_following()
    (source / "data").rename(source / "moved")
    disk.place = source / "moved" / "disk"
    daemon.wait_equal(source, target)
    daemon.tell(signal.SIGUSR2)
    daemon.wait_event("in-step-again")  # And at rest: what is at work there at this very moment may delete.
    disk.unmount()
    (source / "after").touch()
    wait_until((target / "after").exists, "what was made after it")
    assert daemon.wait_event("file-system-missing")["path"] == "moved/disk"
    assert len(list(target.glob("moved/disk/d*/file"))) == 5
    disk.mount()
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("how", ["auto", "full"])
def test_missing_at_the_next_start(start: Start, source: Path, target: Path, disk: Disk, engine: str, how: str) -> None:
    options = (f"--engine={engine}", f"--initial-sync={how}")
    assert start("--once", source, target, *options).ended() == 0
    disk.unmount()
    (source / "beside0").unlink()
    for _ in range(2):
        daemon = start("--once", source, target, *options)
        assert daemon.ended() == 1
        assert daemon.wait_event("file-system-missing")["path"] == "data/disk"
        assert held(target) == 5
    daemon = start(source, target, *options)
    daemon.wait_following()
    assert held(target) == 5
    disk.mount()
    (disk.holder / "d0" / "file").write_text("changed")
    daemon.wait_event("file-system-missing-no-more")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_repair_waits_for_it_too(source: Path, target: Path, disk: Disk, tmp_path: Path, engine: str) -> None:
    words = ["--log-format=json", f"--state-dir={tmp_path / 'state'}", f"--engine={engine}", str(source), str(target)]

    def instep(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "instep", *command, *words], capture_output=True, text=True, check=False, timeout=60
        )

    assert instep("mirror", "--once").returncode == 0
    disk.unmount()
    (source / "beside0").write_text("changed")
    said = instep("verify", "--repair")
    assert said.returncode == 1, said
    assert '"file-system-missing"' in said.stderr
    assert '"deletions-held"' in said.stderr
    assert "--force-delete" in said.stderr
    assert "RTMIN" not in said.stderr  # Nobody would be there to be told.
    assert held(target) == 5
    assert (target / "beside0").read_text() == "changed"
    disk.mount()
    assert instep("verify", "--repair").returncode == 0
    disk.unmount()
    assert instep("verify", "--repair", "--force-delete").returncode == 0
    assert held(target) == 0


@pytest.mark.parametrize("forced", [True, False])
@pytest.mark.parametrize("engine", ENGINES)
def test_it_is_not_to_come_back(
    start: Start, source: Path, target: Path, disk: Disk, engine: str, forced: bool
) -> None:
    assert start("--once", source, target, f"--engine={engine}").ended() == 0
    disk.unmount()
    if forced:
        assert start("--once", source, target, f"--engine={engine}", "--force-delete").ended() == 0
    else:
        daemon = start(source, target, f"--engine={engine}")
        daemon.wait_event("file-system-missing")
        daemon.wait_following()
        os.kill(daemon.pid, CONFIRM)
        daemon.wait_event("file-system-missing-no-more")
        daemon.wait_equal(source, target)
        (disk.place / "on the disk below").write_text("new")
        daemon.wait_equal(source, target)
        assert daemon.stop() == 0
    assert held(target) == 0
    daemon = start("--once", source, target, f"--engine={engine}")
    assert daemon.ended() == 0
    assert not daemon.events("file-system-missing")


@pytest.mark.parametrize("monitor", MONITORS)
def test_its_place_is_removed_as_well(start: Start, source: Path, target: Path, disk: Disk, monitor: str) -> None:
    daemon = start(source, target, f"--monitor={monitor}")
    daemon.wait_following()
    disk.unmount()
    disk.place.rmdir()
    daemon.wait_equal(source, target)
    (source / "gone").mkdir()
    (source / "gone" / "file").touch()
    daemon.wait_equal(source, target)
    shutil.rmtree(source / "gone")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0
    assert not daemon.events("file-system-missing")


def test_its_place_is_removed_later(start: Start, source: Path, target: Path, disk: Disk) -> None:
    daemon = start(source, target)
    daemon.wait_following()
    disk.unmount()
    daemon.wait_event("file-system-missing")
    assert held(target) == 5
    disk.place.rmdir()
    daemon.wait_event("file-system-missing-no-more")
    daemon.wait_equal(source, target)
    (target / "extra").touch()
    daemon.tell(signal.SIGUSR2)
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("what", ["reload", "source back"])
def test_a_mirror_built_anew_misses_it_still(start: Start, source: Path, target: Path, disk: Disk, what: str) -> None:
    """Without a state directory, too: the process knows."""
    daemon = start(source, target, "--state-dir=none")
    daemon.wait_following()
    daemon.wait_equal(source, target)
    disk.unmount()
    daemon.wait_event("file-system-missing")
    if what == "reload":
        daemon.tell(signal.SIGHUP)
    else:
        source.rename(source.with_name("away"))
        daemon.wait_event("source-away")
        source.with_name("away").rename(source)
    (source / "after").write_text("after")
    daemon.wait_event("in-step", count=2)
    wait_until((target / "after").exists, "what came after it")
    assert held(target) == 5
    disk.mount()
    daemon.wait_event("file-system-missing-no-more")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("option", ["--one-file-system", "--max-delete=none", "--exclude=/data/disk", "--no-delete"])
def test_nobody_misses_what_does_not_count(start: Start, source: Path, target: Path, disk: Disk, option: str) -> None:
    assert start("--once", source, target, option).ended() == 0
    disk.unmount()
    daemon = start("--once", source, target, option)
    assert daemon.ended() == 0
    assert not daemon.events("file-system-missing")


def test_what_was_pending_when_it_went_is_not_deleted(start: Start, source: Path, target: Path, disk: Disk) -> None:
    """Reported, and not yet brought over."""
    daemon = start(source, target, "--quiet-time=3s")
    daemon.wait_following()
    daemon.wait_equal(source, target)
    for number in range(5):
        (disk.place / f"d{number}" / "file").write_text("changed")
    disk.unmount()
    (source / "after").write_text("after")
    daemon.wait_event("file-system-missing")
    wait_until((target / "after").exists, "what was reported after it")
    assert held(target) == 5
    disk.mount()
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ["native", "remote", "rsync"])
def test_unmounted_amid_work_on_it(
    start: Start, source: Path, target: Path, disk: Disk, request: pytest.FixtureRequest, engine: str
) -> None:
    """A script that mounts, writes and unmounts: what is under way finds no names any more, and believes none of it."""
    names = [f"f{number}" for number in range(10_000)]
    for name in names:
        (disk.holder / name).write_text("old")
    options = [f"--engine={engine}", "--monitor=fanotify"]
    if engine == "remote":
        options.append(f"--ssh={request.getfixturevalue('sshd').ssh}")
    daemon = start(source, f"there:{target}" if engine == "remote" else target, *options)
    daemon.wait_equal(source, target)
    daemon.wait_following()

    def some_are(content: str) -> bool:
        return any((target / "data" / "disk" / names[at]).read_text() == content for at in (0, -1))

    for number in (1, 2):
        for name in names:
            (disk.place / name).write_text(f"round {number}")
        wait_until(functools.partial(some_are, f"round {number}"), "the first of them")
        disk.unmount_when_possible(lazily=engine != "rsync")
        daemon.wait_event("file-system-missing", count=number)
        assert [name for name in names if not (target / "data" / "disk" / name).exists()] == []
        disk.mount()
        daemon.wait_event("file-system-missing-no-more", count=number)
        daemon.wait_equal(source, target)
    assert daemon.stop() == 0


class Writer(threading.Thread):
    """Makes and rewrites files on a disk while that is mounted, as fast as it can; removes none."""

    def __init__(self, disk: Disk, seed: str, may_write: threading.Event) -> None:
        super().__init__(daemon=True)
        self._disk = disk
        self._may_write = may_write
        self._random = random.Random(seed)
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            self._may_write.wait()
            with contextlib.suppress(OSError):  # It has been unmounted in the middle of it.
                place = os.open(self._disk.place, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    if os.fstat(place).st_dev == self._disk.holder.stat().st_dev:
                        self._write(place)
                finally:
                    os.close(place)

    def stop(self) -> None:
        self._stopping.set()
        self.join()

    def _write(self, place: int) -> None:
        chance = self._random
        if chance.random() < 0.1:
            made = f"made{chance.randrange(100_000)}"
            os.mkdir(made, dir_fd=place)
            names = [f"{made}/{number}" for number in range(chance.randrange(20))]
        else:
            names = [f"{chance.choice(('', 'd0/', 'd1/'))}written{chance.randrange(500)}"]
        for name in names:
            file = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, dir_fd=place)
            os.write(file, b"x" * chance.randrange(1, 5000))
            os.close(file)


@pytest.mark.slow
@pytest.mark.parametrize("monitor", ["fanotify", "inotify"])
@pytest.mark.parametrize("engine", ["native", "remote", "rsync"])
def test_nothing_goes_while_it_comes_and_goes(
    start: Start, source: Path, target: Path, disk: Disk, request: pytest.FixtureRequest, engine: str, monitor: str
) -> None:
    options = [f"--engine={engine}", f"--monitor={monitor}"]
    if engine == "remote":
        options.append(f"--ssh={request.getfixturevalue('sshd').ssh}")
    daemon = start(source, f"there:{target}" if engine == "remote" else target, *options)
    daemon.wait_following()
    copy = target / "data" / "disk"
    chance = random.Random(f"{engine} {monitor}")
    may_write = threading.Event()
    may_write.set()
    writers = [Writer(disk, f"{number}", may_write) for number in range(2)]
    for writer in writers:
        writer.start()
    for number in range(CYCLES):
        enough = len(names_in(copy)) + chance.randrange(1, 300)
        wait_until(functools.partial(lambda least: len(names_in(copy)) >= least, enough), "what is written")
        if engine == "rsync":
            may_write.clear()  # What they have open would be in the way.
        before = names_in(copy)
        disk.unmount_when_possible(lazily=engine != "rsync")
        (source / f"after{number}").touch()
        wait_until((target / f"after{number}").exists, "what came after it")
        assert before - names_in(copy) == set()
        disk.mount()
        may_write.set()
    for writer in writers:
        writer.stop()
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


def names_in(top: Path) -> set[str]:
    """All that is below it, but for what is being written."""
    found: set[str] = set()
    for at, directories, files in os.walk(top):
        directories[:] = [name for name in directories if not name.startswith(".")]
        found.update(os.path.join(at, name) for name in (*directories, *files) if not name.startswith("."))
    return found
