"""The same command lines for the original and for this one: the same exit status and arguments, or a listed difference."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from instep.frontends.clsync import diskchecks
from instep.frontends.clsync.complaints import Refused
from instep.frontends.clsync.read import Answer, read
from instep.frontends.clsync.settings import Settings
from instep.frontends.clsync.templates import Arguments
from tests.original_clsync import CLSYNC, TRIES, needs_clsync

pytestmark = needs_clsync

SHOW = b"""#!/bin/sh
for word; do printf '%s\\0' "$word"; done >> "${0%/*}/shown"
"""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("desk")
    for name in ("src", "dst", "a:b", "open"):
        (tmp_path / name).mkdir()
    (tmp_path / "open").chmod(0o755)
    (tmp_path / "file").touch()
    (tmp_path / "conf").write_text(
        "[default]\nlabel = conf  \nconfig-block-inherits = base\n-- = mine\n[base]\nretries = 2\n-- = no\n"
    )
    (tmp_path / "bad.conf").write_text("label = x\n")
    (tmp_path / "odd.conf").write_text("[default]\nsyslog = 1\n\nlabel = x\nlabel=y\r\n  # c\nexit-hook =\n")
    (tmp_path / "yes.conf").write_text("[default]\nbackground = yes\n")
    for name, content, mode in (("show", SHOW, 0o755), ("m.so", b"", 0o775)):
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(mode)
    return tmp_path


def environ(desk: Path) -> dict[bytes, bytes]:
    return {b"PATH": b"/usr/bin:/bin", b"HOME": bytes(desk), b"TMPDIR": bytes(desk)}


def theirs(desk: Path, argv: Sequence[str], tries: int = TRIES) -> int:
    ended = subprocess.run(
        ["timeout", "20", CLSYNC, *argv], check=False, cwd=desk, env=environ(desk), capture_output=True, timeout=60
    )
    if ended.returncode < 0 and tries > 1:
        return theirs(desk, argv, tries - 1)
    assert ended.returncode != 124, "it follows"
    return ended.returncode


def ours(desk: Path, argv: Sequence[str]) -> int | Settings:
    try:
        found = read([os.fsencode(word) for word in argv], environ(desk), bytes(desk), 7)
    except Refused as refusal:
        return refusal.status
    if isinstance(found, Answer):
        return found.status
    complaints = diskchecks.complaints(found.settings, writer=os.geteuid())
    return complaints[-1].status if complaints else found.settings


IDS = f"-u{os.geteuid()} -g{os.getegid()} -H/NULL/"
ONCE = f"{IDS} -Msimple -S./show -Wsrc --only-initialsync"
SHELL = f"{IDS} -Mshell -S/bin/true -Wsrc"
CRASH, TAKEN = 139, 0


def as_root(line: str) -> object:
    """Without root the original stumbles over its rights first."""
    marks = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root: to drop its rights")]
    return pytest.param(line, marks=marks)


@pytest.mark.parametrize(
    "line",
    [
        "", "-Z", "--nothing", "-W", "--watch-dir", "--exit-on", "--delay-col=1", "--watch-di", "---", "-V", "--version",
        "-Vx", f"{IDS} -Wsrc", f"{IDS} -Wsrc -Mshell", f"{IDS} -Wsrc -Mso", f"{IDS} -Mdirect -Ddst", "-Wsrc -Mfoo",
        "-Wsrc -MSIMPLE", "-Wsrc -M=simple", "-Wsrc -dd", "-Wsrc -t1.5", "-Wsrc -tabc", "-Wsrc -t99999999999999999999",
        "-Wsrc -pfoo", "-Wsrc -p1", "-Wsrc -Yfoo", "-Wsrc --pivot-root=foo", "-Wsrc --detach-network=1",
        "-Wsrc --monitor=foo", "-Wsrc --monitor=kqueue", "-Wsrc --monitor=bsm", as_root("-Wsrc -unosuchuser"), as_root("-Wsrc -gnosuchgroup"),
        "-Wsrc --custom-signals=foo", "-Wsrc --custom-signals=600:a", "-Wsrc -x5,foo",
        f"{SHELL} --socket=s --socket-own=nosuchuser", f"{SHELL} --socket=s --socket-mod=9",
        f"{SHELL} --socket=s --socket-auth=foo", f"{SHELL} --socket-own=root", f"{SHELL} --socket-mod=600",
        f"{SHELL} --socket-auth=null", as_root(f"{SHELL} --pivot-root=auto"), f"{SHELL} -Msimple --standby-file=x",
        f"{SHELL} -psafe --only-initialsync", f"{SHELL} -pfull --exit-on-no-events", f"{SHELL} -psafe --max-iterations=3",
        f"{SHELL} -psafe --pre-exit-hook=/bin/true", f"{SHELL} --skip-initialsync --only-initialsync",
        f"{SHELL} --skip-initialsync --exit-on-no-events", f"{SHELL} --skip-initialsync -F",
        f"{SHELL} --only-initialsync --exit-on-no-events", f"{SHELL} --modification-signature=* --cancel-syscalls=mon_stat",
        f"{SHELL} -Mrsyncshell --have-recursive-sync", as_root(f"{SHELL} -Mrsyncshell --synclist-simplify -L/nonexistent"),
        f"{SHELL} --synclist-simplify", f"{SHELL} -Mdirect -Ddst --check-execvp-arguments",
        f"{IDS} -Wsrc -Mrsyncdirect", f"{IDS} -Wsrc -Mdirect -D/", f"{IDS} -Wsrc -Mdirect -D//", f"{IDS} -Wsrc -Mdirect -Dmissing",
        f"{IDS} -Wmissing -Mdirect -Ddst", f"{IDS} -Wfile -Mdirect -Ddst", f"{SHELL} --exit-hook=/nonexistent",
        f"{SHELL} --exit-hook=/etc/passwd", f"{SHELL} -L../open", f"{IDS} -Mso -Wsrc -Smissing.so", f"{IDS} -Mso -Wsrc -S./m.so",
        f"{IDS} -Mso -Wsrc -Ssrc", "-Wsrc -Hmissing", "-Wsrc -Hbad.conf", "-Wsrc -Hyes.conf", "-Wsrc -q -Mfoo",
        f"{ONCE} -d5 -v0 --background=0 -b0", f"{ONCE} -t -w1 -T010", f"{ONCE} -t0x10", f"{ONCE} -x23,24 -x0",
        f"{ONCE} --exit-on-sync-skip", f"{ONCE} -Da:b", f"{ONCE} -Duser@host:/p", f"{ONCE} -Drsync://h/m",
        f"{ONCE} --cancel-syscalls=foo --modification-signature=foo", f"{ONCE} -Hodd.conf", f"{ONCE} -Hodd.conf -Kmissing",
        f"{ONCE} --shm-mprotect=0 --permit-mprotect --fts-experimental-optimization",
    ],
    ids=lambda line: line.replace(IDS, "IDS") or "nothing",
)  # fmt: skip
def test_the_same_end(desk: Path, line: str) -> None:
    argv = line.split()
    found = ours(desk, argv)
    assert (TAKEN if isinstance(found, Settings) else found) == theirs(desk, argv)


@pytest.mark.parametrize(
    ("line", "original", "here"),
    [
        # Help is what was asked for.
        ("-h", 22, 0),
        ("--help", 22, 0),
        # 14 says that there is no directory to watch, and nothing else.
        ("-Mfoo", 14, 22),
        ("-dd", 14, 22),
        ("-Hmissing", 14, 255),
        # B-27: values that crash it; and numbers that cannot be meant.
        ("-Wsrc -C FOO", CRASH, 22),
        ("-Wsrc --inherit-capabilities", CRASH, 22),
        (f"{ONCE} -r-1", TAKEN, 22),
        (f"{ONCE} -x300", TAKEN, 22),
        (f"{ONCE} --custom-signals=9:a", TAKEN, 22),
        # A quote that is not closed stops it from reading the options behind it, but not from going on.
        (f"{ONCE} ----='a", TAKEN, 22),
        # B-14: the root directory as the destination of a copy.
        (f"{IDS} -Mdirect -S./show -Wsrc --only-initialsync", TAKEN, 22),
        (f"{ONCE} -- %destination-dir%", TAKEN, 22),
        # B-16: what is wrong is told before it goes into the background.
        (f"{IDS} -b -Wsrc", TAKEN, 22),
        # A handler that is not there, before the first run in the place of after it.
        (f"{ONCE} -S/nonexistent", 255, 2),
        # Destinations that are not needed, or that rsync understands.
        (f"{IDS} -Wsrc -Mrsyncdirect -S./show --only-initialsync -- %RSYNC-ARGS% /a/ /b/", 22, TAKEN),
        (f"{IDS} -Wsrc -Mrsyncdirect -S./show --only-initialsync -Dhost:/p", 2, TAKEN),
        # Options and values that only other builds of it have.
        (f"{SHELL} --splitting=process", 22, TAKEN),
        (f"{SHELL} --secure-splitting", 22, TAKEN),
        (f"{SHELL} --seccomp-filter=0 --forbid-devices=0", 22, TAKEN),
        (f"{SHELL} --cgroup-group-name=x", 22, TAKEN),
        (f"{SHELL} --cluster-iface=eth0 -m1 -P1 -G1 -n1 -o1 -O1", 22, TAKEN),
        (f"{SHELL} -A", 22, TAKEN),
        (f"{SHELL} --monitor=fanotify", 22, TAKEN),
    ],
    ids=lambda each: each.replace(IDS, "IDS") if isinstance(each, str) else str(each),
)  # fmt: skip
def test_another_end(desk: Path, line: str, original: int, here: int) -> None:
    argv = line.split()
    found = ours(desk, argv)
    assert (TAKEN if isinstance(found, Settings) else found) == here
    status = theirs(desk, argv)
    assert (128 - status if status < 0 else status) == original


def argument_case(*argv: str, original: Sequence[str] | None = None) -> object:
    return pytest.param(argv, original, id=" ".join(argv).replace("\t", r"\t") or "nothing")


@pytest.mark.parametrize(
    ("argv", "original"),
    [
        argument_case(),
        argument_case("-lx"),
        argument_case("--", "a", "b"),
        argument_case("a", "-d0", "b"),
        argument_case("----=a 'b c' d"),
        argument_case('----=a "b\\c" "" d'),
        argument_case('----=x"b c"y\tz'),
        argument_case("----=a", "--", "b"),
        argument_case("b", "----=a", "c"),
        argument_case("----=a", "----=b"),
        argument_case("--", ""),
        argument_case("--", "a", ""),
        argument_case("--", "%label%", "%retries%", "x%retries%", "%foo%", "x%foo%y"),
        argument_case("-r7", "--", "%retries%", "x%retries%"),
        argument_case("-Ddst", "--", "%watch-dir%/", "%destination-dir%/"),
        argument_case("--", "%LABEL%", "x%LABEL%y", "%INCLUDE-LIST%", "a=%INCLUDE-LIST%", "%TYPE%", "%EVENT-MASK%"),
        argument_case("-l%foo%", "--", "<%label%>"),
        argument_case("-lx%foo%y", "--", "<%label%>"),
        argument_case("-l%delay-sync%", "--", "<%label%>"),
        argument_case("-la%%b", "--", "<%label%>"),
        argument_case("-w3", "-l", "%delay-sync%", "--", "<%label%>"),
        argument_case("-la", "-l%label%b", "--", "<%label%>"),
        argument_case("-Hconf", "--", "<%label%>"),
        argument_case("-Hconf"),
        argument_case("-Hconf", "--", ""),
        argument_case("-Hconf", "-lcli", "--", "<%label%>", "%retries%"),
        argument_case("-Hconf", "-Kbase", "--", "<%label%>"),
        argument_case("--", "x%%y"),
        # B-21: the quoted last argument is lost.
        argument_case('----=a "b c"', original=["a"]),
        argument_case('----=a x"y"', original=["a", "x"]),
        # What follows a percent sign of its own is cut.
        argument_case("--", "x%y", original=["x"]),
        argument_case("-l50%", "--", "<%label%>", original=["<50>"]),
    ],
)  # fmt: skip
def test_arguments(desk: Path, argv: Sequence[str], original: Sequence[str] | None) -> None:
    line = [*ONCE.split(), *argv]
    found = ours(desk, line)
    assert isinstance(found, Settings)
    values = {b"TYPE": b"sync", b"EVENT-MASK": b"1073742080"}
    here = Arguments(found.arguments).filled(values, [found.watch_dir])
    (desk / "shown").unlink(missing_ok=True)
    assert theirs(desk, line) == 0
    shown = (desk / "shown").read_bytes().split(b"\0")[:-1]
    # Its first run is the root's, and all have the same number of arguments.
    assert shown == (here if original is None else [word.encode() for word in original])
