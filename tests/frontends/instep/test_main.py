"""The command as a whole, and as a process."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from instep import __version__
from instep.errors import TargetError
from instep.frontends.instep import options
from instep.frontends.instep.main import COMMANDS, main
from instep.frontends.instep.progress import ProgressBar
from instep.spec import MirrorSpec


class Runner:
    """Stands in for the daemon."""

    def __init__(self, then: Callable[[], int] = lambda: 0) -> None:
        self.then = then
        self.specs: list[MirrorSpec] = []
        self.observer: ProgressBar | None = None
        self.reload: Callable[[MirrorSpec], MirrorSpec] | None = None

    def __call__(
        self, spec: MirrorSpec, *, observer: ProgressBar | None, reload: Callable[[MirrorSpec], MirrorSpec] | None
    ) -> int:
        self.specs.append(spec)
        self.observer, self.reload = observer, reload
        return self.then()


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    (tmp_path / "s").mkdir()
    return [str(tmp_path / "s"), str(tmp_path / "t")]


def instep(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "instep", *words], capture_output=True, text=True, check=False, env={**os.environ, **env}
    )


def test_help_as_a_process() -> None:
    done = instep("--help", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, "")
    for command in COMMANDS:
        assert command.summary in done.stdout


def test_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mirror", "src", "--help"], run=Runner()) == 0
    text = capsys.readouterr().out
    assert text.isascii()
    for option in options.MIRROR:
        assert option.name in text
    for group in options.Group:
        assert f"\n{group.value}:\n" in text
    assert main(["mirror", "-xh"], run=Runner()) == 0
    assert capsys.readouterr().out == text


def test_help_into_a_closed_pipe() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "instep", "mirror", "--help"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"], run=Runner()) == 0
    assert capsys.readouterr().out == f"instep {__version__}\n"


def test_a_mirror_is_run_and_its_status_returned(places: list[str]) -> None:
    runner = Runner(lambda: 7)
    assert main(["mirror", "--once", *places], run=runner) == 7
    (spec,) = runner.specs
    assert spec.once
    assert spec.source == os.fsencode(places[0])
    assert runner.observer is None  # no terminal here
    assert not os.path.exists(places[1])


def test_an_error_while_it_runs_ends_with_its_message(places: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def refuse() -> int:
        raise TargetError("odd", "the target is odd", fix="mend it")

    assert main(["mirror", *places], run=Runner(refuse)) == 2
    assert capsys.readouterr().err == "error[odd]: the target is odd\n  now: nothing was changed\n  fix: mend it\n"
    assert not logging.getLogger("instep").handlers


def test_reload_reads_the_files_again_and_checks_again(tmp_path: Path) -> None:
    (tmp_path / "s" / "inside").mkdir(parents=True)
    file = tmp_path / "p"
    file.write_text("/inside/\n")
    runner = Runner()
    words = ["mirror", f"--exclude-from={file}", str(tmp_path / "s"), str(tmp_path / "s" / "inside")]
    assert main(words, run=runner) == 0
    assert runner.reload is not None
    (spec,) = runner.specs
    file.write_text("/inside\nx\n")
    assert [rule.pattern for rule in runner.reload(spec).rules] == [b"/inside", b"x"]
    file.write_text("x\n")
    with pytest.raises(TargetError, match="lies inside the source"):
        runner.reload(spec)


def test_progress_always_gives_an_observer(places: list[str]) -> None:
    runner = Runner()
    assert main(["mirror", "--progress=always", *places], run=runner) == 0
    assert isinstance(runner.observer, ProgressBar)


def test_a_terminal_gets_colours_and_a_bar(places: list[str]) -> None:
    program = (
        "import sys, logging\n"
        "from instep.frontends.instep.main import main\n"
        "def run(spec, *, observer, reload):\n"
        "    logging.getLogger('instep.x').warning('event')\n"
        "    return 5 if observer else 6\n"
        "sys.exit(main(sys.argv[1:], run=run))\n"
    )
    for words, status, colours in (([], 5, True), (["--progress=never"], 6, True), (["--log-format=json"], 6, False)):
        ours, theirs = pty.openpty()
        child = subprocess.Popen(
            [sys.executable, "-c", program, "mirror", *words, *places],
            stderr=theirs,
            env={**os.environ, "TERM": "xterm"},
        )
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:
            pass  # EIO: the other side is closed, pty(7)
        os.close(ours)
        assert child.wait(timeout=60) == status
        assert b"event" in shown
        assert (b"\x1b[" in shown) == colours


def test_the_front_end_loads_little() -> None:
    program = "import sys, instep.__main__; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "rich",
        "argparse",
        "asyncio",
        "ctypes",
        "json",
        "subprocess",
        "difflib",
        "instep.daemon",
        "datetime",
    }
    assert not heavy & set(loaded)
