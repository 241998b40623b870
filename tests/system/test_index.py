"""Restarts by the index: only the source is read, whatever happened in between is found, and doubt costs a comparison."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.system import small_queue, unhurried
from tests.system.compare import differences
from tests.system.conftest import Start
from tests.system.daemon_process import DaemonProcess, wait_until

ENGINES = ["native", "rsync"]


def fill(source: Path) -> None:
    for number in range(5):
        directory = source / f"d{number}"
        (directory / "sub").mkdir(parents=True)
        for name in ("f", "g", "sub/h"):
            (directory / name).write_text(f"{number} {name}")


def run(start: Start, source: Path, target: Path, *options: str, commit_s: float = 5.0) -> DaemonProcess:
    """A daemon that is following."""
    environment = {"INSTEP_COMMIT_S": str(commit_s)}
    daemon = start("-v", *options, source, target, program=Path(unhurried.__file__), environment=environment)
    daemon.wait_following()
    return daemon


def once(start: Start, source: Path, target: Path, *options: str) -> DaemonProcess:
    daemon = start("-v", "--once", *options, source, target)
    assert daemon.ended() == 0, daemon.text()
    return daemon


def used(daemon: DaemonProcess) -> bool:
    return bool(daemon.wait_event("index")["used"])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_restart_reads_the_source_alone(start: Start, source: Path, target: Path, engine: str) -> None:
    fill(source)
    daemon = run(start, source, target, f"--engine={engine}")
    assert not used(daemon)
    (source / "d0" / "live").write_text("live")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0
    (target / "d1" / "f").write_text("an edit that only --verify or a full comparison would find")
    again = run(start, source, target, f"--engine={engine}")
    assert used(again)
    assert again.wait_event("compared")["differences"] == 0
    assert not again.events("batch")
    assert again.stop() == 0
    assert (target / "d1" / "f").read_text().startswith("an edit")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_what_happened_while_it_was_down(
    start: Start, source: Path, target: Path, engine: str, end: signal.Signals
) -> None:
    fill(source)
    daemon = run(start, source, target, f"--engine={engine}", commit_s=0.2)
    daemon.wait_event("index-written", whole=True)
    if end is signal.SIGTERM:
        assert daemon.stop() == 0
    else:
        daemon.kill()
    info = (source / "d0" / "f").stat()
    (source / "d0" / "f").write_text("0 F")  # the same size, and soon the same time
    os.utime(source / "d0" / "f", ns=(info.st_atime_ns, info.st_mtime_ns))
    (source / "d1").rename(source / "d2" / "moved")
    shutil.rmtree(source / "d3")
    (source / "d4").chmod(0o700)
    (source / "new").mkdir()
    (source / "new" / "f").write_text("new")
    source.chmod(0o711)
    again = run(start, source, target, f"--engine={engine}")
    assert used(again)
    again.wait_equal(source, target)
    assert again.stop() == 0
    last = run(start, source, target, f"--engine={engine}")
    assert last.wait_event("compared")["differences"] == 0
    assert last.stop() == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_directories_swapped_while_it_was_down(start: Start, source: Path, target: Path, engine: str) -> None:
    """Files alike in size and time: nothing but their inodes tells them apart."""
    for name in ("a", "b"):
        (source / name).mkdir()
        (source / name / "f").write_text(name)
        os.utime(source / name / "f", (1, 1))
        os.utime(source / name, (1, 1))
    once(start, source, target, f"--engine={engine}")
    (source / "a").rename(source / "c")
    (source / "b").rename(source / "a")
    (source / "c").rename(source / "b")
    once(start, source, target, f"--engine={engine}").wait_equal(source, target)


def test_a_name_that_only_the_target_knows_of(start: Start, source: Path, target: Path) -> None:
    """Made, brought over, killed before any commit, gone by the restart: the journal knows."""
    fill(source)
    daemon = run(start, source, target)
    daemon.wait_event("index-written", whole=True)
    (source / "short-lived").write_text("x")
    (source / "d0").rename(source / "away")
    daemon.wait_equal(source, target)
    daemon.kill()
    (source / "short-lived").unlink()
    (source / "away").rename(source / "d0")
    again = run(start, source, target)
    assert used(again)
    again.wait_equal(source, target)
    assert again.stop() == 0


@pytest.mark.parametrize("doubt", ["emptied", "swapped", "broken", "other options", "journal lost", "as asked"])
def test_in_doubt_all_is_compared(start: Start, source: Path, target: Path, tmp_path: Path, doubt: str) -> None:
    fill(source)
    once(start, source, target)
    state = tmp_path / "state"
    options: list[str] = []
    if doubt == "emptied":
        shutil.rmtree(target / "d2")
    elif doubt == "swapped":
        target.rename(target.with_name("kept"))
        target.mkdir()
    elif doubt == "broken":
        for index in state.glob("*.index"):
            index.write_bytes(b"nonsense" * 4000)
    elif doubt == "other options":
        options = ["--exclude=d4"]
    elif doubt == "journal lost":
        for journal in state.glob("*.journal"):
            journal.unlink()
    else:
        options = ["--initial-sync=full"]
        (target / "d0" / "f").write_text("an edit")
    again = once(start, source, target, *options)
    assert not used(again)
    ignore = ["d4"] if doubt == "other options" else []
    again.wait_equal(source, target, ignore=ignore)
    assert used(once(start, source, target, *options[: doubt == "other options"]))


def test_only_by_the_index_or_not_at_all(start: Start, source: Path, target: Path) -> None:
    fill(source)
    daemon = start("--initial-sync=index", "--once", source, target)
    assert daemon.ended() == 2
    assert "cannot be used: there was none" in daemon.text()
    once(start, source, target)
    assert used(once(start, source, target, "--initial-sync=index"))


def test_an_empty_source_is_not_believed_by_the_index_either(start: Start, source: Path, target: Path) -> None:
    for number in range(1200):
        (source / str(number)).touch()
    once(start, source, target)
    for entry in source.iterdir():
        entry.unlink()
    daemon = start("--once", source, target)
    assert daemon.ended() == 1
    assert daemon.events("deletions-held")
    assert len(list(target.iterdir())) == 1200
    # Held deletions are not forgotten: the index does not say that the target is in step.
    again = start("--once", source, target)
    assert again.ended() == 1
    assert again.events("deletions-held")


def test_no_rsync_brings_a_list_when_nothing_changed(start: Start, source: Path, target: Path, tmp_path: Path) -> None:
    fill(source)
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / "rsync"
    genuine = shutil.which("rsync")
    wrapper.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\nexec {genuine} "$@"\n')
    wrapper.chmod(0o755)
    options = ["--engine=rsync"]
    prefix = ["env", f"PATH={tmp_path / 'bin'}:{os.environ['PATH']}"]

    def calls() -> list[str]:
        path = tmp_path / "calls"
        lines = path.read_text().splitlines()
        path.unlink()
        return [line for line in lines if "--dry-run" not in line]

    state = ["--state-dir", str(tmp_path / "kept")]
    first = start("--once", *options, *state, source, target, prefix=prefix)
    assert first.ended() == 0
    assert calls()
    second = start("--once", *options, *state, source, target, prefix=prefix)
    assert second.ended() == 0
    assert used(second)
    assert calls() == []


def test_a_resync_through_the_index_after_lost_events(start: Start, source: Path, target: Path) -> None:
    """While it is stopped more happens than the queue holds; what is in step is not looked at at the target."""
    queue = small_queue.usual()
    if queue > 20_000:
        pytest.skip("the kernel's queue is larger than this test wants to fill")
    fill(source)
    daemon = run(start, source, target, "--monitor=inotify", commit_s=0.5)
    daemon.wait_event("index-written", whole=True)
    (source / "short-lived").mkdir()
    wait_until((target / "short-lived").is_dir, "what is not in the index yet")
    daemon.tell(signal.SIGSTOP)
    stopped_s = time.monotonic()
    try:
        for number in range(queue // 2 + 100):  # each makes an event for its creation and one for its end
            os.close(os.open(source / "d0" / f"n{number}", os.O_CREAT | os.O_WRONLY))
        (source / "d1" / "f").write_text("changed as well")
        (source / "short-lived").rmdir()
        wait_until(lambda: time.monotonic() > stopped_s + 0.5, "the index is about to be written while events are lost")
    finally:
        daemon.tell(signal.SIGCONT)
    daemon.wait_event("events-lost")
    assert int(str(daemon.wait_event("compared")["differences"])) > 1000
    daemon.wait_event("in-step-again")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0


@pytest.mark.parametrize("engine", [*ENGINES, "remote"])
def test_rewritten_in_the_same_moment_and_killed_before_the_first_comparison_was_finished(
    start: Start, source: Path, target: Path, request: pytest.FixtureRequest, engine: str
) -> None:
    """No index tells of it, and neither do size and time."""
    fill(source)
    far = ["--ssh", request.getfixturevalue("sshd").ssh] if engine == "remote" else []
    where = Path(f"there:{target}") if far else target
    for _ in range(2):
        daemon = run(start, source, where, f"--engine={engine}", *far, commit_s=600)
        daemon.wait_equal(source, target)
        daemon.kill()
    file = source / "d1" / "sub" / "h"
    before = file.stat()
    file.write_text("other"[: before.st_size].ljust(before.st_size))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    daemon = once(start, source, where, f"--engine={engine}", *far)
    assert daemon.wait_event("index")["reason"] == "the first comparison was not finished"
    assert (target / "d1" / "sub" / "h").read_text().startswith("oth")


OTHERS = {
    "other rules": ["--exclude=g", "--delete-excluded"],
    "another source": [],
    "another source, no index": ["--initial-sync=full"],
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("other", OTHERS)
def test_another_mirror_has_worked_on_the_target_since(
    start: Start, source: Path, target: Path, tmp_path: Path, engine: str, other: str
) -> None:
    """What this one's index says it left there may be gone: an index is believed by who was there last, alone."""
    fill(source)
    link = tmp_path / "link"
    link.symlink_to(target)
    once(start, source, target, f"--engine={engine}")
    assert used(once(start, source, target, f"--engine={engine}"))
    second = source
    if "source" in other:
        second = source.with_name("second")
        shutil.copytree(source, second)
        (second / "d3" / "f").write_text("another")
        shutil.rmtree(second / "d1" / "sub")
    assert not used(once(start, second, link, f"--engine={engine}", *OTHERS[other]))
    daemon = once(start, source, target, f"--engine={engine}")
    reason = str(daemon.wait_event("index")["reason"])
    assert reason == "a mirror with other options or of another source has worked on the target since"
    assert not differences(source, target)
    assert used(once(start, source, target, f"--engine={engine}"))


def test_a_repair_by_hand_is_a_turn_at_the_target_too(start: Start, source: Path, target: Path, tmp_path: Path) -> None:
    fill(source)
    once(start, source, target)
    for options, believed in (((), True), (("--exclude=g", "--delete-excluded"), False)):
        words = [*("-m", "instep", "verify", "--repair", f"--state-dir={tmp_path / 'state'}"), *options, source, target]
        subprocess.run([sys.executable, *words], check=True, timeout=60)
        assert used(once(start, source, target)) == believed
        assert not differences(source, target)


def test_rules_that_change_and_change_back(start: Start, source: Path, target: Path, tmp_path: Path) -> None:
    fill(source)
    rules = tmp_path / "rules"
    rules.touch()
    daemon = run(start, source, target, f"--exclude-from={rules}", "--delete-excluded")
    for count, text in ((2, "g\n"), (3, "")):
        rules.write_text(text)
        daemon.tell(signal.SIGHUP)
        daemon.wait_event("following", count=count)
        assert (target / "d0" / "g").exists() == (not text)
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0
