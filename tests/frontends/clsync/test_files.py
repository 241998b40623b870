"""The status file and the pid file."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from instep.frontends.clsync.files import PidFile, State, StatusFile

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NOBODY = 65534


@contextmanager
def user(uid: int) -> Iterator[None]:
    """This process as another, as far as files are concerned."""
    os.setegid(uid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that everybody may reach; pytest's own may not be entered by others."""
    with tempfile.TemporaryDirectory(prefix="instep-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_every_state_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "status"
    status = StatusFile(bytes(path))
    for state in State:
        status.announce(state)
        assert path.read_text() == state.value
    assert [state.value for state in State] == [
        "starting", "initsync", "running", "synchandler error", "rehashing", "thread gc", "hold on", "preexit",
        "terminating", "exiting",
    ]  # fmt: skip
    assert os.listdir(tmp_path) == ["status"]
    status.remove()
    status.remove()
    status.announce(State.RUNNING)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_mode_is_by_the_umask_of_the_start(tmp_path: Path, mask: int) -> None:
    with umask(mask):
        status = StatusFile(bytes(tmp_path / "status"))
        pid = PidFile(bytes(tmp_path / "pid"))
    with umask(0):
        status.announce(State.RUNNING)
    for name in ("status", "pid"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask
    status.remove()
    pid.remove()


def test_a_mode_that_was_given_by_hand_stays(tmp_path: Path) -> None:
    path = tmp_path / "status"
    path.write_text("an older and longer text")
    path.chmod(0o640)
    status = StatusFile(bytes(path))
    status.announce(State.INITSYNC)
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("initsync", 0o640)
    status.remove()


def test_readers_never_see_half_of_it(tmp_path: Path) -> None:
    path = tmp_path / "status"
    status = StatusFile(bytes(path))
    status.announce(State.STARTING)
    names = {state.value for state in State}
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        for state in State:
            status.announce(state)
    done.set()
    reader.join()
    assert seen <= names
    status.remove()


def test_a_link_and_a_second_name_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/status").write_text("")
    (tmp_path / "link").symlink_to("far/status")
    os.link(tmp_path / "far/status", tmp_path / "second")
    for name in ("link", "second"):
        status = StatusFile(bytes(tmp_path / name))
        status.announce(State.SYNCHANDLER_ERROR)
        status.announce(State.RUNNING)
        assert (tmp_path / "far/status").read_text() == "running"
        status.remove()
        assert not os.path.lexists(tmp_path / name)
        assert (tmp_path / "far/status").exists()


def test_a_file_of_somebody_else_is_not_removed(tmp_path: Path) -> None:
    status, pid = StatusFile(bytes(tmp_path / "status")), PidFile(bytes(tmp_path / "pid"))
    for name in ("status", "pid"):
        (tmp_path / name).unlink()
        (tmp_path / name).write_text("another's")
    status.remove()
    pid.remove()
    assert {(tmp_path / name).read_text() for name in ("status", "pid")} == {"another's"}


def test_a_device_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    status = StatusFile(bytes(pipe))
    status.announce(State.RUNNING)
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        assert reader.read() == b"running"
    status.remove()
    assert pipe.exists()


@ROOT_ONLY
@pytest.mark.root
def test_a_directory_that_may_not_be_written_any_more(shared: Path, caplog: pytest.LogCaptureFixture) -> None:
    """B-17: neither the states nor the end depend on the rights that were given up."""
    path, pid_path = shared / "status", shared / "pid"
    with umask(0o022):
        status = StatusFile(bytes(path), owner=(NOBODY, NOBODY))
        pid = PidFile(bytes(pid_path), owner=(NOBODY, NOBODY))
    assert path.stat().st_uid == NOBODY
    with user(NOBODY):
        status.announce(State.INITSYNC)
        status.announce(State.RUNNING)
        assert path.read_text() == "running"
        with caplog.at_level(logging.WARNING, "instep"):
            status.remove()
            pid.remove()
    assert [record.getMessage() for record in caplog.records] == ["status-file-left"]
    assert path.exists()
    assert (pid_path.read_text(), pid_path.stat().st_uid) == ("", NOBODY)


@ROOT_ONLY
@pytest.mark.root
def test_what_was_there_is_not_given_away(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / "status").symlink_to("precious")
    StatusFile(bytes(tmp_path / "status"), owner=(NOBODY, NOBODY)).remove()
    assert (tmp_path / "precious").stat().st_uid == 0


@ROOT_ONLY
@pytest.mark.root
def test_the_owner_survives_each_state(tmp_path: Path) -> None:
    path = tmp_path / "status"
    status = StatusFile(bytes(path), owner=(NOBODY, NOBODY))
    status.announce(State.RUNNING)
    assert (path.stat().st_uid, path.stat().st_gid) == (NOBODY, NOBODY)
    status.remove()


def test_a_full_disk_stops_nothing_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "instep"):
        status = StatusFile(b"/dev/full")
        status.announce(State.STARTING)
        status.announce(State.RUNNING)
        status.remove()
    assert [record.getMessage() for record in caplog.records] == ["status-file-not-written"]
    assert os.path.exists("/dev/full")


@pytest.mark.parametrize("kind", [StatusFile, PidFile])
def test_what_cannot_be_made_is_an_error(tmp_path: Path, kind: type[StatusFile | PidFile]) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(FileNotFoundError):
        kind(bytes(tmp_path / "none/file"))
    with pytest.raises(IsADirectoryError):
        kind(bytes(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_the_pid(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    path.write_text("1234567890123")
    pid = PidFile(bytes(path))
    assert path.read_text() == str(os.getpid())
    # A child that ends as its parent would leaves it alone.
    program = "import os, sys\nfrom instep.frontends.clsync.files import PidFile\np = PidFile(os.fsencode(sys.argv[1]))\nif os.fork() == 0:\n    p.remove()\n    os._exit(0)\nos.wait()\nprint(open(sys.argv[1]).read() == str(os.getpid()))\np.remove()"
    child = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "other"], stdout=subprocess.PIPE, text=True, check=True
    )
    assert child.stdout == "True\n"
    pid.remove()
    pid.remove()
    assert os.listdir(tmp_path) == []
