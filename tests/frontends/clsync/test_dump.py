"""The dump directory."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.frontends.clsync.client import Client
from instep.frontends.clsync.dump import Line, Mark, Picture, Run, lines, write
from instep.frontends.clsync.entries import Entry, ObjectType
from instep.paths import RelPath
from tests.original_clsync import listening, needs_clsync
from tests.system.daemon_process import wait_until

THREAD = """thread:
\titeration == 1
\tnum == 0
\tpthread == 7f2e8872c6c0
\tstarttime == 1795280813
\texpiretime == 1795367213
\tchild_pid == 15463
\ttry_n == 1
Command: "/tmp/h.sh" "synclist" "no label" "/tmp/list"
+1\tq"x\\
+1\ta b\tc
+*\tnd
"""
"""As clsync 0.4.5 writes it."""


def entry(path: bytes, *, recursive: bool = False) -> Entry:
    return Entry(RelPath(path), 2, ObjectType.FILE, ObjectType.FILE, recursive=recursive)


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    old = os.umask(0o022)
    yield
    os.umask(old)


def test_all_of_it(tmp_path: Path) -> None:
    command = (b"/tmp/h.sh", b"synclist", b"no label", b"/tmp/list")
    run = Run(
        1, 0, 0x7F2E8872C6C0, 1795280813, 1795367213, 15463, 1, command,
        lines([entry(b'q"x\\'), entry(b"a b\tc"), entry(b"nd", recursive=True)]),
    )  # fmt: skip
    current = [Line(Mark.CONTENT, RelPath(b"d")), Line(Mark.EXCLUDED, RelPath(b"x\ny"))]
    queues = [lines([entry(b"later")]), [], lines([entry(b"", recursive=True)]), []]
    top = tmp_path / "dump"
    write(bytes(top), Picture("running", queues, current, [run]))
    found = {str(path.relative_to(top)): path.read_text() for path in top.rglob("*") if path.is_file()}
    assert found == {
        "instance": "status == running\n+/\td\n-1\tx\\ny\n",
        "queue/0": "+1\tlater\n",
        "queue/1": "",
        "queue/2": "+*\t\n",
        "queue/3": "",
        "threads/1-0-7f2e8872c6c0": THREAD,
    }
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [top, *top.rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o750}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o644}


@needs_clsync
def test_as_clsync_writes_it(tmp_path: Path) -> None:
    with listening() as (socket, _), Client(socket, timeout_s=60) as clsync:
        numbers = itertools.count()

        def dumped() -> bool:
            (socket.parent / "w/a b").write_text("")  # Once more: it may not watch yet.
            clsync.dump(socket.parent / f"dump{next(numbers)}")
            return True

        wait_until(lambda: dumped() and shown(newest(socket.parent))["queue/0"][1] != "", "a change in the dump")
        theirs = newest(socket.parent)
        status = (theirs / "instance").read_text().removeprefix("status == ").rstrip("\n")
        write(bytes(tmp_path / "dump"), Picture(status, [lines([entry(b"a b")]), [], [], []]))
        assert shown(tmp_path / "dump") == shown(theirs)


def newest(top: Path) -> Path:
    return max(top.glob("dump*"), key=lambda path: int(path.name.removeprefix("dump")))


def shown(top: Path) -> dict[str, tuple[int, str]]:
    """Names, modes and contents of a dump."""
    return {
        str(path.relative_to(top)): (path.stat().st_mode, "" if path.is_dir() else path.read_text())
        for path in [top, *top.rglob("*")]
    }


def test_it_must_not_exist(tmp_path: Path) -> None:
    (tmp_path / "dump").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("dump", "file", "link"):
        with pytest.raises(FileExistsError):
            write(bytes(tmp_path / name), Picture("running", [[]] * 4))
    assert os.listdir(tmp_path / "dump") == []
    with pytest.raises(FileNotFoundError):
        write(bytes(tmp_path / "none/dump"), Picture("running", [[]] * 4))


def test_nothing_is_left_of_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = os.mkdir

    def full(path: bytes, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if path == b"threads":
            raise OSError(28, "No space left on device")
        made(path, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(OSError, match="No space"):
        write(bytes(tmp_path / "dump"), Picture("running", [[]] * 4))
    assert not (tmp_path / "dump").exists()
