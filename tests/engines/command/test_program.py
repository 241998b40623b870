"""Running programs: words, input, output, environment, ends of every kind."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from instep.engines.command import program as module
from instep.engines.command.program import run
from instep.model import ListFile, Program, ProgramEnd
from tests.processes import lives
from tests.system.daemon_process import wait_until


def ended(program: Program, *, umask: int = 0o022) -> ProgramEnd:
    return asyncio.run(run(program, umask=umask))


def python(text: str, **more: object) -> Program:
    return Program((os.fsencode(sys.executable), b"-c", text.encode()), capture_bytes=1 << 16, **more)  # type: ignore[arg-type]  # passed on


def test_words_input_and_output() -> None:
    text = "import sys; print(sys.argv[1:], sys.stdin.read()); sys.exit(7)"
    words = (os.fsencode(sys.executable), b"-c", text.encode(), b"a b", b"$x")
    end = ended(Program(words, stdin=b"in\0put", capture_bytes=1000))
    assert end == ProgramEnd(7, output=b"['a b', '$x'] in\0put\n")


def test_no_more_output_is_kept_than_asked_for() -> None:
    assert ended(Program((b"echo", b"abcdef"), capture_bytes=3)).output == b"abc"


def test_output_is_appended_to_a_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for word in (b"a", b"b"):
        assert ended(Program((b"echo", word), output=os.fsencode(out))).status == 0
    assert out.read_bytes() == b"a\nb\n"
    assert ended(Program((b"echo",), output=os.fsencode(tmp_path))).trouble == "Is a directory"


def test_environment_and_umask() -> None:
    text = "import os; print(os.environ['NEW'], os.environ['PATH'] != '', oct(os.umask(0)))"
    end = ended(python(text, environment={b"NEW": b"x"}), umask=0o027)
    assert end.output == b"x True 0o27\n"


def test_a_signal_is_told_from_an_exit() -> None:
    end = ended(Program((b"/bin/sh", b"-c", b"kill -9 $$")))
    assert (end.status, end.signal) == (137, 9)


@pytest.mark.parametrize(
    ("words", "number"), [((b"/no/such",), errno.ENOENT), ((b"a\0b",), 0), ((b"/etc/passwd",), errno.EACCES)]
)
def test_what_cannot_be_started(words: tuple[bytes, ...], number: int) -> None:
    end = ended(Program(words))
    assert (end.status, end.errno, end.trouble != "") == (127, number, True)


def test_a_program_that_takes_too_long_is_ended_with_its_children(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "GRACE_S", 0.1)
    script = f"trap '' TERM; sleep 1000 & echo $! > {tmp_path}/pid; wait; wait; sleep 1000"
    for timeout_s in (1.0, 5.0, 25.0):
        end = ended(Program((b"/bin/sh", b"-c", script.encode()), timeout_s=timeout_s))
        assert (end.timed_out, end.signal) == (True, 9)
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            break  # else it had not even come so far, on a busy machine
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not lives(pid), "the end of what it had started")


def test_many_at_once() -> None:
    async def all_of_them() -> list[int]:
        ends = await asyncio.gather(
            *(run(Program((b"/bin/sh", b"-c", b"exit %d" % n)), umask=0o022) for n in range(20))
        )
        return [end.status for end in ends]

    assert asyncio.run(all_of_them()) == list(range(20))


def test_a_program_starts_where_it_is_told_with_its_files(tmp_path: Path) -> None:
    kept, gone = (
        ListFile(os.fsencode(tmp_path / name), name.encode(), keep=name == "kept") for name in ("kept", "gone")
    )
    words = (b"sh", b"-c", b"pwd; cat kept gone")
    end = ended(Program(words, directory=os.fsencode(tmp_path), files=(kept, gone), capture_bytes=1000))
    assert end.output == f"{tmp_path}\nkeptgone".encode()
    assert os.listdir(tmp_path) == ["kept"]
    end = ended(Program(words, files=(kept, gone)))
    assert (end.status, end.trouble) == (127, "cannot make its list: File exists")


def test_it_can_be_interrupted_with_all_that_it_started_and_nothing_else_afterwards(tmp_path: Path) -> None:
    async def interrupted() -> ProgramEnd:
        interruptions: list[Callable[[int], None]] = []
        ready = tmp_path / "pid"
        script = f"sleep 1000 & echo $! > {ready}.new; mv {ready}.new {ready}; wait"
        running = asyncio.ensure_future(
            run(Program((b"sh", b"-c", script.encode())), umask=0, started=interruptions.append)
        )
        await asyncio.sleep(0)
        await asyncio.to_thread(wait_until, ready.exists, "the start of all of it")
        interruptions[0](15)
        end = await running
        interruptions[0](9)
        return end

    end = asyncio.run(interrupted())
    assert (end.status, end.signal, end.timed_out) == (143, 15, False)
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not lives(pid), "the end of what it had started")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_it_runs_as_whom_it_says() -> None:
    end = ended(Program((b"sh", b"-c", b"id -u; id -g"), user=3, group=4, capture_bytes=100))
    assert end.output == b"3\n4\n"
