"""The target fails, or is not what it was: it is said, nothing is lost, nothing goes anywhere else, and it heals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.system import unhurried
from tests.system.compare import differences, snapshot
from tests.system.conftest import Start
from tests.system.daemon_process import DaemonProcess, wait_until
from tests.system.disks import Disks
from tests.system.faults import ENGINES, reported_anew, written

Mount = Callable[..., Path]
DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def fill(root: Path) -> None:
    for number in range(12):
        written(root / f"d{number % 3}" / f"f{number}", "old", 100)


WORSE = {"target-away", "path-failing"}
BETTER = {"target-back", "path-well-again"}


def said(daemon: DaemonProcess, names: set[str]) -> None:
    """Some word of the trouble, or of its end."""
    wait_until(lambda: any(event["event"] in names for event in daemon.events()), f"one of {names}")


@pytest.mark.root
@pytest.mark.parametrize("engine", ENGINES)
def test_read_only(start: Start, source: Path, shm: Path, mounted: Mount, engine: str) -> None:
    mount = mounted(shm / "disk")
    target = mount / "target"
    fill(source)
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    written(source / "d0" / "f0", "new", 200)
    (source / "d1" / "f1").unlink()
    said(daemon, WORSE)
    subprocess.run(["mount", "-o", "remount,rw", mount], check=True)
    reported_anew(source / "d0" / "f0", source / "d1" / "f1")
    said(daemon, BETTER)
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.root
@pytest.mark.parametrize("engine", ENGINES)
def test_an_immutable_directory(start: Start, source: Path, disks: Disks, engine: str) -> None:
    """EPERM even for root; what stands beside it goes on."""
    target = disks.disk("ext4") / "target"
    fill(source)
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    subprocess.run(["chattr", "+i", target / "d0"], check=True)
    try:
        written(source / "d0" / "f0", "new", 200)
        (source / "d0" / "f3").unlink()
        written(source / "d0" / "more", "new")
        daemon.wait_event("path-failing")
        written(source / "d1" / "more", "new")
        wait_until((target / "d1" / "more").exists, "what stands beside it")
    finally:
        subprocess.run(["chattr", "-i", target / "d0"], check=True)
    reported_anew(*(source / "d0" / name for name in ("f0", "f3", "more")))
    daemon.wait_event("path-well-again")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.root
@pytest.mark.parametrize("engine", ENGINES)
def test_no_inodes_left(start: Start, source: Path, shm: Path, mounted: Mount, engine: str) -> None:
    target = mounted(shm / "disk", "nr_inodes=40") / "target"
    fill(source)
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    for number in range(60):
        written(source / "d0" / f"more{number}", "new")
    daemon.wait_event("target-full")
    for number in range(58):
        (source / "d0" / f"more{number}").unlink()
    daemon.wait_event("target-has-space-again")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.root
@pytest.mark.parametrize("engine", ENGINES)
def test_bad_sectors(start: Start, source: Path, disks: Disks, engine: str) -> None:
    """EIO: the end of the disk under the target cannot be read any more, then it can."""
    target = disks.disk("ext4") / "target"
    fill(source)
    for number in range(200):
        written(source / "d0" / f"f{number}", "old", 40_000)
    # Without an index, for whose sake the disk would be written to behind the cut.
    daemon = start(source, target, f"--engine={engine}", "--state-dir=none")
    daemon.wait_following()
    daemon.wait_equal(source, target)
    with disks.failing("ext4", [target / "d0" / "f7"], read_only=False):
        # The same size and time: to know whether it is equal the target has to be read, and cannot.
        daemon.tell(signal.SIGSTOP)  # So that it meets all at once.
        info = (source / "d0" / "f7").stat()
        (source / "d0" / "f7").write_bytes((source / "d0" / "f7").read_bytes()[::-1])
        os.utime(source / "d0" / "f7", ns=(info.st_atime_ns, info.st_mtime_ns))
        daemon.tell(signal.SIGCONT)
        written(source / "d1" / "more", "new")
        wait_until((target / "d1" / "more").exists, "what stands elsewhere")
        if engine == "native":  # rsync writes a whole new file, and never reads the old one.
            assert "Input/output error" in str(daemon.wait_event("path-failing")["reason"])
    if engine == "native":
        daemon.wait_event("path-well-again")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.root
@pytest.mark.parametrize("engine", ["native", "remote", "rsync"])
def test_a_disk_that_has_promised_more_than_it_has(
    start: Start, source: Path, disks: Disks, request: pytest.FixtureRequest, engine: str
) -> None:
    """Writes are lost without a word, but to who asks; until it is mounted again all looks as if it were there."""
    disk = disks.promising()
    target = disk / "target"
    fill(source)
    written(source / "d1" / "big", "old", 3_000_000)
    where = [str(source), str(target)]
    if engine == "remote":
        where = ["--ssh", request.getfixturevalue("sshd").ssh, str(source), f"there:{target}"]
    more: dict[str, Any] = {"program": Path(unhurried.__file__), "environment": {"INSTEP_COMMIT_S": "0.2"}}
    daemon = start(*where, f"--engine={engine}", **more)
    daemon.wait_following()
    daemon.wait_equal(source, target)
    with disks.exhausted():
        written(source / "d0" / "f0", "new", 100_000)
        written(source / "d1" / "big", "new", 4_000_000)
        daemon.wait_event("target-disk-lost-writes")
    daemon.wait_event("target-disk-well-again")
    subprocess.run(["sync", "--file-system", disk], check=True)
    DROP_CACHES.write_text("3")
    daemon.wait_equal(source, target)
    # The same once more, with nobody left to mend it but the next daemon.
    with disks.exhausted():
        written(source / "d0" / "f3", "new", 100_000)
        daemon.wait_event("target-disk-lost-writes", count=2)
        assert daemon.stop() == 0
        once = start(*where, f"--engine={engine}", "--once", **more)
        assert once.ended() == 1, daemon.text() + once.text()
        assert once.events("target-disk-lost-writes")
    subprocess.run(["sync", "--file-system", disk], check=False)  # What is lost by now has been told.
    once = start(*where, f"--engine={engine}", "--once", **more)
    assert once.ended() == 0, once.text()
    DROP_CACHES.write_text("3")
    assert not differences(source, target)


SHORT_NAMES = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static int too_long(const char *path) {
    const char *until = getenv("INSTEP_SHORT_NAMES"), *slash = strrchr(path, '/');
    if (strlen(slash ? slash + 1 : path) <= 143 || !until || access(until, F_OK)) return 0;
    errno = ENAMETOOLONG;
    return 1;
}
int rename(const char *one, const char *other) {
    int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
    return too_long(other) ? -1 : real(one, other);
}
int renameat(int from, const char *one, int to, const char *other) {
    int (*real)(int, const char *, int, const char *) = dlsym(RTLD_NEXT, "renameat");
    return too_long(other) ? -1 : real(from, one, to, other);
}
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_name_too_long_for_the_target(start: Start, source: Path, target: Path, tmp_path: Path, engine: str) -> None:
    """As eCryptfs has it: names of 143 bytes at most. It fails for ever, is listed, and holds up nothing."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "short.c").write_text(SHORT_NAMES)
    library = tmp_path / "short.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "short.c", "-ldl"], check=True)
    until = tmp_path / "until"
    until.touch()
    fill(source)
    environment = {"LD_PRELOAD": str(library), "INSTEP_SHORT_NAMES": str(until)}
    daemon = start(source, target, f"--engine={engine}", environment=environment)
    daemon.wait_following()
    name = "n" * 200
    written(source / "d0" / name, "new")
    said = daemon.wait_event("path-failing")
    assert said["path"] == f"d0/{name}"
    assert "name too long" in str(said["reason"])
    for number in range(3):
        written(source / "d0" / f"beside{number}", "new")
        wait_until((target / "d0" / f"beside{number}").exists, "what stands beside it")
    listed = daemon.failing()
    assert listed["path"] == said["path"]
    assert "name too long" in str(listed["reason"])
    assert float(str(listed["next_try_s"])) >= 0
    until.unlink()
    reported_anew(source / "d0" / name)
    daemon.wait_event("path-well-again")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("what", ["link to another", "link to itself", "file", "another"])
def test_replaced(start: Start, source: Path, target: Path, shm: Path, engine: str, what: str) -> None:
    """The target's name leads elsewhere: nothing is done there until it is what it was, or compared anew."""
    fill(source)
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    outside, aside = shm / "outside", shm / "aside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    before = snapshot(outside)
    target.rename(aside)
    if what == "link to another":
        target.symlink_to(outside)
    elif what == "link to itself":
        target.symlink_to(target)
    elif what == "file":
        target.write_text("precious")
    written(source / "d0" / "f0", "new")
    (source / "d1" / "f1").unlink()
    if what != "link to another":  # An operator who makes the name a link to a directory means that directory.
        daemon.wait_event("target-away")
        assert snapshot(outside) == before
        if what != "another":
            target.unlink()
        aside.rename(target)
        daemon.wait_event("target-back", compared_anew=False)
        daemon.wait_equal(source, target)
    else:
        daemon.wait_event("target-away")
        target.unlink()
        aside.rename(target)
        daemon.wait_event("target-back")
    # It may have been at work behind the link by then: the next change shows it that the name means another directory.
    written(source / "probe", "after")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


def removed(directory: Path) -> bool:
    """Remove it as far as it lets itself be; whether it is gone."""
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_removed_while_it_is_written_to(start: Start, source: Path, target: Path, engine: str) -> None:
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    for number in range(300):
        written(source / f"d{number % 5}" / f"f{number}", "new", 2000)
        if number == 150:
            shutil.rmtree(target, ignore_errors=True)
            shutil.rmtree(target, ignore_errors=True)
    written(source / "last", "new")
    if target.exists():  # Something was put there between its files and itself, and may be once more.
        wait_until(lambda: removed(target), "the target gone")
        written(source / "very last", "new")
    daemon.wait_event("target-away")
    target.mkdir()
    daemon.wait_event("target-back", compared_anew=True)
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_mount_point_in_the_way_fails_alone(
    start: Start, source: Path, target: Path, mounted: Mount, engine: str
) -> None:
    fill(source)
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    mounted(target / "d0")
    shutil.rmtree(source / "d0")
    daemon.wait_event("path-failing")
    written(source / "d1" / "more", "new")
    daemon.wait_equal(source, target, ignore=["d0"])
    assert str(daemon.failing()["path"]).partition("/")[0] == "d0"
    subprocess.run(["umount", "-l", target / "d0"], check=True)  # It may be trying just then.
    reported_anew(source / "d0")
    daemon.wait_event("path-well-again")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0
