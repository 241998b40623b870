"""What the engine says when rsync, the disk or the source fails."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.engines.rsync import RsyncEngine, engine, process, why_unavailable
from instep.engines.rsync.verdict import STATUS, Verdict
from instep.errors import TargetAway, TargetError, ToolMissing
from instep.model import Change, Failure, Outcome
from instep.rules import Rule
from instep.spec import MaxDelete
from tests.engines.rsync.places import Place, assert_done, batch, descendants, entry, names, run, standing_still, tree
from tests.processes import lives

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
REAL = shutil.which("rsync") or "rsync"


def wrap(place: Place, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Put a program of this name in front of the real rsync."""
    programs = place.base / "bin"
    programs.mkdir(exist_ok=True)
    fake = programs / "rsync"
    fake.write_text("#!/bin/sh\n" + script)
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return fake


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """rsync runs without any right to what belongs to others.

    In a directory that all may enter; not below pytest's own, which any other pytest of the same user closes again.
    """
    with tempfile.TemporaryDirectory(prefix="instep-test-") as base:
        os.chmod(base, 0o755)
        place = Place(Path(base))
        place.target.mkdir()
        wrap(
            place,
            monkeypatch,
            f'[ -e instep-probe-here ] && exec {REAL} "$@"\nexec setpriv --reuid 65534 --regid 65534 --clear-groups {REAL} "$@"\n',
        )
        yield place
        place.close()


def own(path: Path, *, uid: int = 65534) -> None:
    if os.geteuid() == 0:
        for top, directories, files in os.walk(path):
            for name in ("", *directories, *files):
                os.chown(os.path.join(top, name), uid, uid, follow_symlinks=False)


@pytest.mark.root
@needs_root
def test_one_bad_name_does_not_stop_the_rest(nobody: Place) -> None:
    for name in ("good", "bad"):
        (nobody.source / name).mkdir()
        (nobody.source / name / "f").write_text("x")
        (nobody.target / name).mkdir()
    own(nobody.source)
    own(nobody.target)
    os.chown(nobody.target / "bad", 0, 0)
    (nobody.target / "bad").chmod(0o555)
    outcome = nobody.sync(nobody.engine(), entry(b"bad/f"), entry(b"good/f"))
    assert [f.change.path for f in outcome.failures] == [b"bad/f"]
    assert "Permission denied" in outcome.failures[0].reason
    assert f'"{nobody.target}/bad/' in outcome.failures[0].reason
    assert outcome.failures[0].hard
    assert (nobody.target / "good/f").exists()
    outcome = nobody.sync(nobody.engine(), tree())
    assert [f.change.path for f in outcome.failures] == [b"bad"]
    assert outcome.failures[0].hard


@pytest.mark.root
@needs_root
def test_an_unreadable_source_holds_up_no_deletion(nobody: Place) -> None:
    for name in ("a", "closed", "z"):
        (nobody.source / name).mkdir()
        (nobody.target / name).mkdir()
        (nobody.target / name / "extra").write_text("x")
    (nobody.source / "z" / "[x]").write_text("x")
    own(nobody.source)
    own(nobody.target)
    os.chown(nobody.source / "closed", 0, 0)
    (nobody.source / "closed").chmod(0o700)
    (nobody.source / "z" / "[x]").chmod(0)
    os.chown(nobody.source / "z" / "[x]", 0, 0)
    outcome = nobody.sync(nobody.engine(), tree())
    assert [f.change.path for f in outcome.failures] == [b"closed", b"z/[x]"]
    assert "Permission denied" in outcome.failures[0].reason
    assert os.listdir(nobody.target / "a") == []
    assert os.listdir(nobody.target / "z") == []
    assert os.listdir(nobody.target / "closed") == ["extra"]  # not known to be gone in the source


@pytest.fixture
def tiny(place: Place) -> Iterator[Place]:
    place.target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tiny", place.target], check=True)
    yield place
    subprocess.run(["umount", "-l", place.target], check=True)


@pytest.mark.root
@needs_root
def test_a_full_target_is_told_and_heals(tiny: Place) -> None:
    (tiny.source / "large").write_bytes(b"x" * 1_000_000)
    (tiny.source / "small").write_bytes(b"x")
    outcome = tiny.sync(tiny.engine(), entry(b"large"), entry(b"small"))
    assert outcome.full is not None
    assert "No space left" in outcome.full
    assert outcome.away is None
    (tiny.source / "large").write_bytes(b"x" * 1000)
    assert_done(tiny.sync(tiny.engine(), entry(b"large"), entry(b"small")))
    assert sorted(os.listdir(tiny.target)) == ["large", "small"]


@pytest.mark.root
@needs_root
@pytest.mark.parametrize(
    "change", [entry(b"z/old"), entry(b"old"), names(b"z", content=True), tree(content=True)], ids=str
)
def test_a_full_target_loses_what_the_source_lost(tiny: Place, change: Change) -> None:
    """rsync ends at the first file that does not fit; what would make room for it stands behind it on the lists."""
    for directory in (tiny.source, tiny.target):
        (directory / "z").mkdir()
    old = tiny.target / ("old" if change.path == b"old" else "z/old")
    old.write_bytes(b"x" * 200_000)
    (tiny.source / "a").write_bytes(b"x" * 120_000)  # There is room for it twice, but not beside the old one.
    assert tiny.sync(tiny.engine(delete=False), entry(b"a"), change).full is not None
    assert old.exists()
    # Whether it fits at once depends on which half of rsync is faster.
    tiny.sync(tiny.engine(), entry(b"a"), change)
    assert not old.exists()
    assert_done(tiny.sync(tiny.engine(), entry(b"a"), change))
    tiny.assert_equal()


def test_a_killed_rsync_has_done_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.source / "f").write_text("x")
    made = place.engine()
    run(made.open())
    wrap(place, monkeypatch, "kill -9 $$\n")
    outcome = run(made.sync(batch(entry(b"f"))))
    assert outcome.away is not None
    assert "signal 9" in outcome.away


@pytest.mark.parametrize("status", [11, 12, 20])
def test_a_half_that_lives_on_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Else it could still write while the next run is at work."""
    (place.source / "f").write_text("x")
    made = place.engine()
    run(made.open())
    wrap(place, monkeypatch, f"(sleep 0.3; touch {place.base}/late) &\nexit {status}\n")
    run(made.sync(batch(entry(b"f"))))
    assert (place.base / "late").exists()


def test_an_rsync_that_cannot_be_started_is_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    made = place.engine()
    run(made.open())
    monkeypatch.setenv("PATH", str(place.base))
    outcome = run(made.sync(batch(entry(b"f"))))
    assert outcome.away is not None
    assert "cannot be started" in outcome.away


def test_a_killed_half_of_rsync_is_no_success(place: Place) -> None:
    """The receiving process dies in the middle of a large file."""
    (place.source / "f").write_bytes(os.urandom(20_000_000))

    async def work() -> Outcome:
        made = place.engine(extra_args=[b"--bwlimit=2000"])
        await made.open()
        task = asyncio.ensure_future(made.sync(batch(entry(b"f"))))
        deadline_s = time.monotonic() + 60
        while not (children := descendants(os.getpid())) or not any(
            n.startswith(".f.") for n in os.listdir(place.target)
        ):
            assert time.monotonic() < deadline_s, "no rsync at work"
            await asyncio.sleep(0.01)
        os.kill(max(children), signal.SIGKILL)
        return await task

    outcome = run(work())
    assert outcome.away is not None
    assert not (place.target / "f").exists()


def test_cancelling_ends_rsync_first(place: Place) -> None:
    (place.source / "d").mkdir()
    (place.source / "d" / "f").write_bytes(os.urandom(5_000_000))

    async def work() -> list[int]:
        made = place.engine(extra_args=[b"--bwlimit=2000"])
        await made.open()
        task = asyncio.ensure_future(made.sync(batch(entry(b"d/f"))))
        deadline_s = time.monotonic() + 60
        while not any(n.startswith(".f.") for _, _, files in os.walk(place.target) for n in files):
            assert time.monotonic() < deadline_s, "no rsync at work"
            await asyncio.sleep(0.01)
        started = descendants(os.getpid())
        assert os.getsid(started[0]) != os.getsid(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # A second batch that meets the first one's paths is not held up by what that left at the gate.
        await asyncio.wait_for(made.sync(batch(entry(b"d"))), 60)
        return started

    started = run(work())
    assert started
    # A temporary may have been left beside it: the next run lists the directory, and so brings all that is in it.
    assert os.listdir(place.target / "d") == ["f"]
    assert not [pid for pid in started if lives(pid)]


def test_a_source_that_is_replaced_deletes_nothing(place: Place) -> None:
    (place.source / "f").write_text("x")
    made = place.engine()
    run(made.open())
    assert_done(run(made.sync(batch(entry(b"f")))))
    os.rename(place.source, place.base / "elsewhere")
    gone = run(made.sync(batch(tree(), entry(b"f"))))
    place.source.mkdir()
    empty = run(made.sync(batch(tree(), entry(b"f"))))
    for outcome in (gone, empty):
        assert outcome.away is not None
        assert outcome.away.startswith("source ")
    assert os.listdir(place.target) == ["f"]


def test_a_target_that_is_replaced_is_away_until_opened_again(place: Place) -> None:
    (place.source / "f").write_text("x")
    made = place.engine()
    run(made.open())
    os.rename(place.target, place.base / "elsewhere")
    for _ in range(2):
        outcome = run(made.sync(batch(entry(b"f"))))
        assert outcome.away is not None
        assert outcome.away.startswith("target ")
        place.target.mkdir(exist_ok=True)
    run(made.open())
    assert_done(run(made.sync(batch(entry(b"f")))))
    place.assert_equal()


def test_a_target_in_a_missing_place_is_away(place: Place) -> None:
    with pytest.raises(TargetAway, match="No such file"):
        run(place.engine(target=os.fsencode(place.base / "no/where")).open())


def test_a_target_that_is_a_file_is_refused(place: Place) -> None:
    place.target.write_text("x")
    with pytest.raises(TargetError):
        run(place.engine().open())


def test_no_rsync_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_unavailable() is None
    monkeypatch.setenv("PATH", str(place.base))
    assert why_unavailable() is not None
    with pytest.raises(ToolMissing) as caught:
        run(place.engine().open())
    assert "apt install rsync" in caught.value.fix


def test_an_unknown_argument_is_refused(place: Place) -> None:
    with pytest.raises(TargetError, match="no-such-option"):
        run(place.engine(extra_args=[b"--no-such-option"]).open())


# Every status that rsync(1) lists, from a script that fails so only for the name "bad", and else is rsync.
FAKE = """\
[ "$1" = --version ] && exec {real} "$@"
names=$(mktemp) && cat > "$names"
if tr '\\0' '\\n' < "$names" | grep -qx ./bad; then
    rm "$names"
    printf '%s\\n' '{stderr}' >&2
    exit {status}
fi
{real} "$@" < "$names"; status=$?; rm "$names"; exit $status
"""


@pytest.mark.parametrize("status", sorted(s for s in STATUS if s < 256))
def test_what_each_status_means(place: Place, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    (place.source / "bad").write_text("x")
    (place.source / "good").write_text("x")
    made = place.engine()
    run(made.open())
    wrap(place, monkeypatch, FAKE.format(real=REAL, status=status, stderr=f"rsync error: told so (code {status})"))
    outcome = run(made.sync(batch(entry(b"good"), entry(b"bad"))))
    assert outcome.full is None
    match STATUS[status][0]:
        case Verdict.DONE:
            assert_done(outcome)
        case Verdict.AWAY:
            assert outcome.away is not None
            assert f"status {status}" in outcome.away
        case Verdict.ABORTED:
            # Halving brings the good name over and finds the bad one.
            assert outcome.away is None
            assert [f.change.path for f in outcome.failures] == [b"bad"]
            assert (place.target / "good").exists()
        case Verdict.PARTIAL:
            # Even the comparison fails here, so nothing is known to be done.
            assert outcome.away is None
            assert [f.change.path for f in outcome.failures] == [b"good", b"bad"]
        case Verdict.FULL:
            raise AssertionError


@pytest.mark.parametrize("status", [11, 23])
@pytest.mark.parametrize("text", ["No space left on device (28)", "Disk quota exceeded (122)"])
def test_no_space_is_told_apart(place: Place, monkeypatch: pytest.MonkeyPatch, status: int, text: str) -> None:
    (place.source / "bad").write_text("x")
    made = place.engine()
    run(made.open())
    stderr = f'rsync: [receiver] write failed on "/x/bad": {text}'
    wrap(place, monkeypatch, FAKE.format(real=REAL, status=status, stderr=stderr))
    outcome = run(made.sync(batch(entry(b"bad"))))
    assert outcome.full is not None
    assert text in outcome.full


REFUSE = """\
for a in "$@"; do case "$a" in
    {option}) echo '{stderr}' >&2; exit {status} ;;
esac; done
exec {real} "$@"
"""


def refusing(place: Place, monkeypatch: pytest.MonkeyPatch, option: str, stderr: str, status: int) -> RsyncEngine:
    wrap(place, monkeypatch, REFUSE.format(option=option, stderr=stderr, status=status, real=REAL))
    return place.engine()


@pytest.mark.parametrize(
    ("stderr", "status"),
    [("invalid file mode 00", 2), ("rsync: --delete-missing-args: unknown option", 12), ("refused", 4)],
)
def test_deletions_without_missing_args(
    place: Place, monkeypatch: pytest.MonkeyPatch, stderr: str, status: int
) -> None:
    for name in ("d/gone/sub", "keep"):
        (place.source / name).mkdir(parents=True)
    (place.source / "d/f").write_text("x")
    place.sync(place.engine(), tree())
    shutil.rmtree(place.source / "d/gone")
    (place.source / "d/f").unlink()
    (place.target / "keep/extra").write_text("x")
    made = refusing(place, monkeypatch, "--delete-missing-args", stderr, status)
    assert_done(place.sync(made, entry(b"d/f"), entry(b"d/gone/sub")))
    assert os.listdir(place.target / "d") == []
    assert os.listdir(place.target / "keep") == ["extra"]


@pytest.mark.parametrize(
    ("letters", "stderr", "event"),
    [
        ("-*A*", "rsync: ACLs are not supported on this server", "acls-dropped"),
        ("-*X*", "rsync: xattrs are not supported on this server", "xattrs-dropped"),
        ("-*X*", "rsync: extended attributes are not supported on this server", "xattrs-dropped"),
    ],
)
def test_what_the_target_cannot_keep_is_dropped_loudly(
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    letters: str,
    stderr: str,
    event: str,
) -> None:
    (place.source / "f").write_text("x")
    # The bundle of letters is the first argument; no long option may match.
    wrap(
        place,
        monkeypatch,
        f'case "$1" in {letters}) echo \'{stderr}\' >&2; exit 12 ;; esac\nexec {REAL} "$@"\n',
    )
    assert_done(place.sync(place.engine(), entry(b"f")))
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [event]
    place.assert_equal()


def test_a_target_too_old_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    made = refusing(place, monkeypatch, "--modify-window=*", "--modify-window=-1: unknown option", 12)
    with pytest.raises(TargetError) as caught:
        run(made.open())
    assert "3.1.3" in caught.value.fix


def test_a_name_that_vanishes_meanwhile_is_no_failure(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    (place.source / "f").write_text("x")
    (place.source / "g").write_text("x")
    made = place.engine(delete=False)
    run(made.open())
    wrap(place, monkeypatch, f'rm -f {place.source}/f\nexec {REAL} "$@"\n')
    assert_done(run(made.sync(batch(entry(b"f"), entry(b"g"), names(b"h")))))
    assert os.listdir(place.target) == ["g"]


def test_a_file_that_becomes_a_fifo_meanwhile_does_not_hang_the_run(place: Place) -> None:
    """rsync opens it for reading, and that waits for a writer: for ever."""
    made = place.engine(bandwidth_bytes_per_s=600_000.0)
    swapped = False

    async def swapping() -> Outcome:
        nonlocal swapped
        (place.source / "a").write_bytes(os.urandom(600_000))
        (place.source / "z").write_text("x")
        await made.open()
        syncing = asyncio.create_task(made.sync(batch(entry(b"a"), entry(b"z"))))
        while not os.listdir(place.target):  # noqa: ASYNC110  # the first file has been begun, so the list is made
            await asyncio.sleep(0.005)
        with standing_still():
            # What arrived of it shows a quarter of a megabyte late, and its sender is less than that ahead.
            if swapped := all(path.stat().st_size < 100_000 for path in place.target.iterdir()):
                (place.source / "z").unlink()
                os.mkfifo(place.source / "z")
        return await asyncio.wait_for(syncing, 60)

    outcome = run(swapping())
    while not swapped:  # It was over too soon: on a busy machine the test itself may be late.
        shutil.rmtree(place.target)
        outcome = run(swapping())
    assert [f.change.path for f in outcome.failures] == [b"z"]
    assert_done(run(made.sync(batch(entry(b"z")))))
    place.assert_equal()


SOMETIMES_HANGS = """
import os, select, subprocess, sys
which, hung, *argv = sys.argv[1:]
listing = sys.stdin.buffer.read()
if which == "all names" or (which == "one name" and b"./g" in listing) or (which == "once" and not os.path.exists(hung)):
    open(hung, "w").close()
    os.fork()
    select.select([], [], [])
sys.exit(subprocess.run(argv, input=listing, close_fds=False).returncode)
"""


@pytest.mark.parametrize("which", ["once", "one name", "all names"])
def test_processes_that_wait_for_one_another_are_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    """rsync does that, seldom: the others of the batch come over all the same."""
    monkeypatch.setattr(process, "HUNG_S", 0.3)
    monkeypatch.setattr(process, "LOOK_S", 0.05)
    for name in ("f", "g", "h"):
        (place.source / name).write_text(name)
    made = place.engine()
    run(made.open())
    fake = place.base / "fake.py"
    fake.write_text(SOMETIMES_HANGS)
    wrap(place, monkeypatch, f'exec {sys.executable} {fake} "{which}" {place.base}/hung {REAL} "$@"\n')
    outcome = run(asyncio.wait_for(made.sync(batch(entry(b"f"), entry(b"g"), entry(b"h"))), 60))
    failed = {"once": [], "one name": [b"g"], "all names": [b"f", b"g", b"h"]}[which]
    assert sorted(failure.change.path for failure in outcome.failures) == failed
    assert sorted(os.fsencode(name) for name in os.listdir(place.target)) == sorted({b"f", b"g", b"h"} - {*failed})
    assert {record.message for record in caplog.records} == {"rsync-hung"}
    assert outcome.away is None


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("blocked", ["a", "b", "d"])
def test_a_name_that_cannot_be_had_keeps_no_other_name_of_the_file_away(
    place: Place, monkeypatch: pytest.MonkeyPatch, blocked: str, whole: bool
) -> None:
    """For the others rsync waits for ever, or it leaves them out."""
    monkeypatch.setattr(process, "HUNG_S", 0.3)
    monkeypatch.setattr(process, "LOOK_S", 0.05)
    (place.source / "a").write_text("a")
    for name in ("b", "c", "d"):
        (place.source / name).hardlink_to(place.source / "a")
    (place.target / blocked).mkdir(parents=True)
    (place.target / blocked / "kept").touch()
    made = place.engine(delete=False)
    run(made.open())
    outcome = Outcome(failures=[Failure(tree(b"") if whole else entry(b"c"), "not tried yet")])
    for _ in range(3):
        todo = [failure.change for failure in outcome.failures]
        outcome = run(asyncio.wait_for(made.sync(batch(*todo)), 60))
        assert outcome.away is None
    assert {failure.reason for failure in outcome.failures} == {f"could not make way for new regular file: {blocked}"}
    for name in {"a", "b", "c", "d"} - {blocked}:
        assert (place.target / name).read_text() == "a"
        assert (place.target / name).stat().st_nlink == 3
    assert (place.target / blocked / "kept").exists()


@pytest.mark.parametrize("most", [9, 12])
def test_what_may_not_be_deleted_at_once_is_not_deleted_name_by_name(
    place: Place, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """What is excluded stays at the target, and stands in the way of a name of a file with several."""
    monkeypatch.setattr(process, "HUNG_S", 0.3)
    monkeypatch.setattr(process, "LOOK_S", 0.05)
    for name in ("d", "e"):
        (place.source / name).mkdir()
        (place.source / name / "a").write_text("a")
        for other in ("b", "c"):
            (place.source / name / other).hardlink_to(place.source / name / "a")
        (place.target / name / "b").mkdir(parents=True)
        (place.target / name / "b" / "kept").touch()
    lost = [place.target / name / f"lost{number}" for name in "de" for number in range(6)]
    for path in lost:
        path.touch()
    made = place.engine(rules=[Rule(include=False, pattern=b"kept")], max_delete=MaxDelete(percent=1, least=most))
    run(made.open())
    outcome = run(asyncio.wait_for(made.sync(batch(tree(b""))), 60))
    assert (outcome.held.count if outcome.held else 0) == (12 if most < 12 else 0)
    for _ in range(3):
        again = [failure.change for failure in outcome.failures]
        outcome = run(asyncio.wait_for(made.sync(batch(*again)), 60))
    assert {failure.change.path for failure in outcome.failures} == {b"d/b", b"e/b"}
    assert [path.exists() for path in lost] == [most < 12] * len(lost)
    assert (place.target / "d" / "c").read_text() == "a"
    assert (place.target / "e" / "c").read_text() == "a"


def test_the_time_of_a_directory_that_became_a_link_is_nobody_s_to_mend(place: Place) -> None:
    """rsync would go through the link, and make a directory of it."""
    outside = place.base / "outside"
    (outside / "a").mkdir(parents=True)
    (place.source / "c" / "a").mkdir(parents=True)
    (place.source / "d").mkdir()
    made = place.engine()
    run(made.open())
    assert_done(run(made.sync(batch(tree(b"")))))
    shutil.rmtree(place.source / "c")
    (place.source / "c").symlink_to(outside)
    assert_done(run(made.sync(batch(tree(b"c")))))
    os.utime(place.target / "d", (1, 1))
    made._gate._shared |= {b"", b"c", b"c/a", b"d", b"gone"}
    run(made._mend_times())
    place.assert_equal()


def test_who_only_waits_long_is_left_in_peace(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes now and then, or sleeps for something else."""
    monkeypatch.setattr(process, "HUNG_S", 0.3)
    monkeypatch.setattr(process, "LOOK_S", 0.05)
    (place.source / "f").write_text("f")
    made = place.engine()
    run(made.open())
    often = "import os, select; os.fork(); [select.select([], [], [], 0.1) for _ in range(12)]"
    wrap(place, monkeypatch, f"{sys.executable} -c '{often}'\nsleep 1\nexec {REAL} \"$@\"\n")
    assert_done(run(made.sync(batch(entry(b"f")))))
    place.assert_equal()


def test_the_module_says_what_it_found() -> None:
    assert engine.RsyncEngine.name == "rsync"


@pytest.mark.parametrize("instead", ["nothing", "a link", "a directory"])
def test_the_target_goes_while_rsync_starts(place: Place, monkeypatch: pytest.MonkeyPatch, instead: str) -> None:
    """What it brings is for the directory that was looked at, not for whatever has its name by now."""
    place.target.mkdir()
    outside, aside = place.base / "outside", place.base / "aside"
    outside.mkdir()
    make = {"nothing": ":", "a link": f"ln -s {outside} {place.target}", "a directory": f"mkdir {place.target}"}
    replaced = f"[ -e instep-probe-here ] || {{ mv {place.target} {aside}; {make[instead]}; }}"
    wrap(place, monkeypatch, f'{replaced}\nexec {REAL} "$@"\n')
    (place.source / "file").write_text("content")
    place.sync(place.engine(), entry(b"file"))
    assert place.target.exists() is (instead != "nothing")
    assert list(outside.iterdir()) == []
    if instead == "a directory":
        assert list(place.target.iterdir()) == []
    assert (aside / "file").read_text() == "content"


def test_the_target_is_removed_while_rsync_starts(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.target.mkdir()
    wrap(place, monkeypatch, f'[ -e instep-probe-here ] || rm -rf {place.target}\nexec {REAL} "$@"\n')
    (place.source / "file").write_text("content")
    outcome = place.sync(place.engine(), entry(b"file"))
    assert str(place.target) in (outcome.away or "")
    assert not place.target.exists()


def test_a_program_in_front_of_rsync_may_close_what_it_inherits(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """As sudo does; then it is given the target's name."""
    place.target.mkdir()
    fake = place.base / "fake.py"
    fake.write_text("import os, sys\nos.closerange(3, 100)\nos.execv(sys.argv[1], sys.argv[1:])\n")
    wrap(place, monkeypatch, f'exec {sys.executable} {fake} {REAL} "$@"\n')
    (place.source / "file").write_text("content")
    assert_done(place.sync(place.engine(), entry(b"file")))
    place.assert_equal()
