"""Names and numbers at the edge: odd bytes, the longest paths, very many entries."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.system.conftest import Start
from tests.system.daemon_process import wait_until
from tests.system.faults import ENGINES

NAMES = (
    b"new\nline",
    b"\n",
    b"%s%n",
    b"back\\slash",
    b"\\#012",
    b"[bracket]",
    b"*?",
    b"-rf",
    b"--delete",
    b" ",
    b"trailing ",
    b"./.."[2:] + b".",
    b"\xff\xfe",
    b"\xc3\xa9 and \xe9",
    b"tab\there",
    b"'\"$(x)`y`",
    b"host:path",
    b"#comment",
    b"+ rule",
    b"~",
    b".#lock",
    b"n" * 255,
)


@pytest.mark.parametrize("monitor", ["fanotify", "inotify"])
@pytest.mark.parametrize("engine", ENGINES)
def test_odd_names_come_change_move_and_go(start: Start, source: Path, target: Path, monitor: str, engine: str) -> None:
    if monitor == "fanotify" and os.geteuid() != 0:
        pytest.skip("fanotify needs root")
    root = bytes(source)
    daemon = start(source, target, f"--monitor={monitor}", f"--engine={engine}")
    daemon.wait_following()
    for name in NAMES:
        os.mkdir(root + b"/" + name)
        for inner in (name, b"plain"):
            with open(root + b"/" + name + b"/" + inner, "wb") as file:
                file.write(b"first")
        os.symlink(name, root + b"/" + name + b"/link")
    daemon.wait_equal(source, target)
    for one, other in zip(NAMES, (*NAMES[1:], NAMES[0]), strict=True):
        with open(root + b"/" + one + b"/" + one, "wb") as file:
            file.write(b"second")
        os.rename(root + b"/" + one + b"/plain", root + b"/" + other + b"/" + one + b"x"[: 255 - len(one)])
    daemon.wait_equal(source, target)
    os.mkdir(root + b"/aside")
    for name in NAMES:
        os.rename(root + b"/" + name, root + b"/aside/" + name)
    daemon.wait_equal(source, target)
    for name in NAMES[::2]:
        shutil.rmtree(root + b"/aside/" + name)
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("when", ["live", "at start"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_path_of_four_thousand_bytes(start: Start, source: Path, target: Path, engine: str, when: str) -> None:
    deep = source
    daemon = start(source, target, f"--engine={engine}") if when == "live" else None
    if daemon is not None:
        daemon.wait_following()
    while len(bytes(deep.relative_to(source))) < 3700:
        deep /= "d" * 199
        deep.mkdir()
    file = deep / ("f" * (4000 - len(bytes(deep.relative_to(source))) - 1))
    assert len(bytes(file.relative_to(source))) == 4000
    file.write_text("at the bottom")
    if daemon is None:
        daemon = start(source, target, f"--engine={engine}")
        daemon.wait_following()
    daemon.wait_equal(source, target)
    file.write_text("changed at the bottom")
    daemon.wait_equal(source, target)
    next(source.iterdir()).rename(source / ("e" * 199))
    daemon.wait_equal(source, target)
    shutil.rmtree(source / ("e" * 199))
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


FULL = os.environ.get("INSTEP_SIZES") == "full"


def many(engine: str, count: int) -> int:
    """The number asked for in the soak (``INSTEP_SIZES=full``); else a quarter, and rsync gets by with a tenth."""
    return count if FULL else count // (4 if engine == "native" else 10)


def touch_many(directory: Path, count: int) -> None:
    directory.mkdir()
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number in range(count):
            os.close(os.open(f"f{number:06}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=fd))
    finally:
        os.close(fd)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_directory_of_two_hundred_thousand_entries(start: Start, source: Path, target: Path, engine: str) -> None:
    count = many(engine, 200_000)
    touch_many(source / "d", count)
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_event("following", deadline_s=240)
    assert len(os.listdir(target / "d")) == count
    (source / "d" / "f010000").write_text("one of many")
    (source / "d" / "f010001").unlink()
    (source / "d" / "f010002").rename(source / "d" / "renamed")

    def there() -> bool:
        changed = target / "d" / "f010000"
        return changed.read_text() == "one of many" and not (target / "d" / "f010001").exists()

    wait_until(there, "one change among many", 240)
    wait_until((target / "d" / "renamed").exists, "one name among many", 240)
    wait_until(lambda: set(os.listdir(source / "d")) == set(os.listdir(target / "d")), "all names", 240)
    assert daemon.stop() == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_hundred_thousand_files_removed_at_once(start: Start, source: Path, target: Path, engine: str) -> None:
    for number in range(100):
        touch_many(source / f"d{number}", many(engine, 100_000) // 100)
    subprocess.run(["cp", "-a", source, target], check=True)
    (source / "stays").write_text("stays")
    daemon = start(source, target, f"--engine={engine}", "--initial-sync=none")
    daemon.wait_following()
    subprocess.run(["rm", "-rf", *source.glob("d*")], check=True)
    wait_until(lambda: os.listdir(target) in ([], ["stays"]), "all removed", 240)
    (source / "stays").write_text("written afterwards")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0
