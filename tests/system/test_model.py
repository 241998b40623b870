"""A whole daemon against a state machine: what fails is made small by hypothesis, unlike the random rounds."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.system.daemon_process import DaemonProcess
from tests.system.faults import ENGINES, MONITORS
from tests.system.writers import exchange

FULL = os.environ.get("INSTEP_SIZES") == "full"
NAMES = st.sampled_from(["a", "b", "c\udcff"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
CONTENTS = st.sampled_from([b"", b"one", b"two", b"x" * 50_000])


class Machine(RuleBasedStateMachine):
    """One source with one target; operations that cannot be done here and now are passed over."""

    monitor = "inotify"
    engine = "native"

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="instep-model-", dir="/dev/shm"))
        self.source, self.outside, self.target = (self.base / name for name in ("source", "outside", "target"))
        self.source.mkdir()
        self.outside.mkdir()
        self.lives = 0
        self.daemon: DaemonProcess | None = None

    @initialize()
    def start(self) -> None:
        self.lives += 1
        # An empty source is held; here it is one of the states, and meant.
        words = [*MONITORS[self.monitor], f"--engine={self.engine}", "--max-delete=none"]
        self.daemon = DaemonProcess(self.base / f"log{self.lives}", [str(self.source), str(self.target), *words])

    @rule(path=PATHS, content=CONTENTS)
    def write(self, path: str, content: bytes) -> None:
        with contextlib.suppress(OSError):
            (self.source / path).write_bytes(content)

    @rule(path=PATHS, content=st.sampled_from([b"one", b"two"]))
    def rewrite_keeping_size_and_time(self, path: str, content: bytes) -> None:
        with contextlib.suppress(OSError):
            info = (self.source / path).stat()
            if info.st_size == len(content):
                (self.source / path).write_bytes(content)
                os.utime(self.source / path, ns=(info.st_atime_ns, info.st_mtime_ns))

    @rule(path=PATHS)
    def make_directories(self, path: str) -> None:
        with contextlib.suppress(OSError):
            (self.source / path).mkdir(parents=True)

    @rule(path=PATHS)
    def remove(self, path: str) -> None:
        whole = self.source / path
        with contextlib.suppress(OSError):
            shutil.rmtree(whole) if whole.is_dir() and not whole.is_symlink() else whole.unlink()

    @rule(one=PATHS, other=PATHS)
    def rename(self, one: str, other: str) -> None:
        with contextlib.suppress(OSError):
            (self.source / one).rename(self.source / other)

    @rule(one=PATHS, other=PATHS)
    def exchange(self, one: str, other: str) -> None:
        with contextlib.suppress(OSError):
            exchange(bytes(self.source / one), bytes(self.source / other))

    @rule(path=PATHS, name=NAMES, out=st.booleans())
    def move_out_or_in(self, path: str, name: str, out: bool) -> None:
        places = (self.source / path, self.outside / name)
        with contextlib.suppress(OSError):
            os.rename(*(places if out else places[::-1]))

    @rule(one=PATHS, other=PATHS)
    def link(self, one: str, other: str) -> None:
        with contextlib.suppress(OSError):
            os.link(self.source / one, self.source / other, follow_symlinks=False)

    @rule(path=PATHS, text=NAMES)
    def symlink(self, path: str, text: str) -> None:
        with contextlib.suppress(OSError):
            (self.source / path).symlink_to(text)

    @rule(path=PATHS, mode=st.sampled_from([0o600, 0o755]))
    def chmod(self, path: str, mode: int) -> None:
        with contextlib.suppress(OSError):
            (self.source / path).chmod(mode | (0o700 if (self.source / path).is_dir() else 0), follow_symlinks=False)

    @precondition(lambda self: self.lives < 3)
    @rule(clean=st.booleans())
    def end_and_start_again(self, clean: bool) -> None:
        assert self.daemon is not None
        self.daemon.wait_event("monitor")
        if clean:
            assert self.daemon.stop() == 0
        else:
            self.daemon.kill()
        self.daemon.complain()
        self.start()

    @rule()
    def rest(self) -> None:
        assert self.daemon is not None
        self.daemon.wait_equal(self.source, self.target, links=self.engine == "native")

    def teardown(self) -> None:
        try:
            if self.daemon is not None:
                self.rest()
                for here, _, _ in os.walk(self.source):
                    (Path(here) / "probe").write_text("every directory is followed")
                self.rest()
                assert self.daemon.stop() == 0
                self.daemon.complain()
        finally:
            if self.daemon is not None:
                self.daemon.kill()
            shutil.rmtree(self.base, ignore_errors=True)


@pytest.mark.timeout(3600 if FULL else 300)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("monitor", MONITORS)
def test_equal_after_every_rest(monitor: str, engine: str) -> None:
    if monitor == "fanotify" and os.geteuid() != 0:
        pytest.skip("fanotify needs root")
    machine = type("Machine", (Machine,), {"monitor": monitor, "engine": engine})
    phases = [Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if FULL else [])]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40 if FULL else 2,
            stateful_step_count=20,
            deadline=None,
            phases=phases,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            print_blob=True,
        ),
    )
