"""Running a mirror as a process: what a defect of ours may cost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from instep.daemon import run
from instep.daemon.mirrors import kept, mirror
from instep.model import MonitorStatus, Report
from instep.paths import ROOT, Scope
from instep.spec import MirrorSpec, TargetSpec


class Monitor:
    """Says that it watches, and breaks at the next look; the one after it works."""

    name = "breaking"
    drained = True
    made = 0

    def __init__(self) -> None:
        Monitor.made += 1
        self._reads = 0
        self._ready, self._wake = os.pipe()

    def start(self) -> None:
        os.write(self._wake, b"x")

    def fileno(self) -> int:
        return self._ready

    def read(self) -> Sequence[Report]:
        self._reads += 1
        if self._reads == 1:
            return [Report(ROOT, Scope.TREE, content=False)] if Monitor.made > 1 else []
        if Monitor.made == 1:
            raise RuntimeError("a defect")
        return []

    def wake_s(self) -> float | None:
        return None

    def status(self) -> MonitorStatus:
        return MonitorStatus(0, 0, 0)

    def close(self) -> None:
        os.close(self._ready)
        os.close(self._wake)


def test_a_defect_in_a_callback_costs_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    (source / "file").write_text("content")
    monkeypatch.setattr(mirror, "build_monitor", lambda *_: (Monitor(), "for the test"))
    monkeypatch.setattr(kept, "backoff_s", lambda _: 0.0)
    monkeypatch.setattr(Monitor, "made", 0)
    spec = MirrorSpec(bytes(source), (TargetSpec(bytes(target)),), once=True)
    umask = os.umask(0o027)
    try:
        assert run.run_mirror(spec) == 0
    finally:
        assert os.umask(umask) == 0o027, "the caller's umask comes back"
    assert Monitor.made == 2
    assert (target / "file").read_text() == "content"
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["internal-error"]


def test_a_daemon_loads_little() -> None:
    """What takes long to load and is never used: each start would pay for it."""
    program = (
        "import sys, instep.daemon.run, instep.daemon.mirrors.kept, instep.engines.native.engine; print(*sys.modules)"
    )
    program += "; import ssl; ssl.create_default_context()"  # There for whoever wants it.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"ssl", "rich", "tempfile", "random", "argparse"} & set(done.stdout.split())
