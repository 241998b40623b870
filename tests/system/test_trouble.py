"""Targets that go away, hang or fill up, a source that vanishes, limits: nothing is lost, nothing else waits."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system import unhurried
from tests.system.compare import differences, snapshot
from tests.system.conftest import Start
from tests.system.faults import rests, status
from tests.system.rsyncd import serving

ENGINES = ["native", "rsync"]
Mount = Callable[..., Path]


def fill(root: Path, size_bytes: int = 100) -> None:
    for number in range(3):
        (root / f"d{number}").mkdir(parents=True, exist_ok=True)
        for each in range(5):
            (root / f"d{number}" / f"f{each}").write_bytes(os.urandom(size_bytes))


# -- targets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_target_that_goes_and_comes_back(start: Start, source: Path, shm: Path, engine: str) -> None:
    fill(source)
    here, there = shm / "here", shm / "there"
    # The index is written often: also that of a target that has gone away just now.
    soon = {"INSTEP_COMMIT_S": "0.1"}
    words = ("-v", f"--engine={engine}", source, here, there)
    daemon = start(*words, program=Path(unhurried.__file__), environment=soon)
    daemon.wait_following()
    there.rename(shm / "aside")
    (source / "d0" / "f0").write_text("while it was away")
    (source / "d1" / "f1").unlink()
    (source / "d2").rename(source / "renamed")
    daemon.wait_equal(source, here)
    daemon.wait_event("target-away", target=str(there))
    (source / "new").write_text("new")
    daemon.wait_equal(source, here)
    for _ in range(2):
        written = len(daemon.events("index-written", target=str(here)))
        (source / "more").write_text(str(written))
        daemon.wait_event("index-written", target=str(here), count=written + 1)
    assert not there.exists(), "it must not be made anew"
    (shm / "aside").rename(there)
    daemon.wait_event("target-back", target=str(there))
    daemon.wait_equal(source, there)
    assert daemon.events("target-away", target=str(here)) == []
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_target_that_comes_back_empty(start: Start, source: Path, shm: Path, engine: str) -> None:
    fill(source)
    target = shm / "target"
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    shutil.rmtree(target)
    (source / "new").write_text("new")
    daemon.wait_event("target-away")
    target.mkdir()
    daemon.wait_event("target-back", compared_anew=True)
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


def test_an_rsync_daemon_that_stops_and_starts(start: Start, source: Path, shm: Path, tmp_path: Path) -> None:
    fill(source)
    here, there = shm / "here", shm / "there"
    there.mkdir()
    with serving(tmp_path / "server", there) as server:
        daemon = start(source, here, f"rsync://127.0.0.1:{server.port}/module/")
        daemon.wait_following()
        daemon.wait_equal(source, there)
        server.pause()
        (source / "d0" / "f0").write_text("while it was down")
        (source / "d1" / "f1").unlink()
        daemon.wait_equal(source, here)
        daemon.wait_event("target-away")
        (source / "more").write_text("more")
        daemon.wait_equal(source, here)
        server.start()
        daemon.wait_event("target-back")
        daemon.wait_equal(source, there)
        assert daemon.stop() == 0


def test_an_rsync_that_hangs_holds_back_no_other_target(start: Start, source: Path, shm: Path, tmp_path: Path) -> None:
    fill(source)
    programs = tmp_path / "bin"
    programs.mkdir()
    stuck = tmp_path / "stuck"
    (programs / "rsync").write_text(
        f'#!/bin/sh\nwhile [ -e {stuck} ]; do sleep 0.1; done\nexec {shutil.which("rsync")} "$@"\n'
    )
    (programs / "rsync").chmod(0o755)
    here, there = shm / "here", shm / "there"
    there.mkdir()
    # Served by an rsync daemon, so that one engine is native and the other is not.
    with serving(tmp_path / "server", there) as server:
        address = f"rsync://127.0.0.1:{server.port}/module"
        daemon = start(source, here, address, environment={"PATH": f"{programs}:{os.environ['PATH']}"})
        daemon.wait_following()
        daemon.wait_equal(source, there)
        stuck.touch()
        for number in range(5):
            (source / "d0" / f"f{number}").write_text(f"while it hangs {number}")
            daemon.wait_equal(source, here)
        rests(daemon, str(here))
        assert status(daemon, address)["pending"]
        stuck.unlink()
        daemon.wait_equal(source, there)
        stuck.touch()
        (source / "d0" / "f0").write_text("last")
        daemon.wait_equal(source, here)
        assert daemon.stop() == 0  # Five seconds are the promise; the hung one would take for ever.


@pytest.mark.root
@pytest.mark.parametrize("engine", ENGINES)
def test_a_full_target_heals_when_there_is_room(
    start: Start, source: Path, shm: Path, mounted: Mount, engine: str
) -> None:
    mount = mounted(shm / "small", "size=2M")
    target = mount / "target"
    target.mkdir()
    (mount / "ballast").write_bytes(bytes(1 << 20))
    fill(source)
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    # In one piece: half of it, if that had already arrived, and the whole have no room beside each other.
    (shm / "big").write_bytes(os.urandom(1_400_000))
    (shm / "big").rename(source / "big")
    daemon.wait_event("target-full")
    (source / "d0" / "f0").write_text("while it was full")
    (mount / "ballast").unlink()
    daemon.wait_event("target-has-space-again")
    daemon.wait_equal(source, target)
    assert not [name for name in os.listdir(target) if name.startswith(".")], "nothing half written is left"
    assert daemon.stop() == 0


@pytest.mark.root
@pytest.mark.parametrize("engine", ENGINES)
def test_a_full_target_heals_by_a_deletion_in_the_source(
    start: Start, source: Path, shm: Path, mounted: Mount, engine: str
) -> None:
    target = mounted(shm / "small", "size=2M")
    fill(source)
    (source / "old").write_bytes(os.urandom(1_000_000))
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    # In one piece; see above.
    (shm / "big").write_bytes(os.urandom(1_400_000))
    (shm / "big").rename(source / "big")
    daemon.wait_event("target-full")
    (source / "old").unlink()
    daemon.wait_event("target-has-space-again")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


# -- the source --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_replaced_source_empties_no_target(start: Start, source: Path, target: Path, shm: Path, engine: str) -> None:
    fill(source)
    daemon = start(source, target, f"--engine={engine}")
    daemon.wait_following()
    before = snapshot(target)
    source.rename(shm / "aside")
    source.mkdir()
    (source / "not ours").write_text("x")
    daemon.tell(signal.SIGUSR2)
    daemon.wait_event("source-away")
    assert snapshot(target) == before
    shutil.rmtree(source)
    (shm / "aside" / "d0" / "f0").write_text("changed while away")
    (shm / "aside" / "d1" / "f1").unlink()
    (shm / "aside").rename(source)
    daemon.wait_event("source-back")
    daemon.wait_equal(source, target)
    (source / "after").write_text("followed again")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.root
@pytest.mark.parametrize("monitor", ["fanotify", "inotify"])
def test_an_unmounted_source_empties_no_target(
    start: Start, shm: Path, target: Path, mounted: Mount, monitor: str
) -> None:
    store = mounted(shm / "store")
    fill(store)
    source = shm / "source"
    source.mkdir()
    subprocess.run(["mount", "--bind", store, source], check=True)
    try:
        daemon = start(source, target, f"--monitor={monitor}")
        daemon.wait_following()
        before = snapshot(target)
        subprocess.run(["umount", "-l", source], check=True)
        (store / "d0" / "f0").write_text("changed while unmounted")
        (store / "d1" / "f1").unlink()
        daemon.tell(signal.SIGUSR2)
        daemon.wait_event("source-away")
        assert snapshot(target) == before
        subprocess.run(["mount", "--bind", store, source], check=True)
        daemon.wait_event("source-back")
        daemon.wait_equal(source, target)
        (source / "after").write_text("followed again")
        daemon.wait_equal(source, target)
        assert daemon.stop() == 0
    finally:
        subprocess.run(["umount", "-l", source], check=False, stderr=subprocess.DEVNULL)


def test_stop_while_the_source_is_away(start: Start, source: Path, target: Path, shm: Path) -> None:
    fill(source)
    daemon = start(source, target, program=Path(unhurried.__file__))
    daemon.wait_following()
    before = snapshot(target)
    source.rename(shm / "aside")
    daemon.tell(signal.SIGUSR2)
    daemon.wait_event("source-away")
    assert daemon.stop(deadline_s=unhurried.PATIENCE_S / 2) == 0  # There is nothing to wait for.
    assert snapshot(target) == before


# -- limits ------------------------------------------------------------------------------------------------------------


RESCAN_SOON = """
import sys
from instep.__main__ import main
from instep.monitors.inotify import InotifyMonitor
assert InotifyMonitor.__init__.__kwdefaults__["rescan_s"] == 60.0
InotifyMonitor.__init__.__kwdefaults__["rescan_s"] = 1.0
sys.exit(main())
"""


def test_the_watch_limit_heals(start: Start, source: Path, target: Path, tmp_path: Path) -> None:
    for number in range(150):
        (source / f"d{number}").mkdir()
    script = 'echo 100 > /proc/sys/user/max_inotify_watches; exec "$@"'
    probe = subprocess.run(["unshare", "-Ur", "true"], check=False)
    if probe.returncode:
        pytest.skip("no user namespaces here")
    program = tmp_path / "program.py"
    program.write_text(RESCAN_SOON)
    daemon = start(
        source, target, "--monitor=inotify", prefix=["unshare", "-Ur", "sh", "-c", script, "sh"], program=program
    )
    said = daemon.wait_event("watch-limit-reached")
    assert said["limit"] == 100
    assert "user.max_inotify_watches" in str(said["fix"])
    daemon.wait_following()
    for number in range(150):
        (source / f"d{number}" / "file").write_text("in a directory that may have no watch")
    daemon.wait_equal(source, target)
    daemon.tell(signal.SIGUSR1)
    assert daemon.wait_event("status")["trouble"]
    raised = "echo 1000 > /proc/sys/user/max_inotify_watches"
    subprocess.run(["nsenter", "-U", "-t", str(daemon.pid), "--preserve-credentials", "sh", "-c", raised], check=True)
    daemon.wait_event("watch-limit-healed")
    for number in range(150):
        (source / f"d{number}" / "file").write_text("watched again")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_bandwidth_is_limited(start: Start, source: Path, target: Path, engine: str) -> None:
    for number in range(3):
        (source / f"f{number}").write_bytes(os.urandom(600_000))
    began_s = time.monotonic()
    daemon = start(source, target, "--once", "--bwlimit=1M", f"--engine={engine}")
    assert daemon.ended() == 0
    assert time.monotonic() - began_s > 1.2
    assert differences(source, target) == []


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, list[str]]] = {
    "source missing": ("no-such-source", ["{shm}/nowhere", "{target}"]),
    "source a file": ("no", ["{shm}/file", "{target}"]),
    "target a file": ("target", ["{source}", "{shm}/file"]),
    "target's parent missing": ("target", ["{source}", "{shm}/no/where"]),
    "same directory": ("same-directory", ["{source}", "{source}"]),
    "target inside source": ("target-inside-source", ["{source}", "{source}/below"]),
    "source inside target": ("source-inside-target", ["{source}", "{shm}"]),
    "target twice": ("", ["{source}", "{target}", "{target}/../target"]),
    "no target": ("no-target", ["{source}"]),
    "unknown option": ("unknown-option", ["--quiet-tme=1", "{source}", "{target}"]),
    "bad value": ("bad-value", ["--quiet-time=soon", "{source}", "{target}"]),
    "bad pattern": ("", ["--exclude=: merge", "{source}", "{target}"]),
    "pattern file missing": ("unreadable-patterns", ["--exclude-from={shm}/nothing", "{source}", "{target}"]),
    "options that clash": ("options-clash", ["--no-delete", "--delete-excluded", "{source}", "{target}"]),
    "native engine, remote target": ("", ["--engine=native", "{source}", "host:/x"]),
}


@pytest.mark.parametrize("engine", [None, "rsync"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused(
    start: Start, source: Path, target: Path, shm: Path, case: str, engine: str | None
) -> None:
    code, words = REFUSED[case]
    if engine is not None and not case.startswith("target"):
        pytest.skip("the same for every engine")
    fill(source)
    target.mkdir()
    (target / "kept").write_text("x")
    (shm / "file").write_text("x")
    before = snapshot(shm)
    arguments = [word.format(source=source, target=target, shm=shm) for word in words]
    daemon = start(*([] if engine is None else [f"--engine={engine}"]), *arguments)
    assert daemon.ended() == 2
    said = daemon.text()
    assert "error[" in said or '"error"' in said
    assert code in said
    assert "fix" in said
    assert snapshot(shm) == before
