"""What a daemon refuses to do: empty a target for an empty source, share a target, touch its own state."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system.compare import differences
from tests.system.conftest import Start
from tests.system.daemon_process import wait_until

CONFIRM = signal.SIGRTMIN + 1
LOOKS = 100
"""With nothing new, 10 ms and more apart, before two daemons count as at rest: a change takes each a few of them."""

both_engines = pytest.mark.parametrize("engine", ["native", "rsync"])


def names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def fill(directory: Path, count: int = 6) -> set[str]:
    """Some directories with files; the names made."""
    for number in range(count):
        below = directory / f"d{number}" / "sub"
        below.mkdir(parents=True)
        (below / "file").write_text(f"{number}")
    return names(directory)


@both_engines
def test_an_empty_source_over_a_full_target(start: Start, source: Path, target: Path, engine: str) -> None:
    """Nothing is deleted, all else comes over; on the operator's word it goes."""
    target.mkdir()
    full = fill(target)
    (source / "new").write_text("new")
    daemon = start(f"--engine={engine}", "--max-delete=2", source, target)
    held = daemon.wait_event("deletions-held")
    daemon.wait_following()
    assert held["level"] == "error"
    assert (held["count"], held["counted"]) == (18, True)
    assert held["of"] in (18, 19)  # The new one may be there by then.
    assert set(held["names"]) <= {f"d{number}" for number in range(6)}  # type: ignore[call-overload]
    assert "RTMIN+1" in str(held["fix"])
    assert names(target) == full | {"new"}

    # Live changes go on: what was reported is deleted, what is held is not.
    (source / "later").write_text("later")
    (source / "new").unlink()
    wait_until(lambda: names(target) == full | {"later"}, "a live change and a live deletion")
    daemon.tell(signal.SIGUSR1)
    assert daemon.wait_event("status-target")["held"] == 18

    # Another comparison asks again.
    daemon.tell(signal.SIGUSR2)
    daemon.wait_event("resync")
    os.kill(daemon.pid, CONFIRM)
    daemon.wait_event("deletions-held-no-more")
    daemon.wait_equal(source, target)
    assert daemon.stop() == 0

    # The limit is there again at the next start.
    fill(target)
    daemon = start(f"--engine={engine}", "--once", "--max-delete=2", "--initial-sync=full", source, target)
    assert daemon.ended() == 1
    assert "RTMIN" not in str(daemon.wait_event("deletions-held")["fix"])  # It has ended by then.


@both_engines
def test_deletions_held_are_made_by_force(start: Start, source: Path, target: Path, engine: str) -> None:
    target.mkdir()
    full = fill(target)
    (target / "file").mkdir()  # in the way of a file: replaced, which is no deletion
    (target / "file" / "below").mkdir()
    (source / "file").write_text("content")
    daemon = start(f"--engine={engine}", "--once", "--max-delete=5", source, target)
    assert daemon.ended() == 1
    assert names(target) == full | {"file"}
    assert (target / "file").read_text() == "content"
    daemon = start(f"--engine={engine}", "--once", "--max-delete=5", "--force-delete", source, target)
    assert daemon.ended() == 0
    assert not differences(source, target)
    assert not daemon.events("deletions-held")


@pytest.mark.parametrize(
    ("engine", "limit", "held"),
    [
        ("native", "10", False),
        ("native", "9", True),
        ("native", "55%", True),
        ("native", "56%", False),
        ("native", "10%,10", False),
        ("native", "none", False),
        ("rsync", "55%", True),
        ("rsync", "56%", False),
    ],
)
def test_limits(start: Start, source: Path, target: Path, engine: str, limit: str, held: bool) -> None:
    """Of 18 names 10 are to go."""
    target.mkdir()
    for number in range(10):
        (target / f"gone{number}").write_text("")
    for number in range(8):
        for place in (source, target):
            (place / f"stays{number}").write_text("")
    daemon = start(f"--engine={engine}", "--once", f"--max-delete={limit}", source, target)
    assert daemon.ended() == (1 if held else 0)
    assert len(names(target)) == (18 if held else 8)
    assert bool(daemon.events("deletions-held")) == held


@both_engines
def test_the_default_lets_a_thousand_names_go(start: Start, source: Path, target: Path, engine: str) -> None:
    target.mkdir()
    (source / "stays").touch()
    for number in range(1000):
        (target / f"gone{number}").touch()
    assert start(f"--engine={engine}", "--once", source, target).ended() == 0
    assert names(target) == {"stays"}
    for number in range(1001):
        (target / f"gone{number}").touch()
    daemon = start(f"--engine={engine}", "--once", "--initial-sync=full", source, target)
    assert daemon.ended() == 1
    assert daemon.wait_event("deletions-held")["count"] == 1001
    assert len(names(target)) == 1002


@both_engines
def test_an_empty_source_over_a_small_target(start: Start, source: Path, target: Path, engine: str) -> None:
    """One name is too many then, in every comparison of the whole tree; what is reported live always goes."""
    (source / "file").write_text("content")
    words = (f"--engine={engine}", source, target)
    assert start("--once", *words).ended() == 0
    (source / "file").rename(source.with_name("aside"))  # By the index …
    for options in ([], ["--initial-sync=full"], ["--max-delete=1000000"], ["--exclude=x"]):  # … and without it.
        daemon = start("--once", *options, *words)
        assert daemon.ended() == 1, options
        held = daemon.wait_event("deletions-held")
        assert (held["count"], held["of"]) == (1, 1)
        assert str(held["reason"]).startswith("the source is empty: ")
        assert names(target) == {"file"}
    daemon = start(*words)
    daemon.wait_event("deletions-held")
    daemon.wait_following()
    (source / "other").write_text("content")  # No longer empty, so the limit alone counts.
    daemon.wait_event("deletions-held-no-more")
    daemon.wait_equal(source, target)
    source.with_name("aside").rename(source / "file")
    daemon.wait_equal(source, target)
    for name in ("file", "other"):
        (source / name).unlink()
    wait_until(lambda: not names(target), "live deletions of all there is")
    assert daemon.stop() == 0
    (target / "edit").write_text("made at the target")
    daemon = start("--once", "--initial-sync=full", "--max-delete=none", *words)
    assert daemon.ended() == 0
    assert names(target) == set()


def test_two_daemons_on_one_target(start: Start, source: Path, target: Path, tmp_path: Path) -> None:
    """Refused by whatever name, told who was first, and let in once that one is killed."""
    (source / "file").write_text("content")
    target.mkdir()
    spelling = tmp_path / "link"
    spelling.symlink_to(target)
    first = start(source, target)
    first.wait_following()
    elsewhere = tmp_path / "elsewhere"
    for words in (
        [source, target],
        [source, spelling, "--once", "--engine=rsync"],
        [tmp_path, target, "--exclude=*", f"--state-dir={elsewhere}"],
    ):
        second = start(*words)
        assert second.ended() == 2, words
        text = second.text()
        assert "error[target-in-use]" in text
        assert f"process {first.pid} of" in text
        assert str(source) in text
        assert "nothing was changed" in text
    (target / "inner").mkdir()
    inner = start(source, target / "inner")
    assert inner.ended() == 2
    assert "lies inside" in inner.text()
    assert start(source, target, "--dry-run").ended() == 0
    first.kill()
    second = start("--once", "--initial-sync=full", source, target)
    assert second.ended() == 0
    assert not differences(source, target)


def test_a_target_around_the_target_of_another(start: Start, source: Path, target: Path) -> None:
    """Refused, unless the rules leave the inner one alone."""
    (source / "file").write_text("content")
    inner = target / "inner"
    inner.mkdir(parents=True)
    first = start(source, inner)
    first.wait_following()
    outer = start("--once", source, target)
    assert outer.ended() == 2
    assert "holds" in outer.text()
    assert start("--once", "--exclude=/inner", source, target).ended() == 0
    assert start("--once", "--no-delete", source, target).ended() == 0
    assert (inner / "file").read_text() == "content"
    assert first.stop() == 0


def test_two_that_mirror_one_another(start: Start, source: Path, target: Path, shm: Path) -> None:
    """Each would delete what the other has not brought over yet; where neither deletes, both come to rest.

    Files are put in place whole: half of one that comes over may come back while the writer is at work on the other.
    """
    (source / "file").write_text("content")
    target.mkdir()
    first = start(source, target)
    first.wait_following()
    second = start(target, source)
    assert second.ended() == 2
    text = second.text()
    assert "error[target-mirrored-back]" in text
    assert f"process {first.pid} of" in text
    assert "nothing was changed" in text
    assert first.stop() == 0
    pair = [start(source, target, "--no-delete"), start(target, source, "--no-delete")]
    for each in pair:
        each.wait_following()
    assert sum(len(each.events("target-mirrored-back", level="warning")) for each in pair) == 1, "the second says it"
    (shm / "aside").write_text("one")
    (shm / "aside").rename(source / "one")
    wait_until(lambda: (target / "one").exists() and (target / "one").read_text() == "one", "one direction")
    _rest(source, target)
    for name, content in (("two", "two"), ("one", "changed")):
        (shm / "aside").write_text(content)
        (shm / "aside").rename(target / name)
    wait_until(lambda: (source / "two").exists() and (source / "one").read_text() == "changed", "the other direction")
    _rest(source, target)
    assert not differences(source, target)


def _rest(*roots: Path) -> None:
    """Wait until nothing below has changed for many looks: on a machine that is slow for daemons, they are slow too."""
    seen: list[int] = []
    looks = 0

    def rests() -> bool:
        nonlocal seen, looks
        now = [path.stat().st_ctime_ns for root in roots for path in sorted(root.rglob("*"))]
        looks = looks + 1 if now == seen else 0
        seen = now
        return looks >= LOOKS

    wait_until(rests, "both at rest")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")
def test_another_user_is_refused_too(start: Start, shm: Path) -> None:
    """The two have no state directory in common: the directory itself tells."""
    source, target = shm / "source", shm / "target"
    for place in (shm, source, target):
        place.mkdir(exist_ok=True)
        place.chmod(0o755)
        os.chown(place, 65534, 65534)
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    if subprocess.run(
        [*nobody, sys.executable, "-m", "instep", "--version"], check=False, capture_output=True
    ).returncode:
        pytest.skip("nobody else may run this Python")
    first = start(source, target)
    first.wait_following()
    second = start(source, target, prefix=nobody)
    assert second.ended() == 2
    assert "error[target-in-use]" in second.text()
    assert f"process {first.pid} of root" in second.text()


def test_a_target_that_is_replaced_is_locked_anew(start: Start, source: Path, target: Path, tmp_path: Path) -> None:
    target.mkdir()
    first = start(source, target)
    first.wait_following()
    target.rename(tmp_path / "before") if tmp_path.stat().st_dev == target.stat().st_dev else shutil.rmtree(target)
    target.mkdir()
    (source / "file").write_text("content")
    first.wait_event("target-back")
    first.wait_equal(source, target)
    second = start("--state-dir=none", "--once", source, target)
    assert second.ended() == 2
    assert f"process {first.pid} of" in second.text()


@both_engines
@pytest.mark.parametrize("side", ["source", "target"])
def test_the_state_directory_is_no_part_of_the_mirror(
    start: Start, source: Path, target: Path, engine: str, side: str
) -> None:
    """Wherever it lies: never copied, never deleted, and nothing of that name on the other side is touched."""
    target.mkdir()
    place = {"source": source, "target": target}[side]
    state = place / "deep" / "st*te[1]"
    (source / "deep").mkdir()
    (source / "deep" / "beside").write_text("content")
    words: Sequence[str | Path] = (f"--engine={engine}", f"--state-dir={state}", source, target)
    daemon = start(*words)
    daemon.wait_following()
    assert state.is_dir()
    assert state.stat().st_mode & 0o777 == 0o700
    (source / "deep" / "after").write_text("content")
    wait_until((target / "deep" / "after").exists, "a change")
    daemon.tell(signal.SIGUSR2)
    (source / "last").write_text("content")
    wait_until((target / "last").exists, "a change after the comparison")
    assert daemon.stop() == 0
    other = {"source": target, "target": source}[side]
    assert names(other) == {"deep", "deep/beside", "deep/after", "last"}
    assert state.is_dir()
    assert any(state.iterdir())


def test_state_that_is_not_safe_is_refused(start: Start, source: Path, target: Path, tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    for words, code in (
        ([f"--state-dir={open_to_all}"], "state-not-private"),
        ([f"--state-dir={source}"], "state-is-root"),
        ([f"--state-dir={target}/state", "--delete-excluded"], "state-inside-target"),
        (["--state-dir=/proc/none"], "no-state-directory"),
    ):
        target.mkdir(exist_ok=True)
        daemon = start(*words, source, target)
        assert daemon.ended() == 2
        assert f"error[{code}]" in daemon.text()
    state = tmp_path / "none"
    assert start("--dry-run", f"--state-dir={state}", source, target).ended() == 0
    assert not state.exists()
