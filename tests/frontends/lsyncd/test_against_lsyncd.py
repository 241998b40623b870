"""The same configuration under the distribution's lsyncd and under ours: the trees and the words agree."""

from __future__ import annotations

import ast
import os
import subprocess
from pathlib import Path

import pytest

from tests.frontends.lsyncd.conftest import Start
from tests.frontends.lsyncd.daemon import DEBIANS, OURS, Daemon, wrapper
from tests.system.sshd import Sshd

pytestmark = pytest.mark.skipif(DEBIANS is None, reason="needs lsyncd")

CONFIG = """
settings{ nodaemon=true }
sync{ default.rsync, source="@/s", target="@/t", delay=1, exclude={ "*.o" },
    rsync={ binary="@/bin/wrap", archive=true, bwlimit=100000, _extra={ "--omit-dir-times" } } }
sync{ default.direct, source="@/s", target="@/d", delay=1, exclude={ "*.o" } }
sync{ source="@/s", target="@/l/", delay=0.2, maxProcesses=1,
    onCreate="/bin/sh @/note C ^pathname ^pathdir ^sourcePath ^targetPathdir",
    onModify="echo M ^pathname >> @/shell", onDelete="echo D ^path >> @/shell", onMove="echo V ^o.path ^d.path >> @/shell" }
"""


LINES: list[set[str]] = [
    {"C n  @/s//n/ @/l//", "C n/m/z n/m/ @/s//n/m/z @/l//n/m/", "C it's a \"name\" $x  @/s//it's a \"name\" $x @/l//",
     "M it's a \"name\" $x"},
    {"V n/ k/", "V a aa"},
    {"D k/m/z", "D k/m/", "D k/", "D d/b"},
]  # fmt: skip


def prepare(top: Path) -> None:
    (top / "s/d").mkdir(parents=True)
    (top / "s/a").write_text("a")
    (top / "s/d/b").write_text("b")
    (top / "s/x.o").write_text("o")
    (top / "note").write_text(f'echo "$@" >> {top}/words\n')
    wrapper(top / "bin/wrap", top / "calls")


def change(daemons: list[tuple[Daemon, Path]], step: int) -> None:
    for _, top in daemons:
        source = top / "s"
        match step:
            case 0:
                (source / "n/m").mkdir(parents=True)
                (source / "n/m/z").write_text("z")
                (source / "y.o").write_text("o")
                (source / 'it\'s a "name" $x').write_text("q")
            case 1:
                (source / "n").rename(source / "k")
                (source / "a").rename(source / "aa")
            case 2:
                subprocess.run(["rm", "-r", source / "k"], check=True)
                (source / "d/b").unlink()


def listing(top: Path) -> dict[str, object]:
    found: dict[str, object] = {}
    for path in top.rglob("*"):
        found[str(path.relative_to(top))] = path.read_bytes() if path.is_file() else None
    return found


def expected(top: Path) -> dict[str, object]:
    return {name: value for name, value in listing(top / "s").items() if not name.endswith(".o")}


def words_of_rsync(top: Path) -> tuple[list[object], set[str]]:
    """Each distinct call, without the order of letters; and all names that were listed."""
    seen: list[object] = []
    names: set[str] = set()
    for line in (top / "calls").read_text().splitlines():
        argv, text = ast.literal_eval(line)
        normal = ["".join(sorted(word)) if word[0] == "-" != word[1] else word.replace(str(top), "@") for word in argv]
        if normal not in seen:
            seen.append(normal)
        if "--include-from=-" in argv:
            names |= {os.fsdecode(name) for name in text.split(b"\0")}
    return seen, names


def test_trees_and_words_agree(start: Start, tmp_path: Path) -> None:
    assert DEBIANS is not None
    daemons = []
    for name, program in (("ours", OURS), ("theirs", (DEBIANS,))):
        top = tmp_path / name
        top.mkdir()
        prepare(top)
        daemons.append((start(config=CONFIG, program=program, top=top), top))
    for daemon, top in daemons:
        daemon.wait(lambda top=top: listing(top / "t") == expected(top) == listing(top / "d"), "the start")  # type: ignore[misc]  # bound now
        daemon.said("Startup of ", 2)
    for step, lines in enumerate(LINES):
        # Both see the same changes within one delay, and are at rest before the next: what is still being acted on
        # makes two events of a rename.
        change(daemons, step)
        for daemon, top in daemons:
            daemon.wait(lambda top=top: listing(top / "t") == expected(top) == listing(top / "d"), f"step {step}")  # type: ignore[misc]  # bound now
            daemon.wait(lambda top=top, lines=lines: lines <= told(top), f"{lines} of step {step}")  # type: ignore[misc]  # bound now
    (ours, here), (theirs, there) = daemons
    (calls, names), (their_calls, their_names) = words_of_rsync(here), words_of_rsync(there)
    assert calls == their_calls
    assert names == their_names
    assert told(here) == told(there)
    assert (ours.stop(), theirs.stop()) == (143, 143)


FAR = """
settings{ nodaemon=true }
sync{ default.rsyncssh, source="@/s", host="there", targetdir="@/t", delay=0.5, filter={ "+ /keep.o", "- *.o" },
    rsync={ compress=true }, ssh={ binary="@/bin/ssh", options={ BatchMode="yes" }, port=PORT } }
"""


def moves(top: Path) -> list[str]:
    """The renames that were made there, up to what is done if one fails."""
    lines = (top / "calls").read_text().replace(str(top), "@").splitlines()
    return [line.partition(" ||")[0] for line in lines if " mv " in line]


def test_far_trees_and_renames_agree(start: Start, tmp_path: Path, server: Sshd) -> None:
    assert DEBIANS is not None
    daemons = []
    for name, program in (("ours", OURS), ("theirs", (DEBIANS,))):
        top = tmp_path / name
        top.mkdir()
        prepare(top)
        (top / "s/keep.o").write_text("kept")
        ssh = top / "bin/ssh"
        ssh.write_text(f'#!/bin/sh\necho "$*" >> {top}/calls\nexec {server.programs}/ssh "$@"\n')
        ssh.chmod(0o755)
        config = FAR.replace("PORT", str(server.port))
        daemons.append((start(config=config, program=program, top=top), top))
    for daemon, _ in daemons:
        daemon.said("finished: 0")
    for step in range(len(LINES)):
        change(daemons, step)
        for daemon, top in daemons:
            there = {**expected(top), "keep.o": b"kept"}
            daemon.wait(lambda top=top, there=there: listing(top / "t") == there, f"step {step}")  # type: ignore[misc]  # bound now
            # Until the list is done with, a rename of what is on it is another story.
            daemon.wait(lambda daemon=daemon: rests(daemon), "rest")  # type: ignore[misc]  # as above
    (ours, here), (theirs, there_too) = daemons
    assert sorted(moves(here)) == sorted(moves(there_too))
    assert len(moves(here)) == 2
    assert (ours.stop(), theirs.stop()) == (143, 143)


def rests(daemon: Daemon) -> bool:
    text = daemon.text()
    return text.count("Calling rsync") == text.count("Finished (list)") and text.count("Moving ") == text.count(
        "Finished Move"
    )


def told(top: Path) -> set[str]:
    """What the commands noted. Whether a file in a new directory is also seen being written is a matter of luck."""
    texts = [(top / name).read_text() for name in ("words", "shell") if (top / name).exists()]
    return {line for line in "".join(texts).replace(str(top), "@").splitlines() if not line.startswith("M n/")}
