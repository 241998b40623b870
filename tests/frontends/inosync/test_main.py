"""The inosync command: options, the mirrors it makes, and the running process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from instep.frontends.inosync.config import checked
from instep.frontends.inosync.main import main, mirrors
from instep.spec import EngineName, MirrorSpec
from tests.system.compare import differences
from tests.system.daemon_process import wait_until

COMMAND = [sys.executable, "-c", "from instep.commands import inosync; raise SystemExit(inosync())"]


def refuse(specs: Sequence[MirrorSpec]) -> int:
    raise AssertionError(specs)


def detach(untold: int) -> Callable[[int], None]:
    raise AssertionError(untold)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--version"], 0, "inosync 0.2.3"),
        (["-h"], 0, "usage: inosync"),
        (["--help"], 0, "usage: inosync"),
        (["free"], 2, "too many arguments"),
        (["-x"], 2, "no such option"),
        (["-c"], 2, "-c needs a file"),
        (["-vc", "/nowhere.py"], 1, "cannot read /nowhere.py"),
        (["-c/nowhere.py"], 1, "cannot read /nowhere.py"),
    ],
)
def test_options(words: list[str], status: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words, run=refuse, detach=detach) == status
    out, err = capsys.readouterr()
    assert said in (out if status == 0 else err)


def test_each_path_is_a_mirror_and_each_node_a_target(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    values: dict[str, object] = {
        "wpaths": [f"{tmp_path}/a/", f"{tmp_path}/b"],
        "rpaths": ["/t/", "x"],
        "rnodes": ["h:", f"{tmp_path}/n/", "u@h::m/"],
        "rexcludes": ["*.tmp", "/localhost"],
        "extra": "--rsh='ssh -p 2' -a",
        "rspeed": 5,
        "edelay": 3,
    }
    first, second = mirrors(checked(values, origin="f.py"))
    assert first.source == os.fsencode(tmp_path / "a")
    top = os.fsencode(tmp_path)
    assert [each.address for each in first.targets] == [b"h:/t", top + b"/n/t", b"u@h::m//t"]
    assert [each.address for each in second.targets] == [b"h:x/b", top + b"/n/x/b", b"u@h::m/x/b"]
    assert first.rsync_args == (b"--rsh=ssh -p 2",)
    assert (first.preserve.mode, first.preserve.owner, first.preserve.xattrs) == (True, True, False)
    assert (first.pace.quiet_s, first.pace.hold_s, first.bandwidth_bytes_per_s) == (3, 3, 5120)
    assert [(rule.include, rule.pattern) for rule in first.rules] == [(False, b"*.tmp"), (False, b"/localhost")]
    assert [each.engine for each in first.targets] == [EngineName.RSYNC, EngineName.AUTO, EngineName.RSYNC]


def test_what_only_rsync_can_do_is_left_to_rsync(tmp_path: Path) -> None:
    base: dict[str, object] = {"wpaths": [f"{tmp_path}/"], "rpaths": [""], "rnodes": ["/somewhere/else"]}
    for more in ({"extra": "--checksum"}, {"logfile": "/var/log/r"}, {"rsync": "/bin/true"}):
        (spec,) = mirrors(checked({**base, **more}, origin="f.py"))
        assert spec.targets[0].engine is EngineName.RSYNC, more
        assert spec.rsync_program == os.fsencode(more.get("rsync", "rsync"))


@pytest.fixture
def running() -> Iterator[list[int]]:
    """Processes to be ended, whatever happens."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two sources; two nodes, of which the second is away: its directory is not there and cannot be made."""
    for name in ("www/sub", "mail", "node1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "www/page").write_text("page")
    (tmp_path / "mail/letter").write_text("letter")
    (tmp_path / "mail/draft.tmp").write_text("draft")
    (tmp_path / "site.py").write_text(
        f'base = "{tmp_path}"\n'
        'wpaths = [base + "/www/", base + "/mail/"]\n'
        'rpaths = ["/www/", "/mail/"]\n'
        'rnodes = ["127.0.0.1::nothing-here", base + "/node1"]\n'
        'rexcludes = [[], ["*.tmp"]]\n'
        "edelay = 0.1\n"
    )
    return tmp_path


def test_several_paths_follow_though_a_node_is_away(site: Path, running: list[int]) -> None:
    with (site / "log").open("wb") as log:
        process = subprocess.Popen([*COMMAND, "-c", site / "site.py"], stderr=log, start_new_session=True)
    running.append(process.pid)

    def equal() -> bool:
        assert process.poll() is None, (site / "log").read_text()
        if not (site / "node1/www").is_dir() or not (site / "node1/mail").is_dir():
            return False
        return not differences(site / "www", site / "node1/www") and not differences(
            site / "mail", site / "node1/mail", ignore=["draft.tmp"]
        )

    wait_until(equal, "the first comparison")
    (site / "www/sub/new").write_text("new")
    (site / "www/page").unlink()
    (site / "mail/letter").rename(site / "mail/old")
    wait_until(equal, "the changes")
    assert not (site / "node1/mail/draft.tmp").exists()
    wait_until(lambda: "target-away" in (site / "log").read_text(), "a word of the node that is away")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0


def test_in_the_background(site: Path, running: list[int]) -> None:
    text = (site / "site.py").read_text()
    (site / "site.py").write_text(text.replace('"127.0.0.1::nothing-here", ', ""))
    done = subprocess.run([*COMMAND, "-d", "-c", site / "site.py"], stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    wait_until(lambda: len(_daemons(site)) > 0, "a daemon without a terminal")
    running += _daemons(site)
    wait_until((site / "node1/www/page").exists, "the first comparison")


def _daemons(site: Path) -> list[int]:
    """Those that run this configuration, work in the root directory, and say nothing."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and os.fsencode(site / "site.py") in _words(path):
            try:
                if (os.readlink(path / "cwd"), os.readlink(path / "fd/2")) == ("/", "/dev/null"):
                    found.append(int(path.name))
            except OSError:
                continue  # It ended meanwhile.
    return found


def _words(process: Path) -> list[bytes]:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def test_pretending_changes_nothing(site: Path) -> None:
    text = (site / "site.py").read_text()
    (site / "site.py").write_text(text.replace('"127.0.0.1::nothing-here", ', ""))
    done = subprocess.run([*COMMAND, "-p", "-c", site / "site.py"], stderr=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert list((site / "node1").iterdir()) == []
