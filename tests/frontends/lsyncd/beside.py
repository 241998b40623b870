"""One configuration under the distribution's lsyncd and under ours, row by row: what each of them ran, and left behind.

A row is a piece of a configuration with a directory of its own. All rows of a table run in one process on each side;
both sides see the same changes, step by step, and the next step is made when both have acted on the one before.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.frontends.lsyncd.conftest import Start
from tests.frontends.lsyncd.daemon import DEBIANS, OURS, Daemon
from tests.system.daemon_process import wait_until

Change = Callable[[Path], None]
Call = tuple[str, tuple[str, ...]]
"""A program, and its words."""

SETTLE_S = 60.0
"""What differs after so long is a difference."""

_RECORDER = """#!/bin/sh
set -C; at=$0.calls/$$
until : 2>/dev/null > "$at"; do at=${at}x; done
set +C; printf '%s\\0' "$@" > "$at"; cat > "$at.stdin"
exec PROGRAM "$@" < "$at.stdin"
"""
"""Notes the words and the standard input that it really gets, then becomes the program that it stands for."""

_LINE = re.compile(r"^\d\d:\d\d:\d\d ", re.MULTILINE)
_CLUSTER = re.compile(r"-[A-Za-z0-9]{2,}")


@dataclass(frozen=True)
class Row:
    """A piece of a configuration."""

    name: str
    text: str
    """Lua. ``@`` is the row's directory, ``WRAP`` the recording rsync, ``SSH`` the recording ssh, ``SIDE``
    the directory below what both sides have in common."""
    files: Mapping[str, str] = field(default_factory=dict)
    """What is in the row's directory beside the source; ``-> X`` is a link to X."""


@dataclass(frozen=True)
class Seen:
    """What one side did for one row."""

    calls: frozenset[Call]
    """The order of what has none, and how often a call was made, left out."""
    names: frozenset[str]
    """All that was on lists for rsync."""
    tree: Mapping[str, object]
    """What there is beside the source."""

    def unlike(self, other: Seen) -> dict[str, object]:
        """Of all that differs first what is here, then what is there."""
        found: dict[str, object] = {}
        if self.calls != other.calls:
            found["calls"] = (sorted(self.calls - other.calls), sorted(other.calls - self.calls))
        if self.names != other.names:
            found["names"] = (sorted(self.names - other.names), sorted(other.names - self.names))
        paths = sorted(self.tree.keys() | other.tree.keys())
        trees = {path: (self.tree.get(path), other.tree.get(path)) for path in paths}
        if apart := {path: both for path, both in trees.items() if both[0] != both[1]}:
            found["tree"] = apart
        return found


class Side:
    """One of the two programs at work on all rows."""

    def __init__(self, top: Path, program: Sequence[str], rows: Sequence[Row], plant: Change, ssh: str = "ssh") -> None:
        """Make the directories."""
        self.top = top
        self.program = program
        self.rows = rows
        self.daemon: Daemon
        self._parsed: tuple[int, list[str]] = (0, [])
        self._idle: tuple[int, str, list[str]] = (0, "", [])
        found = shutil.which(ssh)
        self._recorders = {"rsync": shutil.which("rsync"), "ssh": found}
        for name, recorded in self._recorders.items():
            (top / f"bin/note-{name}.calls").mkdir(parents=True)
            (top / f"bin/note-{name}").write_text(_RECORDER.replace("PROGRAM", str(recorded)))
            (top / f"bin/note-{name}").chmod(0o755)
        if found is not None:
            (top / "bin/ssh").symlink_to(found)  # the one that rsync finds
        for row in rows:
            (top / row.name / "s").mkdir(parents=True)
            plant(top / row.name / "s")
            for name, text in row.files.items():
                path = top / row.name / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if text.startswith("-> "):
                    path.symlink_to(text[3:])
                else:
                    path.write_text(text)

    def start(self, start: Start, head: str, *options: str) -> None:
        """Start the daemon, with all rows in its configuration."""
        texts = [head.replace("@", str(self.top))]
        for row in self.rows:
            text = row.text.replace("@", str(self.top / row.name))
            text = (
                text.replace("SIDE", f"{self.top.name}/{row.name}")
                .replace("WRAP", f"{self.top}/bin/note-rsync")
                .replace("SSH", f"{self.top}/bin/note-ssh")
            )
            texts.append(f"do {text} end")
        self.daemon = start(*options, config="\n".join(texts), program=self.program, top=self.top)

    def idle(self, name: str) -> list[str]:
        """The rows that have not run anything for this name."""
        entries = self._entries()
        size = self._parsed[0]
        if self._idle[:2] != (size, name):
            told = "".join(entry for entry in entries if _is_start(entry) and name in entry)
            rows = [row.name for row in self.rows if f"{self.top}/{row.name}/" not in told]
            self._idle = size, name, rows
        return self._idle[2]

    def rests(self) -> bool:
        """Whether all that was started has ended, and was made something of."""
        entries = self._entries()
        started = sum(map(_is_start, entries))
        return started == sum(entry.startswith("Delay: collected ") for entry in entries)

    def seen(self) -> dict[str, Seen]:
        """By row, what was done so far."""
        calls: dict[str, set[Call]] = {row.name: set() for row in self.rows}
        names: dict[str, set[str]] = {row.name: set() for row in self.rows}
        for program, words, text in (*self._recorded(), *self._told()):
            row = next((row for row in self.rows if any(f"{self.top}/{row.name}/" in word for word in words)), None)
            if row is None:
                continue
            normal = [_normal(word.replace(f"{self.top.name}/{row.name}/", "SIDE/")) for word in words]
            if "||" in normal:
                at = normal.index("mv")
                # The options of ssh have no order; what is done where a rename fails is said to differ.
                normal = [*sorted(normal[:at]), *normal[at : normal.index("||")]]
            if "--include-from=-" in normal:
                names[row.name] |= set(re.split("[\0\n]", text))
            elif text:
                normal += ["<", *sorted(text.split("\n"))]
            calls[row.name].add((program, tuple(normal)))
        return {
            row.name: Seen(frozenset(calls[row.name]), frozenset(names[row.name]), dict(_tree(self.top / row.name)))
            for row in self.rows
        }

    def _entries(self) -> list[str]:
        """The log's lines, those of several lines in one."""
        size = self.daemon.log.stat().st_size
        if size != self._parsed[0]:
            self._parsed = size, _LINE.split(self.daemon.text())
        return self._parsed[1]

    def _recorded(self) -> Iterator[tuple[str, list[str], str]]:
        for name in self._recorders:
            for path in (self.top / f"bin/note-{name}.calls").iterdir():
                if path.suffix != ".stdin":
                    words = path.read_text(errors="surrogateescape").split("\0")[:-1]
                    text = path.with_name(path.name + ".stdin")
                    yield name, words, text.read_text(errors="surrogateescape") if text.exists() else ""

    def _told(self) -> Iterator[tuple[str, list[str], str]]:
        """What the log says was run, but for what the recorder knows better."""
        for entry in self._entries():
            if _is_start(entry):
                # What the program prints may follow on the next lines.
                line = entry.removeprefix("Exec: ").rstrip("\n").partition("]\n")[0]
                program, _, rest = line.partition(" ")
                words = rest.removeprefix("[").removesuffix("]").split("] [") if rest else []
                text = ""
                if words[:1] == ["<"]:
                    text = words[1]
                    words = words[2:]
                if "/note-" not in program:
                    yield os.path.basename(program), words, text


def both(start: Start, top: Path, rows: Sequence[Row], *, plant: Change, head: str, ssh: str = "ssh") -> list[Side]:
    """Ours, then theirs, started."""
    assert DEBIANS is not None
    sides = [Side(top / "ours", OURS, rows, plant, ssh), Side(top / "theirs", (DEBIANS,), rows, plant, ssh)]
    for side in sides:
        side.start(start, head, "-log", "Exec", "-log", "Delay")
    for side in sides:
        # No initial sync begins before everything is watched.
        side.daemon.said("Delay: collected ")
        side.daemon.wait(side.rests, "the start")
    return sides


def step(sides: Sequence[Side], number: int, change: Change) -> None:
    """Make a change in every source; wait until it was acted on, and both sides rest."""
    name = f"end{number}"
    for side in sides:
        for row in side.rows:
            change(side.top / row.name / "s")
            # The last that happens: whoever has acted on it has acted on all before it.
            (side.top / row.name / "s" / name).mkdir()
    for side in sides:
        try:
            side.daemon.wait(lambda side=side: not side.idle(name) and side.rests(), f"step {number}")  # type: ignore[misc]  # bound now
        except AssertionError as error:
            raise AssertionError(f"idle: {side.idle(name)}; {error}") from None


def differences(sides: Sequence[Side]) -> dict[str, dict[str, object]]:
    """By row, what differs between the sides, once nothing changes any more; empty as soon as nothing does."""
    found: dict[str, dict[str, object]] = {}

    def same() -> bool:
        found.clear()
        ours, theirs = (side.seen() for side in sides)
        found.update({name: apart for name in ours if (apart := ours[name].unlike(theirs[name]))})
        return not found

    try:
        wait_until(same, "the same", SETTLE_S)
    except AssertionError:
        return found
    return {}


def _is_start(entry: str) -> bool:
    """Whether a line says that a program was started. What is said of a pipe may have any program's output behind it."""
    return entry.startswith("Exec: ") and not entry.startswith("Exec: one-sweeped pipe")


def _normal(word: str) -> str:
    """Without the order of letters, and what docs/lsyncd.md says differs: PATH, and no slash behind what is removed."""
    word = word.removeprefix("/bin/").replace(" /bin/", " ").replace("${1%/}", "$1")
    if word.startswith("--rsh="):
        word = " ".join(sorted(word.split()))
    if word.endswith("/") and "SIDE/t//" in word:
        word = word.removesuffix("/")
    return "-" + "".join(sorted(word[1:])) if _CLUSTER.fullmatch(word) else word


def _tree(top: Path) -> Iterator[tuple[str, object]]:
    for here, directories, files in os.walk(top):
        if here == str(top):
            directories.remove("s")
        for name in (*directories, *files):
            path = Path(here) / name
            below = str(path.relative_to(top))
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                yield below, f"-> {path.readlink()}".replace(str(top), "@")
            elif stat.S_ISDIR(status.st_mode):
                yield below, f"{status.st_mode:o}"
            else:
                source = top / "s" / path.relative_to(top / below.partition("/")[0])
                is_same_age = source.exists() and source.stat().st_mtime_ns == status.st_mtime_ns
                text = path.read_text(errors="surrogateescape").replace(str(top), "@")
                yield below, (text, f"{status.st_mode:o}", is_same_age)
