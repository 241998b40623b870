"""The source misbehaves: it goes and comes back, cannot be read, never rests, or its clock runs backwards."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system.compare import differences, snapshot
from tests.system.conftest import Start
from tests.system.daemon_process import wait_until
from tests.system.disks import Disks
from tests.system.faults import ENGINES, MONITORS, written


@pytest.mark.root
@pytest.mark.parametrize("monitor", ["fanotify", "inotify"])
@pytest.mark.parametrize("engine", ENGINES)
def test_unmounted_and_mounted_again(
    start: Start, shm: Path, target: Path, disks: Disks, monitor: str, engine: str
) -> None:
    source = disks.disk("ext4")
    for number in range(12):
        written(source / f"d{number % 3}" / f"f{number}", "old")
    device = subprocess.run(["findmnt", "-no", "SOURCE", source], check=True, capture_output=True, text=True).stdout
    # From the beginning, or its device would be given away once the daemon lets go of it.
    elsewhere = disks.mount(shm / "elsewhere", device.strip())
    daemon = start(source, target, f"--monitor={monitor}", f"--engine={engine}")
    daemon.wait_following()
    daemon.wait_equal(source, target)
    before = snapshot(target)
    subprocess.run(["umount", "-l", source], check=True)
    (source / "below the mount point").write_text("not ours")
    daemon.wait_event("source-away")
    written(elsewhere / "d0" / "f0", "new")
    (elsewhere / "d1" / "f1").unlink()
    assert snapshot(target) == before
    disks.mount(source, device.strip())
    daemon.wait_event("source-back")
    daemon.wait_equal(source, target)
    written(source / "d2" / "after", "followed again")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.root
@pytest.mark.parametrize("engine", ENGINES)
def test_bad_sectors(start: Start, target: Path, disks: Disks, engine: str) -> None:
    """EIO: one file cannot be read, then it can; all others are brought over meanwhile."""
    source = disks.disk("ext4")
    for number in range(5):
        written(source / "d" / f"f{number}", "old", 40_000)
    with disks.failing("ext4", list((source / "d").iterdir()), read_only=True) as broken:
        daemon = start(source, target, f"--engine={engine}")
        path = str(broken.relative_to(source))
        said = daemon.wait_event("path-failing")
        assert said["path"] == path
        assert "Input/output error" in str(said["reason"])
        daemon.wait_following()
        daemon.wait_equal(source, target, ignore=[path])
    daemon.wait_event("path-well-again")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


GROW = """
import sys, time
until = time.monotonic() + float(sys.argv[2])
with open(sys.argv[1], "ab", buffering=0) as log:
    while time.monotonic() < until:
        log.write(b"x" * 1000 + b"\\n")
        time.sleep(0.0002)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_that_grows_without_end(start: Start, source: Path, target: Path, engine: str) -> None:
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    writer = subprocess.Popen([sys.executable, "-c", GROW, source / "log", "60"])
    try:
        sizes = [0]

        def grown() -> bool:
            with contextlib.suppress(FileNotFoundError):
                size = (target / "log").stat().st_size
                if size > sizes[-1]:
                    sizes.append(size)
            return len(sizes) > 3

        wait_until(grown, "it arrives again and again while it grows")
        written(source / "other", "beside it")
        wait_until((target / "other").exists, "what stands beside it")
    finally:
        writer.kill()
        writer.wait()
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


REPLACE = """
import os, sys, time
until = time.monotonic() + float(sys.argv[2])
number = 0
while time.monotonic() < until:
    number += 1
    with open(sys.argv[1] + ".new", "wb") as file:
        file.write(b"%09d\\n" % number * 20000)
    os.rename(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(0.1)
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_replaced_ten_times_a_second(start: Start, source: Path, target: Path, engine: str) -> None:
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    writer = subprocess.Popen([sys.executable, "-c", REPLACE, source / "file", "60"])
    versions: set[bytes] = set()
    try:

        def seen() -> bool:
            with contextlib.suppress(FileNotFoundError):
                lines = (target / "file").read_bytes().split()
                assert len(set(lines)) == 1, "two versions in one file"
                assert len(lines) == 20000
                versions.add(lines[0])
            return len(versions) >= 10

        wait_until(seen, "ten versions at the target")
        written(source / "other", "beside it")
        wait_until((target / "other").exists, "what stands beside it")
    finally:
        writer.kill()
        writer.wait()
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


# -- clocks ------------------------------------------------------------------------------------------------------------

BACKWARDS = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static long back(void) {
    const char *path = getenv("INSTEP_CLOCK_BACK");
    return path && access(path, F_OK) == 0 ? 86400 : 0;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec -= back();
    return status;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


@pytest.mark.parametrize("monitor", ["inotify", "poll"])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_clock_of_the_process_is_set_back(
    start: Start, source: Path, target: Path, tmp_path: Path, monitor: str, engine: str
) -> None:
    """Nothing that instep or rsync decides depends on the wall clock. The kernel's stamps are not set back here."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "back.c").write_text(BACKWARDS)
    library = tmp_path / "back.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "back.c", "-ldl"], check=True)
    environment = {"LD_PRELOAD": str(library), "INSTEP_CLOCK_BACK": f"{tmp_path}/back"}
    written(source / "a", "old")
    daemon = start(source, target, *MONITORS[monitor], f"--engine={engine}", environment=environment)
    daemon.wait_following()
    written(source / "b", "before")
    daemon.wait_equal(source, target)
    (tmp_path / "back").touch()
    written(source / "a", "new")
    written(source / "c", "after")
    daemon.wait_equal(source, target)
    (tmp_path / "back").unlink()
    written(source / "a", "and forward")
    (source / "b").unlink()
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.root
@pytest.mark.parametrize("engine", ENGINES)
def test_stamps_from_the_future(start: Start, source: Path, disks: Disks, engine: str) -> None:
    """What a clock that was set back leaves behind: the target's inodes were changed long after anything in the source.

    The stamps are put into the inodes of the unmounted disk, for no call can set them.
    """
    if shutil.which("debugfs") is None:
        pytest.skip("there is no debugfs")
    disk = disks.disk("ext4")
    target = disk / "target"
    for name in ("rewritten live", "other size", "other time"):
        written(source / name, "old", 100)
    daemon = start(source, target, "--once", f"--engine={engine}")
    assert daemon.ended() == 0
    script = "".join(f'set_inode_field "/target/{path.name}" ctime 20370101\n' for path in target.iterdir())
    image = disks.unmount("ext4")
    subprocess.run(["debugfs", "-w", "-f", "-", image], input=script, text=True, check=True, capture_output=True)
    disks.mount(disk, "-o", "loop", str(image))
    assert all(path.stat().st_ctime > time.time() + 86400 for path in target.iterdir())
    written(source / "other size", "new", 5000)
    info = (source / "other time").stat()
    (source / "other time").write_bytes((source / "other time").read_bytes()[::-1])
    os.utime(source / "other time", ns=(info.st_mtime_ns, info.st_mtime_ns - 3600 * 10**9))
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    assert differences(source, target) == []
    live = source / "rewritten live"
    info = live.stat()
    live.write_bytes(live.read_bytes()[::-1])
    os.utime(live, ns=(info.st_mtime_ns, info.st_mtime_ns))
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0
