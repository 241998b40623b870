"""Fixtures of the tests that run lsyncd as a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.frontends.lsyncd.daemon import OURS, Daemon
from tests.system.sshd import Sshd, why_unavailable

Start = Callable[..., Daemon]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts daemons in the test's directory; all are killed afterwards. A text with a line end is a configuration."""
    pytest.importorskip("lupa")
    running: list[Daemon] = []

    def begin(*words: str, config: str = "", program: Sequence[str] = OURS, top: Path = tmp_path) -> Daemon:
        name = f"log{len(running)}"
        if config:
            (top / f"{name}.lua").write_text(config.replace("@", str(top)))
            words = (*words, str(top / f"{name}.lua"))
        daemon = Daemon(top, words, program=program, name=name)
        running.append(daemon)
        return daemon

    yield begin
    for daemon in running:
        daemon.kill()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source with something in it."""
    path = tmp_path / "s"
    (path / "d").mkdir(parents=True)
    (path / "a").write_text("a")
    (path / "d/b").write_text("b")
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    """A real sshd, that the daemon's ``ssh`` reaches as the hosts there, there2 …"""
    if (reason := why_unavailable()) is not None:
        pytest.skip(reason)
    server = Sshd(tmp_path / "sshd")
    try:
        server.start()
        (tmp_path / "bin").symlink_to(server.programs)
        yield server
    finally:
        server.close()
