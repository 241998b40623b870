"""The choice of a monitor, on real file systems, with and without rights."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instep.errors import SourceError, ToolMissing
from instep.linux.mounts import Mount
from instep.monitors import choose as module
from instep.monitors.choose import BACK_ENDS, choose
from instep.spec import MonitorName

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root"),
]


def as_nobody(say: Callable[[], str]) -> str:
    """What a function says in a process without any rights; forked, since the interpreter may not be theirs to read."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(write_fd, say().encode())
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd) as said:
        text = said.read()
    os.waitpid(pid, 0)
    return text


@pytest.fixture
def root(tmp_path: object) -> bytes:
    return os.fsencode(str(tmp_path))


@pytest.fixture(params=["tmpfs", "ramfs"])
def disk(request: pytest.FixtureRequest, root: bytes) -> Iterator[tuple[str, bytes]]:
    subprocess.run(["mount", "-t", request.param, "instep-test", root], check=True)
    yield request.param, root
    subprocess.run(["umount", root], check=True)


def test_every_name_has_a_row() -> None:
    assert {row.name for row in BACK_ENDS} == set(MonitorName) - {MonitorName.AUTO}


class TestWithRoot:
    pytestmark = needs_root

    def test_auto(self, disk: tuple[str, bytes]) -> None:
        kind, root = disk
        monitor, reason = choose(MonitorName.AUTO, root)
        assert (monitor.name, reason) == {
            "tmpfs": ("fanotify", "fanotify: whole-filesystem mark on tmpfs"),
            "ramfs": ("inotify", "inotify: fanotify cannot watch ramfs"),
        }[kind]
        monitor.close()  # Never started: nothing to give back, no complaint.

    def test_by_name(self, root: bytes) -> None:
        for row in BACK_ENDS:
            monitor, reason = choose(row.name, root)
            assert (monitor.name, reason) == (row.name.value, f"{row.name.value}: as asked")

    def test_name_that_cannot_work(self) -> None:
        with pytest.raises(ToolMissing) as caught:
            choose(MonitorName.FANOTIFY, b"/proc")
        assert caught.value.code == "no-fanotify"
        assert "'/proc'" in caught.value.what
        assert "fanotify cannot watch proc" in caught.value.what
        assert "auto" in caught.value.fix

    @pytest.mark.skipif(not os.path.exists("/dev/fuse") or not shutil.which("bindfs"), reason="needs bindfs")
    def test_fuse_is_polled(self, root: bytes) -> None:
        os.mkdir(root + b"/there")
        os.mkdir(root + b"/here")
        subprocess.run(["bindfs", root + b"/there", root + b"/here"], check=True)
        try:
            monitor, reason = choose(MonitorName.AUTO, root + b"/here")
        finally:
            subprocess.run(["umount", root + b"/here"], check=True)
        assert monitor.name == "poll"
        assert reason == "poll: the kernel does not report what others change on fuse"

    def test_without_rights(self) -> None:
        def say(name: MonitorName) -> str:
            try:
                return choose(name, b"/")[1]
            except ToolMissing as error:
                return str(error)

        assert as_nobody(lambda: say(MonitorName.AUTO)).startswith("inotify: fanotify needs CAP_SYS_ADMIN")
        assert as_nobody(lambda: say(MonitorName.FANOTIFY)).startswith("error[no-fanotify]: ")


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs", "ceph"])
def test_remote_file_systems_are_polled(root: bytes, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Such mounts cannot be had on every machine: what the mount table says of them stands in for them."""
    monkeypatch.setattr(module, "mount_of", lambda fd: Mount(1, 1, b"/", kind))
    monitor, reason = choose(MonitorName.AUTO, root)
    assert monitor.name == "poll"
    assert reason == f"poll: the kernel does not report what others change on {kind}"
    monitor, reason = choose(MonitorName.INOTIFY, root)
    assert monitor.name == "inotify"
    assert reason == f"inotify: as asked; what others change on {kind} goes unnoticed"


def test_local_fuse_disks_are_not(root: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "mount_of", lambda fd: Mount(1, 1, b"/", "fuseblk"))
    assert choose(MonitorName.AUTO, root)[0].name != "poll"


def test_nothing_works(root: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(
        row._replace(why_unavailable=lambda root, name=row.name.value: f"{name} is broken")  # type: ignore[misc]
        for row in BACK_ENDS
    )
    monkeypatch.setattr(module, "BACK_ENDS", rows)
    with pytest.raises(ToolMissing) as caught:
        choose(MonitorName.AUTO, root)
    assert "fanotify is broken; inotify is broken; poll is broken" in caught.value.what


def test_source_that_is_not_there(root: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        choose(MonitorName.AUTO, root + b"/absent")
    assert caught.value.code == "source-unreadable"


@pytest.mark.root
def test_one_pass_on_one_file_system_is_not_told_of_its_own_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instep.monitors.choose.watch_limit", lambda: (1 << 40, "fs.inotify.max_user_watches"))
    monitor, reason = choose(MonitorName.AUTO, bytes(tmp_path), brief=True)
    assert monitor.name == "inotify"
    assert "one pass" in reason


def test_one_pass_over_more_directories_than_there_may_be_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instep.monitors.choose.watch_limit", lambda: (0, "fs.inotify.max_user_watches"))
    assert "one pass" not in choose(MonitorName.AUTO, bytes(tmp_path), brief=True)[1]
