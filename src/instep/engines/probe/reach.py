"""Runs the examination where the target is: here, or on a host that ssh reaches, and takes down what comes back.

What comes back was written by the far side, which may be anybody's: it is read up to a bound, and every value is
checked for its kind before it is believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from instep.engines import ssh
from instep.engines.child import Stderr, end
from instep.engines.probe import far
from instep.errors import TargetAway

LIMIT_S = 60.0
"""For one examination; ssh itself gives up earlier on a host that does not answer."""

END_S = 5.0
"""So long ssh may take to end when all is said; then it is killed."""
SAID_S = 1.0
"""So long its last words are waited for once it has ended: what it has started may live on, and could say more."""
ERRORS_BYTES = 1 << 16

LINE_BYTES = 1 << 20
NOISE_LINES = 200
"""So much may a login's start-up files print before our own first line."""

PINGS = 5
_TEXT_MAX = 300

PYTHON = "python3 -I -S -c 'import sys;exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))'"
"""Quoted so that every login shell reads it alike. The length and the source follow on the standard input."""

SHELL = """\
echo instep-check-sh 1
target={target}
[ -n "$target" ] || target=.
said() {{ printf '%s\\t%s\\n' "$1" "$2"; }}
said user "$(id -un 2>/dev/null)"
said uid "$(id -u 2>/dev/null)"
said rsync "$(rsync --version 2>/dev/null | {{ read -r first; printf %s "$first"; }})"
place=$target
parent=${{target%/*}}
[ "$parent" != "$target" ] || parent=.
[ -n "$parent" ] || parent=/
if [ -d "$target" ]; then said directory there
elif [ -e "$target" ]; then said directory "no directory"; place=
elif [ -h "$target" ]; then said directory dangling; place=
elif [ -d "$parent" ]; then said directory missing; place=$parent
else said directory nowhere; place=; fi
if [ -n "$place" ]; then
    trial=$place/.instep-check-$$.tmp
    if words=$(mkdir "$trial" 2>&1); then
        said writable ""
        trap 'rm -rf "$trial"' 0
        : >"$trial/case"
        said case "$([ ! -e "$trial/CASE" ] || echo "'case' and 'CASE' are one file")"
        said "symbolic links" "$(ln -s anywhere "$trial/symlink" 2>&1)"
        said "hard links" "$(ln "$trial/case" "$trial/link" 2>&1)"
        said owners "$(chown 54321:54321 "$trial/case" 2>&1)"
    else
        said writable "${{words:-refused}}"
    fi
fi
echo end
"""
"""For a far side without Python: what a plain shell can tell. Its trial directory is gone when it ends."""


class NoPython(Exception):
    """The far side's shell did not run python3; the words it said."""


class Restricted(Exception):
    """The key only ever runs one command there, whatever is asked; what that said."""


@dataclass(slots=True)
class Facts:
    """What was found out; None where nobody could tell."""

    python: str = ""
    """Version; empty: none."""
    user: str = ""
    uid: int | None = None
    system: str = ""
    rsync: str = ""
    """The first line it says of itself; empty: none."""
    directory: str = ""
    """``there``, ``missing`` (its parent is there), ``nowhere``, ``no directory`` or ``dangling``; else unknown."""
    writable: str | None = None
    """Empty, or why nothing can be written."""
    read_only: bool = False
    file_system: str = ""
    free_bytes: int | None = None
    size_bytes: int | None = None
    free_inodes: int | None = None
    inodes: int | None = None
    trouble: str = ""
    abilities: dict[str, str] = field(default_factory=dict)
    """By name: empty, or why not."""
    connect_s: float | None = None
    """From the start of ssh to the first answer."""
    round_trip_s: float | None = None
    clock_s: float | None = None
    """How far the other clock is ahead of ours, give or take half a round trip."""


async def here(path: bytes) -> Facts:
    """Examine a directory of this machine."""
    return taken_down(await asyncio.to_thread(far.examine, os.fsdecode(path)))


async def over_ssh(words: Sequence[bytes], place: ssh.Place) -> Facts:
    """Examine a directory on another machine, by its python3.

    Raises:
        TargetAway: the host cannot be reached now.
        TargetError: it does not let us in.
        NoPython: there is no python3, or not one that can run this.
        Restricted: the key does not let us run anything.
    """
    async with asyncio.timeout(LIMIT_S):
        async with _Session(words, place, PYTHON) as session:
            return await _converse(session, place)


async def over_shell(words: Sequence[bytes], place: ssh.Place) -> Facts:
    """The same without Python, as far as a plain shell can tell. Raises as ``over_ssh`` does."""
    async with asyncio.timeout(LIMIT_S):
        async with _Session(words, place, "sh -s") as session:
            await session.send(
                SHELL.format(target=shlex.quote(os.fsdecode(place.path))).encode("utf-8", "surrogateescape")
            )
            await session.greeting(b"instep-check-sh 1")
            found: dict[str, str] = {}
            while (line := await session.line()) != b"end":
                name, _, value = line.decode("utf-8", "backslashreplace").partition("\t")
                found[name] = value
            trials = ("case", "symbolic links", "hard links", "owners")
            said: dict[str, object] = {**found, "abilities": {name: found[name] for name in trials if name in found}}
            if found.get("uid", "").isdecimal():
                said["uid"] = int(found["uid"])
            facts = taken_down(said)
            facts.connect_s = session.connect_s
            return facts


async def _converse(session: _Session, place: ssh.Place) -> Facts:
    source = inspect.getsource(far).encode() + b"\nserve(%s)\n" % ascii(os.fsdecode(place.path)).encode()
    await session.send(b"%d\n" % len(source) + source)
    await session.greeting(b"instep-check 1")
    best: tuple[float, float] | None = None
    for _ in range(PINGS):
        began_s, sent_s = time.time(), time.monotonic()
        await session.send(b"\n")
        there = await session.line()
        trip_s = time.monotonic() - sent_s
        with contextlib.suppress(ValueError):
            best = min(best or (trip_s, 0.0), (trip_s, float(there) - (began_s + trip_s / 2)))
    await session.send(b"examine\n")
    try:
        said = json.loads(await session.line())
    except ValueError as error:
        raise TargetAway(f"what came back is no answer: {error}") from error
    facts = taken_down(said)
    facts.connect_s = session.connect_s
    if best is not None:
        facts.round_trip_s, facts.clock_s = best
    return facts


class _Session:
    """One command on the far side, with lines in both directions."""

    def __init__(self, words: Sequence[bytes], place: ssh.Place, command: str) -> None:
        self._argv = [*ssh.command(words, port=place.port), b"--", place.host, command.encode()]
        self._host = place.host
        self.connect_s = 0.0

    async def __aenter__(self) -> Self:
        self._began_s = time.monotonic()
        self._errors = Stderr(ERRORS_BYTES)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=self._errors.write,
                limit=LINE_BYTES,
                start_new_session=True,
            )
        except BaseException:
            self._errors.close()
            raise
        self._errors.started()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            # Its temporary directory is removed by then; only the connection is being closed.
            await end(self._process, END_S, ask=False)
        finally:
            self._errors.close()

    async def send(self, data: bytes) -> None:
        """Write; what cannot be written any more is noticed when an answer is missing."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(data)
            await self._process.stdin.drain()

    async def line(self) -> bytes:
        """The next line, without its end."""
        assert self._process.stdout is not None
        try:
            line = await self._process.stdout.readline()
        except ValueError:  # longer than any that we send
            line = b""
        if not line.endswith(b"\n"):
            await self._ended()
        return line[:-1]

    async def greeting(self, words: bytes) -> None:
        """Skip what a login prints, up to our own first line."""
        for _ in range(NOISE_LINES):
            line = await self.line()
            if line == words:
                self.connect_s = time.monotonic() - self._began_s
                return
            if b"instep-agent" in line:
                raise Restricted("instep agent")
        raise TargetAway(f"the login at {os.fsdecode(self._host)} prints without end")

    async def _ended(self) -> None:
        """The far side said no more: why."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = await self._process.wait()
        stderr = await self._errors.said(SAID_S)
        words = ssh.said(stderr)
        if status == ssh.OWN_FAILURE:
            raise ssh.failure(self._host, status, stderr)
        # The shell's own words for a program that is not there, or cannot be run.
        if status in (126, 127) or b"SyntaxError" in stderr or b"ImportError" in stderr:
            raise NoPython(words or "python3: not found")
        raise Restricted(words or f"exit status {status}")


def taken_down(said: object) -> Facts:
    """Believe of an answer what has the right kind and a sensible size."""
    facts = Facts()
    if not isinstance(said, dict):
        facts.trouble = "what came back is no answer"
        return facts
    for name in ("python", "user", "system", "rsync", "directory", "file_system", "trouble"):
        setattr(facts, name, _text(said.get(name)) or "")
    facts.writable = _text(said.get("writable"))
    facts.read_only = said.get("read_only") is True
    for name in ("uid", "free_bytes", "size_bytes", "free_inodes", "inodes"):
        value = said.get(name)
        if isinstance(value, int) and 0 <= value < 2**64:
            setattr(facts, name, value)
    abilities = said.get("abilities")
    if isinstance(abilities, dict):
        known = [name for name in far.ABILITIES if name in abilities]
        facts.abilities = {name: words for name in known if (words := _text(abilities[name])) is not None}
    return facts


def _text(value: object) -> str | None:
    return value[:_TEXT_MAX] if isinstance(value, str) else None
