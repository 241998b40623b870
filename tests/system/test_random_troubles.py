"""Several writers at once while something befalls the daemon again and again, under options drawn at random.

``INSTEP_ROUNDS`` and ``INSTEP_SEED`` as for ``test_random``: each failure names its seed.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system import writers
from tests.system.conftest import Start
from tests.system.daemon_process import DaemonProcess
from tests.system.faults import ENGINES, MONITORS, below
from tests.system.test_random import FULL, SHARE, road_of, seeds, wait_and_probe

CONFIRM = signal.SIGRTMIN + 1
OPTIONS = [
    [],
    ["--quiet-time=0.05", "--hold-time=0.3"],
    ["--spacing=0.2"],
    ["--big=8", "--big-quiet-time=0.1", "--big-hold-time=0.5"],
    ["--inplace-from=1"],
    ["--inplace-from=1", "--verify=every=0.2s,checksum"],
    ["--verify=every=0.2s"],
    ["--bwlimit=300K"],
    ["--state-dir=none"],
    [
        "--quiet-time=0.03",
        "--spacing=0.1",
        "--big=9",
        "--big-quiet-time=0.1",
        "--inplace-from=30000",
        "--verify=every=0.3s",
    ],
]
RULES = [[], ["- b"], ["- c/"], ["- /a/b"], ["+ a", "- /b/*"], ["- a/c", "+ b", "- f"], ["- /a", "- d*"]]


class Trouble:
    """What befalls a daemon, its source and its targets while ``befallen`` lasts; ``draw`` says when, and how."""

    def __init__(self, daemon: DaemonProcess, base: Path, targets: list[Path], draw: random.Random) -> None:
        self.daemon = daemon
        self.root = base / "root"
        self.patterns = base / "patterns"
        self.targets = targets
        self.draw = draw
        self.over = threading.Event()
        self._replaced = 0

    def pause(self, least_s: float, most_s: float) -> None:
        """Chance says how long, and the writers' end that it is enough."""
        self.over.wait(self.draw.uniform(least_s, most_s))

    def signals(self) -> None:
        """Status, comparison, rules read anew, deletions confirmed."""
        os.kill(self.daemon.pid, self.draw.choice([signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, CONFIRM]))

    def rules(self) -> None:
        """Other rules, and back to them: what each of them leaves out goes."""
        self.patterns.write_text("".join(f"{rule}\n" for rule in self.draw.choice(RULES)))
        self.daemon.tell(signal.SIGHUP)

    def target_away(self) -> None:
        """Renamed, and back."""
        for target in self.targets:
            self._away(target, 0.6)

    def target_replaced(self) -> None:
        """An empty directory takes its place, at once or after a while."""
        for target in self.targets:
            self._replaced += 1
            with contextlib.suppress(FileNotFoundError):
                target.rename(target.with_name(f"{target.name}-{self._replaced}"))
            if self.draw.random() < 0.5:
                self.pause(0.0, 0.3)
            target.mkdir(exist_ok=True)
        self.pause(0.5, 1.0)

    def source_away(self) -> None:
        """Renamed, and back, while the writers go on in it."""
        self._away(self.root, 0.3)
        self.pause(0.2, 0.4)

    def stopped(self) -> None:
        """The daemon does not run for a while."""
        with self._held(self.daemon.pid):
            self.pause(0.05, 0.5)

    def children_killed(self) -> None:
        """One of the processes that work for it is gone."""
        self._one_child(lambda pid: os.kill(pid, signal.SIGKILL))

    def children_stopped(self) -> None:
        """One of them does not run for a while."""

        def stop(pid: int) -> None:
            with self._held(pid):
                self.pause(0.05, 0.4)

        self._one_child(stop)

    def _away(self, path: Path, most_s: float) -> None:
        elsewhere = path.with_name(f"{path.name}-away")
        with contextlib.suppress(FileNotFoundError):  # A target may not have been made yet.
            path.rename(elsewhere)
            self.pause(0.01, most_s)
            elsewhere.rename(path)

    @contextlib.contextmanager
    def _held(self, pid: int) -> Iterator[None]:
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def _one_child(self, act: Callable[[int], None]) -> None:
        if pids := list(below(self.daemon.pid)):
            with contextlib.suppress(ProcessLookupError):
                act(self.draw.choice(pids))


TROUBLES = [name for name, one in vars(Trouble).items() if callable(one) and name[0] != "_" and name != "pause"]


@contextlib.contextmanager
def befallen(trouble: Trouble, kind: str) -> Iterator[None]:
    """Again and again until the end of the block; then all is as it should be."""

    def work() -> None:
        while not trouble.over.is_set():
            trouble.pause(0.02, 0.4)
            getattr(trouble, kind)()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        trouble.over.set()
        thread.join()


def play(start: Start, place: Path, seed: int, engine: str, ssh: str | None, kind: str) -> None:
    """One round: writers and trouble beside the daemon; then rest, comparison, a probe in every directory, comparison."""
    road = road_of(seed, place)
    draw = random.Random(seed)
    options = draw.choice(OPTIONS)
    base = Path(tempfile.mkdtemp(prefix="round", dir=place))
    root, outside, patterns = base / "root", base / "outside", base / "patterns"
    targets = [base / "target", base / "second"][: 2 if seed % 5 == 0 else 1]
    root.mkdir()
    outside.mkdir()
    patterns.touch()
    writers.disturb(os.fsencode(root), os.fsencode(outside), seed * 7 + 1, 150, 0)
    daemon = start(
        root,
        *(targets if ssh is None else ["--ssh", ssh, *(f"there:{target}" for target in targets)]),
        *MONITORS[road.partition(",")[0]],
        f"--engine={engine}",
        "--max-delete=none",
        *options,
        *([f"--exclude-from={patterns}", "--delete-excluded"] if kind == "rules" else []),
    )
    # The way to it may lead elsewhere while they are at work.
    there = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    running: list[subprocess.Popen[bytes]] = []
    try:
        daemon.wait_event("monitor" if draw.random() < 0.3 else "following")
        pause_s = draw.choice((0.05, 0.1, 0.2))  # At each twentieth operation or so.
        for number in range(draw.randint(1, 3)):
            words: list[str | Path] = [
                f"/proc/self/fd/{there}/.",
                outside,
                str(seed * 1000 + number),
                "400",
                str(pause_s),
            ]
            running.append(subprocess.Popen([sys.executable, writers.__file__, *words], pass_fds=[there]))
        with befallen(Trouble(daemon, base, targets, random.Random(seed + 1)), kind):
            for writer in running:
                assert writer.wait(90) == 0
        daemon.tell(signal.SIGHUP)
        final = [
            f"--{'include' if rule[0] == '+' else 'exclude'}={rule[2:]}" for rule in patterns.read_text().splitlines()
        ]
        (root / "nudge").write_text("A target that was replaced is found out by who works on it.")
        wait_and_probe(daemon, base, targets, draw, engine, final)
        assert daemon.stop() == 0
    except AssertionError as error:
        raise AssertionError(f"INSTEP_SEED={seed} {road} {engine} {kind} {options}: {error}") from None
    finally:
        for writer in running:
            writer.kill()
            writer.wait()
        os.close(there)
        daemon.kill()
        shutil.rmtree(base, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * SHARE)
@pytest.mark.parametrize("engine", [*ENGINES, *["remote"] * FULL])
@pytest.mark.parametrize("kind", TROUBLES)
def test_writers_at_once_amid_trouble(
    start: Start, shm: Path, request: pytest.FixtureRequest, kind: str, engine: str
) -> None:
    ssh: str | None = request.getfixturevalue("sshd").ssh if engine == "remote" else None
    for seed in seeds(max(1, SHARE // 3), f"{kind} {engine}"):
        play(start, shm, seed, engine, ssh, kind)
