"""The original clsync, where it is installed: what it starts, with which arguments and lists, for a tree as it stands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

CLSYNC = "/usr/bin/clsync"

needs_clsync = pytest.mark.skipif(
    shutil.which(CLSYNC) is None
    or "0.4.5" not in subprocess.run([CLSYNC, "-V"], check=False, capture_output=True, text=True).stderr,
    reason="the original clsync 0.4.5 is not installed",
)

# Each run is written as one line of NUL-separated words in hex; the lists that it names are copied beside it.
RECORDER = rb"""#!/bin/sh
number=$(ls "RECORD" | grep -c '^run')
{
    printf '%s\0' "$CLSYNC_STATUS" "${CLSYNC_ITERATION-unset}" "$(pwd)" "$@"
} > "RECORD/run.$(printf %06d "$number")"
for word; do
    file=${word##*=}
    case $file in
        *.clsync-*list.*) cp "$file" "RECORD/file.$(printf %06d "$number").${file##*/}" ;;
    esac
done
"""


class Started(NamedTuple):
    """One run of the handler."""

    status: bytes
    iteration: bytes
    directory: bytes
    arguments: list[bytes]
    """Paths of list files come down to ``LIST`` and ``EXCLIST``."""
    lists: list[list[bytes]]
    """The lines of each, sorted, in the order of the arguments."""


def recorder(directory: Path) -> tuple[Path, Path]:
    """A handler that writes down how it is started, and where."""
    record = directory / "record"
    record.mkdir()
    handler = directory / "handler"
    handler.write_bytes(RECORDER.replace(b"RECORD", os.fsencode(record)))
    handler.chmod(0o755)
    return handler, record


def started(record: Path) -> list[Started]:
    """What was written down."""
    found = []
    for run in sorted(record.glob("run.*")):
        status, iteration, directory, *arguments = run.read_bytes().split(b"\0")[:-1]
        plain, lists = [], []
        for argument in arguments:
            name = re.search(rb"[^=]*/(\.clsync-(list|exclist)\.[0-9.]+)$", argument)
            if name:
                lists.append(sorted((record / f"file{run.suffix}.{name[1].decode()}").read_bytes().split(b"\n")[:-1]))
            plain.append(argument[: name.start()] + name[2].upper() if name else argument)
        found.append(Started(status, iteration, directory, plain, lists))
    return found


TRIES = 5
"""The original crashes now and then where it does not always."""


def initial(directory: Path, tree: Path, options: Sequence[str], arguments: Sequence[str] = ()) -> list[Started]:
    """What the original does for its initial sync."""
    handler, record = recorder(directory)
    tries, status = 0, -1
    while status < 0 and tries < TRIES:
        tries += 1
        for left in record.iterdir():
            left.unlink()
        status = exit_status(directory, tree, options, arguments, handler=handler)
    assert status == 0, (options, arguments, status)
    return started(record)


def exit_status(
    directory: Path,
    tree: Path,
    options: Sequence[str],
    arguments: Sequence[str] = (),
    *,
    handler: Path = Path("/bin/true"),
) -> int:
    """How the original ends after its initial sync."""
    command = [
        CLSYNC,
        "-H/NULL/",
        f"-u{os.geteuid()}",
        f"-g{os.getegid()}",
        f"-W{tree}",
        f"-S{handler}",
        "--only-initialsync",
    ]
    return subprocess.run(
        [*command, *options, *(["--", *arguments] if arguments else [])],
        check=False,
        capture_output=True,
        timeout=60,
        cwd=directory,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(directory)},
    ).returncode
