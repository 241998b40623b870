"""The examples, each run as it stands but for its paths; programs that are not here are stood in for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.frontends.lsyncd.conftest import Start
from tests.frontends.lsyncd.daemon import Daemon, contents
from tests.system.rsyncd import serving

EXAMPLES = Path(__file__).parents[3] / "examples/lsyncd"


def example(name: str) -> str:
    return (EXAMPLES / f"{name}.lua").read_text().replace("/srv/source", "@/s").replace("/srv/", "@/")


def stand_in(top: Path, name: str, script: str) -> Path:
    """A program on the daemon's PATH that notes its words and its input."""
    (top / "bin").mkdir(exist_ok=True)
    path = top / "bin" / name
    path.write_text(f'#!/bin/sh\necho "{name} $*" >> $TOP/calls\n{script}\n')
    path.chmod(0o755)
    return path


def calls(top: Path) -> str:
    return (top / "calls").read_text().replace(str(top), "TOP") if (top / "calls").exists() else ""


def wait_call(daemon: Daemon, top: Path, line: str) -> None:
    daemon.wait(lambda: f"{line}\n" in calls(top), f"the call {line!r} among\n{calls(top)}")


def test_echo_and_bash(start: Start, source: Path, tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    echo = start(config=example("echo").replace("@/target", "@/e"))
    shell = start(config=example("bash").replace("@/target/", "@/t/"))
    echo.said(f"began {source}/")
    shell.equal(source, tmp_path / "t")
    (source / "new file").write_text("1")
    (source / "dir").mkdir()
    (source / "dir/in").write_text("2")
    (source / "a").unlink()
    shell.equal(source, tmp_path / "t")
    (source / "d/b").rename(source / "d/c")
    shell.equal(source, tmp_path / "t")
    echo.said(f"created new file in  goes to {tmp_path}/e//new file")
    echo.said("deleted a\n")
    echo.said("moved d/b to d/c")
    assert shell.stop() == 143


def test_a_command_after_each_transfer(start: Start, source: Path, tmp_path: Path) -> None:
    daemon = start(config=example("postcmd"))
    daemon.equal(source, tmp_path / "target")
    (source / "f").write_text("f")
    daemon.equal(source, tmp_path / "target")
    notes = tmp_path / "notes"
    daemon.wait(lambda: notes.exists() and notes.read_text().startswith("transferred\n"), "the command")


def test_converting_pictures(start: Start, source: Path, tmp_path: Path) -> None:
    stand_in(tmp_path, "convert", 'head -c 1 "$1" > "$4"')
    daemon = start(config=example("convert"))
    daemon.said("Startup")
    daemon.wait(lambda: _settled(source, "first.png", source / "small/first.png"), "a first conversion")
    (source / "d/p i.JPG").write_text("picture")
    (source / "d/text").write_text("text")
    daemon.wait(lambda: contents(source / "d/small") == {"p i.JPG": b"p"}, "the small picture")
    (source / "d/p i.JPG").unlink()
    daemon.wait(lambda: contents(source / "d/small") == {}, "its removal")


def _settled(source: Path, name: str, made: Path) -> bool:
    """Write until it is seen: the process may not watch yet."""
    if not made.exists():
        (source / name).write_text("x")
    return made.exists()


def test_s3_and_ftp(start: Start, source: Path, tmp_path: Path) -> None:
    stand_in(tmp_path, "aws", 'if [ "$2" = cp ] && mkdir $TOP/failed 2>/dev/null; then exit 1; fi')
    stand_in(tmp_path, "lftp", "sed 's/^/ftp: /' >> $TOP/calls")
    s3 = start(config=example("s3"))
    ftp = start(config=example("ftp"))
    wait_call(s3, tmp_path, "aws s3 sync --delete TOP/s/ s3://bucket/backup")
    wait_call(ftp, tmp_path, 'ftp: mirror -R -e "TOP/s/" "/backup/"')
    (source / "it's").write_text("x")
    s3.said("aws ended with 1, trying again")
    wait_call(ftp, tmp_path, 'ftp: put "TOP/s/it\'s" -o "/backup/it\'s"')
    s3.wait(lambda: calls(tmp_path).count("aws s3 cp TOP/s//it's s3://bucket/backup/it's\n") >= 2, "another try")
    (source / "a").unlink()
    wait_call(s3, tmp_path, "aws s3 rm s3://bucket/backup/a")
    wait_call(ftp, tmp_path, 'ftp: rm -rf "/backup/a"')
    (source / "d").rename(source / "e")
    wait_call(s3, tmp_path, "aws s3 mv --recursive s3://bucket/backup/d s3://bucket/backup/e")
    wait_call(ftp, tmp_path, 'ftp: mkdir -p "/backup/e/"')
    wait_call(ftp, tmp_path, 'ftp: put "TOP/s/e/b" -o "/backup/e/b"')


def test_acting_by_an_alarm(start: Start, source: Path, tmp_path: Path) -> None:
    daemon = start(config=example("alarm"))
    daemon.said("Startup")
    daemon.wait(lambda: _settled(source, "first", tmp_path / "target/first"), "a first change")
    for number in range(20):
        (source / f"f{number}").write_text("x")
    daemon.equal(source, tmp_path / "target")
    (source / "a").unlink()
    daemon.equal(source, tmp_path / "target")
    assert daemon.stop() == 143


@pytest.mark.usefixtures("server")
def test_a_tunnel_to_a_daemon(start: Start, source: Path, tmp_path: Path) -> None:
    (tmp_path / "module").mkdir()
    with serving(tmp_path / "rsyncd", tmp_path / "module") as far:
        daemon = start(config=example("tunnel").replace("8730", str(far.port)))
        daemon.equal(source, tmp_path / "module")
        (source / "new").write_text("new")
        daemon.equal(source, tmp_path / "module")
        daemon.wait((tmp_path / "status").exists, "the status file")
        daemon.wait(lambda: "Tunnel: name=Tunnel1 status=UP" in (tmp_path / "status").read_text(), "the status")
        assert daemon.stop() == 143


def _idle(daemon: Daemon) -> bool:
    text = daemon.text()
    return text.count("Calling rsync") == text.count("Finished (list): ") >= 2


@pytest.mark.usefixtures("server")
def test_far_sides(start: Start, source: Path, tmp_path: Path) -> None:
    """Renames are done there: the very file is kept; one that was not there to be renamed is brought over."""
    targets = [tmp_path / "target" / name for name in ("there", "there2")]
    (tmp_path / "target").mkdir()
    daemon = start(config=example("rsyncssh-advanced"))
    for target in targets:
        daemon.equal(source, target)
    # Moved here, as only that is one event.
    (tmp_path / "big").write_bytes(b"x" * 100_000)
    (tmp_path / "big").rename(source / "big")
    (source / "left~").write_text("not this")
    for target in targets:
        daemon.equal(source, target, ignore=["left~"])
    # Until the list is done with, a rename of what is on it cannot be told from a new name.
    daemon.wait(lambda: _idle(daemon), "the end of all lists")
    kept = [os.stat(target / "big").st_ino for target in targets]
    for target in targets:
        (target / "d/b").unlink()
    (source / "big").rename(source / 'it\'s "big"')
    (source / "d/b").rename(source / "d/c")
    for target in targets:
        daemon.equal(source, target, ignore=["left~"])
    assert [os.stat(target / 'it\'s "big"').st_ino for target in targets] == kept
    assert 'Moving big -> it\'s "big"' in daemon.text()
    assert "Not there to be moved, so transferred" in daemon.text()
    (source / "d").rename(source / "dd")
    (source / "dd/new").write_text("new")
    for target in targets:
        daemon.equal(source, target, ignore=["left~"])
    assert stat.S_ISDIR(os.stat(targets[0] / "dd").st_mode)
    assert daemon.stop() == 143
