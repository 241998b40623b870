"""The original clsync, where it is installed; and handlers that write down what they are told, for it and for ours."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.system.daemon_process import DEADLINE_S, wait_until

CLSYNC = "/usr/bin/clsync"
"""clsync itself, not what stands in for it."""
TRIES = 5
"""It crashes now and then, and loses a race now and then; what is compared is what it does else. Ours gets one try."""


@functools.cache
def is_installed() -> bool:
    """Whether it is here, in the version that is known."""
    if shutil.which(CLSYNC) is None:
        return False
    return "0.4.5" in subprocess.run([CLSYNC, "-V"], check=False, capture_output=True, text=True).stderr


needs_clsync = pytest.mark.skipif(not is_installed(), reason="the original clsync 0.4.5 is not installed")

# ---- what a handler is told ----

# Writes down how it was started, with copies of the lists that it was given; its number comes last, in one piece.
_RECORDER = r"""#!/bin/sh
printf '%s\0' "$CLSYNC_STATUS" "${CLSYNC_ITERATION-unset}" "$@" > "RECORD/$$.run"
for word; do
    case $word in
        *.clsync-list.*) cp "${word##*=}" "RECORD/$$.list" ;;
        *.clsync-exclist.*) cp "${word##*=}" "RECORD/$$.exclist" ;;
    esac
done
echo $$ >> RECORD/order
"""
_LIST = re.compile(rb"[^=]*/\.clsync-(list|exclist)\.[0-9.]+$")


class Run(NamedTuple):
    """One run of a handler."""

    status: bytes
    """``CLSYNC_STATUS``."""
    iteration: bytes
    """``CLSYNC_ITERATION``, or ``unset``."""
    arguments: list[bytes]
    """A list file is ``LIST`` or ``EXCLIST``, whatever stands before it in the same word."""
    lists: dict[str, list[bytes]]
    """The lines of ``list`` and ``exclist``, as they stand."""


def list_named(argument: bytes) -> str:
    """Of which kind the list file in an argument is; empty: there is none."""
    found = _LIST.search(argument)
    return found[1].decode() if found else ""


def without_list(argument: bytes) -> bytes:
    """An argument as ``Run`` has it."""
    return _LIST.sub(lambda found: found[1].upper(), argument)


class Record:
    """What handlers have written down, in the order of their ends."""

    def __init__(self, directory: Path) -> None:
        """The directory is there; nothing is read yet."""
        self.directory = directory
        self._runs: list[Run] = []

    def handler(self, path: Path, then: str = "") -> Path:
        """Make a handler that writes down, and then does this, in shell; its file is only ever seen whole."""
        path.write_text(_RECORDER.replace("RECORD", str(self.directory)) + then + "\n")
        path.chmod(0o755)
        return path

    def numbers(self) -> list[str]:
        """The process numbers of all that have ended."""
        order = self.directory / "order"
        return order.read_text().split("\n")[:-1] if order.exists() else []

    def runs(self) -> list[Run]:
        """All of them up to now."""
        self._runs += [self._run(number) for number in self.numbers()[len(self._runs) :]]
        return self._runs.copy()

    def _run(self, number: str) -> Run:
        status, iteration, *words = (self.directory / f"{number}.run").read_bytes().split(b"\0")[:-1]
        kinds = [kind for word in words if (kind := list_named(word))]
        lists = {kind: (self.directory / f"{number}.{kind}").read_bytes().split(b"\n")[:-1] for kind in kinds}
        return Run(status, iteration, [without_list(word) for word in words], lists)


# ---- running it ----


def initial(directory: Path, tree: Path, options: Sequence[str], arguments: Sequence[str] = ()) -> list[Run]:
    """What it does for its initial sync; the handler and its record are made in the directory. Lists are sorted."""
    for attempt in range(TRIES):
        place = directory / f"record{attempt}"
        place.mkdir()
        record = Record(place)
        status = exit_status(directory, tree, options, arguments, handler=record.handler(directory / "handler"))
        if status >= 0:
            assert status == 0, (options, arguments, status)
            return [
                run._replace(lists={kind: sorted(lines) for kind, lines in run.lists.items()}) for run in record.runs()
            ]
    raise AssertionError("it crashed each time", options, arguments)


def exit_status(
    directory: Path,
    tree: Path,
    options: Sequence[str],
    arguments: Sequence[str] = (),
    *,
    handler: Path = Path("/bin/true"),
) -> int:
    """How it ends after its initial sync; less than 0 for a signal."""
    ids = [f"-u{os.geteuid()}", f"-g{os.getegid()}"]
    command = [CLSYNC, "-H/NULL/", *ids, f"-W{tree}", f"-S{handler}", "--only-initialsync"]
    return subprocess.run(
        [*command, *options, *(["--", *arguments] if arguments else [])],
        check=False,
        capture_output=True,
        timeout=60,
        cwd=directory,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(directory)},
    ).returncode


@contextlib.contextmanager
def listening() -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """It runs on an empty tree: its control socket, and its process."""
    with tempfile.TemporaryDirectory(prefix="instep-test-") as name:
        top = Path(name)
        (top / "w").mkdir()
        words = [CLSYNC, "-H", "/NULL/", "-W", str(top / "w"), "-Mshell", "-S", "/bin/true", "--skip-initialsync"]
        words += ["-s", str(top / "sock"), "-l", "lab", f"-u{os.getuid()}", f"-g{os.getgid()}"]
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        try:
            wait_until(lambda: _accepts(top / "sock") or process.poll() is not None, "clsync's control socket")
            yield top / "sock", process
        finally:
            process.kill()
            process.wait()


def _accepts(path: Path) -> bool:
    """Whether somebody listens; one of the eight connections that it has. It dies if its greeting is not read."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE_S)
        try:
            client.connect(bytes(path))
        except OSError:
            return False
        return client.recv(100).endswith(b"\n")
