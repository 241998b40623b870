"""Several writers at once, whatever they do: at rest the target equals the source, and goes on being followed.

``INSTEP_ROUNDS`` says how many rounds are played in all (50, the same each time; ``make soak`` plays 1,000 new ones),
``INSTEP_SEED`` plays that one round alone: each failure names its seed.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.system import small_queue, writers
from tests.system.conftest import Start
from tests.system.daemon_process import DaemonProcess, wait_until
from tests.system.disks import DISK_KINDS, Disks
from tests.system.faults import ENGINES, MONITORS

OPERATIONS = 400
QUEUE = "16"
"""So short that it overflows in most rounds."""
ROADS = ["inotify", "fanotify", "inotify, short queue", "poll"]
PLACES = ["tmpfs", *DISK_KINDS, "overlayfs"]
FULL = os.environ.get("INSTEP_SIZES") == "full"
ROUNDS = int(os.environ.get("INSTEP_ROUNDS", "50"))
RULES = {
    "a name": ["--exclude=b"],
    "a directory": ["--exclude=c/"],
    "anchored": ["--exclude=/a/b", "--exclude=/c"],
    "only some": ["--include=*/", "--include=a", "--include=f", "--include=probe", "--exclude=*"],
    "all below": ["--include=/a/", "--include=/a/**", "--exclude=*"],
    "contents of a directory": ["--exclude=/a/b/**", "--exclude=c/*"],
    "order": ["--include=/a/a/b", "--exclude=b", "--exclude=a/c"],
    "none at the target": ["--exclude=b", "--exclude=/a/c", "--delete-excluded"],
    "no deletions": ["--no-delete"],
    "no deletions, a name": ["--no-delete", "--exclude=b"],
}
NO_RULES = "none"
SHARE = max(1, ROUNDS // (len(PLACES) * len(ENGINES)))


def seeds(count: int, what: str) -> list[int]:
    """``INSTEP_SEED`` alone, or as many as asked for: new ones in long runs, else those that ``what`` always has."""
    given = os.environ.get("INSTEP_SEED")
    draw = random.SystemRandom() if FULL else random.Random(what)
    return [int(given)] if given else [draw.randrange(1_000_000) for _ in range(count)]


def play(start: Start, place: Path, seed: int, engine: str, ssh: str | None = None, rules: Sequence[str] = ()) -> int:
    """One round: writers beside the daemon; then rest, comparison, a probe in every directory, comparison.

    Each fifth has two targets.

    Args:
        start: Starts daemons.
        place: A directory on the file system to be used.
        seed: What is drawn.
        engine: Who writes the target.
        ssh: How to get ``there``, which is here; None: the target is a directory.
        rules: What is left out, as options; then the target equals what rsync makes of the source with them.

    Returns:
        How often the kernel's queue overflowed.
    """
    road = road_of(seed, place)
    base = Path(tempfile.mkdtemp(prefix="round", dir=place))
    root, outside = base / "root", base / "outside"
    targets = [base / "target", base / "second"][: 2 if seed % 5 == 0 else 1]
    root.mkdir()
    outside.mkdir()
    writers.disturb(os.fsencode(root), os.fsencode(outside), seed * 7 + 1, 150, 0)
    short = road.endswith("short queue")
    # What rules leave of a source may be nothing for a moment, and then an operator would be asked.
    options = [*rules, *["--max-delete=none"] * (bool(rules) and "--no-delete" not in rules)]
    daemon = start(
        root,
        *(targets if ssh is None else ["--ssh", ssh, *(f"there:{target}" for target in targets)]),
        *MONITORS[road.partition(",")[0]],
        f"--engine={engine}",
        *options,
        environment={"INSTEP_QUEUE": QUEUE},
        program=Path(small_queue.__file__) if short else None,
    )
    draw = random.Random(seed)
    if draw.random() < 0.6:
        daemon.wait_event("monitor" if draw.random() < 0.3 else "following")
    pause_s = draw.choice((0.0, 0.002, 0.01))
    running = [
        subprocess.Popen(
            [
                *(sys.executable, writers.__file__, root, outside, str(seed * 1000 + number)),
                *(str(OPERATIONS), str(pause_s)),
            ]
        )
        for number in range(draw.randint(1, 3))
    ]
    try:
        for writer in running:
            assert writer.wait(60) == 0
        wait_and_probe(daemon, base, targets, draw, engine, rules)
        overflows = len(daemon.events("inotify-overflow"))
        assert daemon.stop() == 0
    except AssertionError as error:
        words = " ".join([road, engine, str(place), *rules])
        raise AssertionError(f"INSTEP_SEED={seed} {words}: {error}") from None
    finally:
        for writer in running:
            writer.kill()
            writer.wait()
        daemon.kill()
        shutil.rmtree(base, ignore_errors=True)
    return overflows


def road_of(seed: int, place: Path) -> str:
    """Which monitor has its turn."""
    road = ROADS[seed % len(ROADS)]
    if (os.geteuid() != 0 and road != "poll") or (road == "fanotify" and place.name == "overlay"):
        road = "inotify"
    print(f"INSTEP_SEED={seed}  # {road}")
    return road


def play_lives(start: Start, place: Path, seed: int, engine: str, ssh: str | None, rules: Sequence[str]) -> None:
    """Writers, and a daemon that is ended in every way and started again, several times; then rest.

    The arguments are those of ``play``. Between two lives nobody watches: what happens then is found through the index.
    """
    road = road_of(seed, place)
    base = Path(tempfile.mkdtemp(prefix="round", dir=place))
    root, outside, target = base / "root", base / "outside", base / "target"
    root.mkdir()
    outside.mkdir()
    draw = random.Random(seed)
    writers.disturb(os.fsencode(root), os.fsencode(outside), seed * 7 + 1, 150, 0)
    far = [] if ssh is None else ["--ssh", ssh]
    arguments = [*far, root, target if ssh is None else f"there:{target}", f"--engine={engine}", *rules]
    arguments += [*MONITORS[road.partition(",")[0]], *["--max-delete=none"] * ("--no-delete" not in rules)]
    daemons: list[DaemonProcess] = []

    def begin() -> DaemonProcess:
        daemon = start(*arguments)
        daemons.append(daemon)
        return daemon

    try:
        for life in range(4):
            daemon = begin()
            if draw.random() < 0.7:
                daemon.wait_following()
            else:
                daemon.wait_event("monitor")
            how_many, pause_s = "250", draw.choice(["0", "0.004"])
            writer = subprocess.Popen(
                [sys.executable, writers.__file__, root, outside, str(seed * 1000 + life), how_many, pause_s]
            )
            try:
                if draw.random() < 0.5:
                    wait_until(lambda: writer.poll() is not None, "the writer's end")  # noqa: B023
                if draw.random() < 0.6:
                    daemon.kill()
                else:
                    assert daemon.stop() == 0
                assert writer.wait(60) == 0
            finally:
                writer.kill()
                writer.wait()
            if draw.random() < 0.5:
                writers.disturb(os.fsencode(root), os.fsencode(outside), seed * 11 + life, 40, 0)
        daemon = begin()
        wait_and_probe(daemon, base, [target], draw, engine, rules)
        assert daemon.stop() == 0
    except AssertionError as error:
        words = " ".join([road, engine, str(place), *rules])
        raise AssertionError(f"INSTEP_SEED={seed} {words}: {error}") from None
    finally:
        for daemon in daemons:
            daemon.kill()
        shutil.rmtree(base, ignore_errors=True)


def wait_and_probe(
    daemon: DaemonProcess, base: Path, targets: Sequence[Path], draw: random.Random, engine: str, rules: Sequence[str]
) -> None:
    """All targets equal the source at rest, and again with a new file in every directory."""
    # A known limit of the rsync engine (README): names that meet again in a moved directory may stay two files.
    # What stays at the target stays joined, too.
    deletions = "--no-delete" not in rules
    links = engine != "rsync" and deletions
    root = base / "root"

    def wait_equal(expected: Path) -> None:
        for target in targets:
            daemon.wait_equal(expected, target, links=links, deletions=deletions)

    wait_equal(ruled(root, base / "at rest", rules))
    for directory, _, _ in os.walk(root):
        with open(os.path.join(directory, "probe"), "wb") as file:
            file.write(draw.randbytes(5))
    wait_equal(ruled(root, base / "probed", rules))


def ruled(root: Path, reference: Path, rules: Sequence[str]) -> Path:
    """What there is without what these rules leave out."""
    if not rules:
        return root
    patterns = [rule for rule in rules if rule.startswith(("--include", "--exclude"))]
    subprocess.run(["rsync", "-aHAX", *patterns, f"{root}/", f"{reference}/"], check=True)
    # rsync makes links after it has set the times of directories, and joined FIFOs keep those of their making.
    for here, _, files in os.walk(reference, topdown=False):
        for path in (*(os.path.join(here, name) for name in files), here):
            info = os.lstat(os.path.join(root, os.path.relpath(path, reference)))
            os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)
    return reference


@pytest.mark.slow
@pytest.mark.timeout(120 + 30 * SHARE)
@pytest.mark.parametrize(
    ("kind", "engine"),
    [*itertools.product(PLACES, ENGINES), *((kind, "remote") for kind in PLACES if FULL)],
)
def test_writers_at_once(start: Start, shm: Path, request: pytest.FixtureRequest, kind: str, engine: str) -> None:
    place = shm
    ssh: str | None = request.getfixturevalue("sshd").ssh if engine == "remote" else None
    if kind != "tmpfs":
        disks: Disks = request.getfixturevalue("disks")
        place = disks.place(kind)
    first, *_ = chosen = seeds(SHARE, f"{kind} {engine}")
    if len(chosen) > 1:  # Every road in turn, whatever the numbers drawn.
        chosen = [seed - seed % len(ROADS) + (first + number) % len(ROADS) for number, seed in enumerate(chosen)]
    overflows = sum(play(start, place, seed, engine, ssh) for seed in chosen)
    print(f"{len(chosen)} rounds on {kind} by {engine}, {overflows} overflows")


@pytest.mark.slow
@pytest.mark.timeout(120 + 30 * SHARE)
@pytest.mark.parametrize("engine", [*ENGINES, *["remote"] * FULL])
@pytest.mark.parametrize("rules", RULES)
def test_writers_at_once_under_rules(
    start: Start, shm: Path, request: pytest.FixtureRequest, engine: str, rules: str
) -> None:
    """Names come under rules, and from under them, by being renamed, or by what is above them being renamed."""
    ssh: str | None = request.getfixturevalue("sshd").ssh if engine == "remote" else None
    for seed in seeds(max(1, SHARE // 3), f"{rules} {engine}"):
        play(start, shm, seed, engine, ssh, RULES[rules])


@pytest.mark.slow
@pytest.mark.timeout(120 + 30 * SHARE)
@pytest.mark.parametrize("engine", [*ENGINES, *["remote"] * FULL])
@pytest.mark.parametrize("rules", [NO_RULES, *(RULES if FULL else ["only some"])])
def test_ended_in_every_way_and_started_again(
    start: Start, shm: Path, request: pytest.FixtureRequest, engine: str, rules: str
) -> None:
    ssh: str | None = request.getfixturevalue("sshd").ssh if engine == "remote" else None
    for seed in seeds(max(1, SHARE // 3), f"lives {rules} {engine}"):
        play_lives(start, shm, seed, engine, ssh, RULES.get(rules, []))
