"""A far host for the rows: a real sshd on loopback, reached directly or over a delaying wire; and tools that use it.

ssh is taken as it comes (default key exchange), with keys and an empty home of its own. A kept connection, for the
peers that are given one, is a master started before and used by all. With rsyncssh, lsyncd says ``Startup of …
finished: 0`` after its first rsync.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import median, wait_until
from benchmarks.peers import INSTEP, LSYNCD, DidNotStart, Tool
from tests.system.proxy import Proxy
from tests.system.sshd import HOST, Sshd, end_with_parent, serving, why_unavailable

LSYNCD_KEPT = "lsyncd, kept ssh"


class Host:
    """The far side, which is this machine: its paths are ours."""

    def __init__(self, sshd: Sshd) -> None:
        self.sshd = sshd
        self.name = HOST
        self.proxy: Proxy | None = None
        self._packages = ""

    def offer(self, packages: str) -> None:
        """From now on python3 has these packages there, and so has instep here."""
        self._packages = packages
        python = self.sshd.base / "far/python3"
        real = os.path.realpath(python)
        python.unlink()
        # The agent is started with -S -E, as it has to be where nothing is known of the far side.
        python.write_text(f'#!/bin/sh\nshift 2\nPYTHONPATH={shlex.quote(packages)} exec {real} -S "$@"\n')
        python.chmod(0o755)

    def at_a_distance(self, one_way_s: float) -> None:
        """From now on reach it over a wire that takes so long, and counts."""
        self.name = "distant"
        self.proxy = self.sshd.proxy(self.name)
        if one_way_s:
            self.proxy.delay(_delay_for(self.proxy, self.sshd.port, one_way_s))

    def wire_bytes(self) -> int:
        """What went over the wire so far, both ways."""
        assert self.proxy is not None
        up, down, _ = self.proxy.counts()
        return up + down

    def instep(self, *options: str, number: str = "") -> Tool:
        """Ours with far targets; ``number`` and the target's index make each a host of its own."""

        def argv(source: str, targets: Sequence[str]) -> list[str]:
            plain = INSTEP.argv(
                source, [f"{self.name}{number and f'{number}{index}'}:{each}" for index, each in enumerate(targets)]
            )
            at = plain.index("mirror") + 1
            argv = [*plain[:at], "--ssh", self.sshd.ssh, *options, *plain[at:]]
            if self._packages:
                known = os.environ.get("PYTHONPATH")
                argv = ["env", f"PYTHONPATH={self._packages}" + (f":{known}" if known else ""), *argv]
            return argv

        return Tool(INSTEP.name, argv, INSTEP.ready)

    def lsyncd(self, *, kept: Path | None = None) -> Tool:
        """The rsyncssh of lsyncd at its shortest delay; with the ``ssh`` of a kept connection, or its own each time."""

        def argv(source: str, targets: Sequence[str]) -> list[str]:
            path = f"PATH={kept or self.sshd.programs}:{os.environ['PATH']}"
            return [
                *("env", path, "lsyncd", "-nodaemon", "-delay", "0", "-rsyncssh"),
                *(source, self.name, targets[0]),
            ]

        return Tool(LSYNCD_KEPT if kept else LSYNCD.name, argv, b"finished: 0", LSYNCD.patience_s)

    @contextlib.contextmanager
    def kept(self) -> Iterator[Path]:
        """A logged-in connection, as a directory with an ``ssh`` that goes over it."""
        with tempfile.TemporaryDirectory(prefix="instep-bench-", dir="/tmp") as place:
            socket = f"{place}/s"
            base = [*shlex.split(self.sshd.ssh), "-o", f"ControlPath={socket}"]
            master = subprocess.Popen(
                [*base, "-M", "-N", self.name],
                stdin=subprocess.DEVNULL,
                preexec_fn=end_with_parent,  # noqa: PLW1509  # it takes no lock
            )
            try:
                if wait_until(lambda: os.path.exists(socket), 30) == float("inf"):
                    raise DidNotStart("ssh is not logged in")
                program = Path(place) / "ssh"
                program.write_text(
                    f'#!/bin/sh\nexec {shlex.join([shutil.which(base[0]) or base[0], *base[1:]])} "$@"\n'
                )
                program.chmod(0o755)
                yield Path(place)
            finally:
                master.terminate()
                master.wait(20)


def _delay_for(proxy: Proxy, upstream: int, one_way_s: float) -> float:
    """What to ask of the proxy for an echo to take two such ways longer over it: it takes some time of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_echo, args=(listener,), daemon=True).start()
    with listener:
        port = listener.getsockname()[1]
        direct_s = _round_trip_s(port)
        proxy.upstream(port)
        proxy.delay(one_way_s)
        own_s = (_round_trip_s(proxy.port) - direct_s) / 2 - one_way_s
        proxy.upstream(upstream)
    return one_way_s - own_s


def _echo(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)


def _round_trip_s(port: int) -> float:
    """The median of what a few bytes take to there and back, each after a pause as there is between changes."""
    took: list[float] = []
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(40):
            time.sleep(0.05)
            begin_s = time.monotonic()
            connection.sendall(b"x" * 100)
            connection.recv(4096)
            took.append(time.monotonic() - begin_s)
    return median(took)


@contextlib.contextmanager
def far_host() -> Iterator[Host]:
    """A host for one row.

    Raises:
        DidNotStart: there is no sshd to be had.
    """
    if (missing := why_unavailable()) is not None:
        raise DidNotStart(missing)
    with (
        tempfile.TemporaryDirectory(prefix="instep-bench-", dir="/tmp") as base,
        serving(Path(base) / "sshd", quick=False) as sshd,
    ):
        yield Host(sshd)
