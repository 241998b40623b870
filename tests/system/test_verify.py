"""``instep verify`` as a whole, and the comparisons of a running mirror."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.system.compare import differences
from tests.system.conftest import Start
from tests.system.daemon_process import wait_until
from tests.system.faults import gone
from tests.system.sshd import Sshd

A_TIME_NS = 1_500_000_000_123_456_789
DEADLINE_S = 60.0

Row = dict[str, object]


def begun(source: Path, target: Path | str, *words: str) -> subprocess.Popen[str]:
    """One that is comparing."""
    return subprocess.Popen(
        [sys.executable, "-m", "instep", "verify", "--state-dir=none", "--format=json", *words, source, target],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Row], Row]:
    """Its exit status, the differences by path, and the summary."""
    try:
        out, err = process.communicate(timeout=2 * DEADLINE_S)
    finally:
        process.kill()
    assert "Traceback" not in err, err
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows, err
    assert rows[-1]["event"] == "verified"
    sys.stdout.write(out)
    return process.returncode, {row["path"]: row for row in rows[:-1] if row["event"] == "differs"}, rows[-1]


def verify(source: Path, target: Path | str, *words: str) -> tuple[int, dict[str, Row], Row]:
    """The exit status, the differences by path, and the summary."""
    return ended(begun(source, target, *words))


def child(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> int:
    """The one process that compares for another, once it is there."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: bool(children.read_text().split()), "the comparing process")
    (pid,) = map(int, children.read_text().split())
    return pid


def what(found: dict[str, Row]) -> dict[str, object]:
    return {path: row["what"] for path, row in found.items()}


@pytest.fixture
def trees(source: Path, target: Path) -> tuple[Path, Path]:
    """A small tree of everything, twice."""
    (source / "dir" / "sub").mkdir(parents=True)
    for name in ("file", "line\nbreak", "dir/a", "dir/sub/deep", "rotten", "mode", "xattr", "size", "gone"):
        (source / name).write_text("content")
    os.link(source / "dir" / "a", source / "dir" / "b")
    (source / "link").symlink_to("file")
    os.mkfifo(source / "fifo")
    for here, names, files in os.walk(source, topdown=False):
        for name in [*names, *files]:
            os.utime(os.path.join(here, name), ns=(A_TIME_NS, A_TIME_NS), follow_symlinks=False)
    subprocess.run(["cp", "-a", source, target], check=True)
    return source, target


def harm(target: Path) -> dict[str, object]:
    """Differ in every way that needs no root; what is to be found without --checksum."""
    (target / "mode").chmod(0o600)
    os.setxattr(target / "xattr", b"user.more", b"1")
    with (target / "size").open("a") as file:
        file.write("!")
    (target / "gone").unlink()
    (target / "extra\n").mkdir()
    (target / "extra\n" / "below").touch()
    (target / "fifo").unlink()
    (target / "fifo").touch()
    (target / "link").unlink()
    (target / "link").symlink_to("elsewhere")
    (target / "dir" / "b").unlink()
    (target / "dir" / "b").write_text("content")
    (target / "rotten").write_text("CONTENT")
    for name in ("link", "dir/b", "dir", "rotten", "size"):
        os.utime(target / name, ns=(A_TIME_NS, A_TIME_NS), follow_symlinks=False)
    info = (target.parent / "source").stat()
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
    return {
        "mode": ["mode"],
        "xattr": ["xattrs"],
        "size": ["size"],
        "gone": ["missing"],
        "extra\n": ["extra"],
        "fifo": ["type"],
        "link": ["link-text"],
    }


def test_equal_trees(trees: tuple[Path, Path]) -> None:
    status, found, summary = verify(*trees, "--checksum")
    assert (status, found) == (0, {})
    assert (summary["differences"], summary["changing"]) == (0, 0)
    assert summary["entries"] == 14


def test_every_kind_of_difference_is_found_and_mended(trees: tuple[Path, Path]) -> None:
    source, target = trees
    expected = harm(target)
    status, found, summary = verify(source, target)
    # Which of two names is told of depends on the order of the directory.
    twin = found.pop("dir/a", None) or found.pop("dir/b")
    assert (status, twin["what"]) == (1, ["hard-link"])
    assert what(found) == expected
    assert summary["differences"] == len(expected) + 1
    status, found, summary = verify(source, target, "--checksum", "--repair")
    assert status == 0
    assert found["rotten"]["what"] == ["content"]
    assert summary["repaired"] == summary["differences"] == len(expected) + 2
    assert differences(source, target) == []
    status, found, _ = verify(source, target, "--checksum")
    assert (status, found) == (0, {})


def test_text_for_people(trees: tuple[Path, Path]) -> None:
    source, target = trees
    (target / "line\nbreak").unlink()
    os.utime(target, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    words: list[str | Path] = [sys.executable, "-m", "instep", "verify", source, target]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    first, second = done.stdout.splitlines()
    assert first == "differs line\\nbreak: missing: a file"
    assert second.startswith(f"verified {target}: 14 entries, 1 difference, ")
    assert (done.returncode, done.stderr) == (1, "")


def test_rules_are_the_mirrors(trees: tuple[Path, Path]) -> None:
    source, target = trees
    shutil.rmtree(target / "dir")
    (target / "x.o").touch()
    os.utime(target, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
    status, found, _ = verify(source, target, "--exclude=/dir/", "--exclude=*.o")
    assert (status, found) == (0, {})


def test_a_target_that_is_not_there_is_not_equal(source: Path, target: Path) -> None:
    words: list[str | Path] = [sys.executable, "-m", "instep", "verify", source, target]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "target-away" in done.stderr
    assert not target.exists()


def test_too_many_deletions_wait_for_a_word(trees: tuple[Path, Path]) -> None:
    source, target = trees
    shutil.rmtree(source)
    source.mkdir()
    status, _, summary = verify(source, target, "--repair", "--max-delete=5")
    assert status == 1
    assert len(os.listdir(target)) == 10
    assert summary["repaired"] == 1, "the time of the root"
    status, _, _ = verify(source, target, "--repair", "--max-delete=5", "--force-delete")
    assert (status, os.listdir(target)) == (0, [])


def test_it_is_gentle_and_can_be_interrupted(trees: tuple[Path, Path]) -> None:
    source, target = trees
    (source / "large").write_bytes(bytes(4 << 20))
    shutil.copy2(source / "large", target / "large")
    words: list[str | Path] = [sys.executable, "-m", "instep", "verify", "--checksum", "--bwlimit=1K", source, target]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        # It reads for an hour; its child shows that it has begun.
        comparing = child(process)
        wait_until(lambda: os.getpriority(os.PRIO_PROCESS, comparing) == 19, "its lowest priority")
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == os.getpriority(os.PRIO_PROCESS, 0)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 128 + signal.SIGTERM
    assert (out, err) == (b"", b"")
    wait_until(lambda: gone(comparing), "the end of the comparing process")


def test_a_tree_that_is_being_mirrored_gives_no_false_alarm(start: Start, source: Path, target: Path) -> None:
    """Nothing that changed before the comparison is missing, however slow the mirror is: writing begins after it."""
    for number in range(50):
        (source / f"d{number}").mkdir()
        (source / f"d{number}" / "still").write_bytes(bytes(20_000))
    daemon = start(source, target)
    daemon.wait_following()
    daemon.wait_equal(source, target)
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            here = source / f"d{number % 50}"
            (here / "often").write_text(str(number))
            (here / f"new{number}").touch()
            (here / "twin").unlink(missing_ok=True)
            os.link(here / "often", here / "twin")
            if number >= 100:
                (source / f"d{(number - 100) % 50}" / f"new{number - 100}").unlink()
            number += 1
            time.sleep(0.001)

    verifying = begun(source, target, "--checksum", "--bwlimit=1M")  # For a second or two.
    writer = threading.Thread(target=write)
    try:
        child(verifying)
        writer.start()
        status, found, summary = ended(verifying)
        assert (status, found) == (0, {}), summary
    finally:
        stop.set()
        if writer.is_alive():
            writer.join()
        verifying.kill()
        verifying.wait()
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


def test_a_repair_is_refused_beside_a_running_mirror(start: Start, source: Path, target: Path) -> None:
    daemon = start(source, target)
    daemon.wait_following()
    words: list[str | Path] = [sys.executable, "-m", "instep", "verify", "--state-dir=none", "--repair", source, target]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 2
    assert str(daemon.pid) in done.stderr
    assert verify(source, target)[0] == 0


def test_a_running_mirror_heals_an_edit_at_its_target(start: Start, source: Path, target: Path) -> None:
    (source / "dir").mkdir()
    for name in ("file", "dir/rotten", "a"):
        (source / name).write_text("content")
    os.link(source / "a", source / "dir" / "b")
    daemon = start(source, target, "--verify=every=200ms,checksum")
    daemon.wait_following()
    daemon.wait_event("verified", differences=0)
    (target / "file").write_text("edited there")
    info = (source / "dir" / "rotten").stat()
    (target / "dir" / "rotten").write_text("CONTENT")
    os.utime(target / "dir" / "rotten", ns=(info.st_atime_ns, info.st_mtime_ns))
    (target / "extra").mkdir()
    (target / "dir" / "b").unlink()
    shutil.copy2(target / "a", target / "dir" / "b")
    daemon.wait_equal(source, target)
    for path in ("file", "dir/rotten", "extra"):
        daemon.wait_event("differs", path=path, target=str(target))
    seen = len(daemon.events("verified"))
    daemon.wait_event("verified", count=seen + 2)
    assert daemon.events("verified")[-1]["differences"] == 0
    assert daemon.stop() == 0


def test_what_is_pending_is_no_difference(start: Start, source: Path, target: Path) -> None:
    daemon = start(source, target, "--verify=every=100ms", "--quiet-time=1h", "--hold-time=2h")
    daemon.wait_following()
    (source / "later").write_text("later")
    (source / "dir").mkdir()
    (source / "dir" / "below").touch()
    daemon.wait_event("verified")
    seen = len(daemon.events("verified"))
    daemon.wait_event("verified", count=seen + 3)
    assert daemon.events("differs") == []
    assert not (target / "later").exists()
    assert daemon.stop() == 0
    assert differences(source, target) == []


def test_over_ssh(sshd: Sshd, trees: tuple[Path, Path]) -> None:
    source, target = trees
    there = f"there:{target}"
    harm(target)
    status, found, _ = verify(source, there, f"--ssh={sshd.ssh}")
    assert status == 1
    assert {"mode", "size", "gone", "extra\n", "fifo", "link"} <= found.keys()
    status, _, summary = verify(source, there, f"--ssh={sshd.ssh}", "--checksum", "--repair")
    assert (status, summary["repaired"]) == (0, summary["differences"])
    assert differences(source, target) == []
