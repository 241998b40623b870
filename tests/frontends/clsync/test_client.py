"""The Python client, against our own server, against clsync itself, and against what is neither."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from instep.frontends.clsync.client import Client, ClientError, Failed, Info, NoDaemon, TimedOut
from instep.frontends.clsync.control import Session
from instep.frontends.clsync.protocol import CLSYNC as VERSION
from tests.frontends.clsync.exchange import BOTH, CLOSING, GREETING
from tests.frontends.clsync.served import served
from tests.frontends.clsync.test_control import Daemon
from tests.original_clsync import listening, needs_clsync


@contextmanager
def saying(path: Path, *pieces: bytes, close: bool = True) -> Iterator[None]:
    """A server that says this to the first who comes, whatever is asked."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(bytes(path))
        server.listen()
        done = threading.Event()

        def serve() -> None:
            client, _ = server.accept()
            with client, suppress(OSError):
                for piece in pieces:
                    client.sendall(piece)
                    client.recv(4096)
                if not close:
                    done.wait()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(60)


def test_all_of_it(tmp_path: Path) -> None:
    daemon = Daemon()
    with served(tmp_path / "sock", lambda: Session(daemon)), Client(tmp_path / "sock", timeout_s=60) as client:
        assert client.version() == VERSION
        assert str(client.version()) == "0.5-release"
        assert client.info() == Info("default", "lab", os.getpid())
        client.set("label", "a new :one ")
        assert daemon.options["label"] == b"a new :one "
        client.set("label", "")
        assert daemon.options["label"] == b""
        client.dump("/a dump")
        with pytest.raises(Failed, match="File exists") as caught:
            client.dump(b"/a dump")
        assert caught.value.errno == errno.EEXIST
        with pytest.raises(Failed, match="there is no option 'none'; see --help") as caught:
            client.set("none", "1")
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(Failed, match="A path is needed"):
            client.dump("")
        for value in ("a\nb", "a\x03/b", "a\0"):
            with pytest.raises(Failed, match="cannot be told"):
                client.set("label", value)
        assert daemon.dying == 0
        client.die()
        assert daemon.dying == 1


def test_long_paths_and_values(tmp_path: Path) -> None:
    daemon = Daemon()
    top = tmp_path / ("d" * 120)
    top.mkdir()
    with served(top / "sock", lambda: Session(daemon)), Client(bytes(top / "sock"), timeout_s=60) as client:
        client.set("label", "x" * 60_000)
        assert client.info().label == "x" * 60_000
        with pytest.raises(NoDaemon):
            client.set("label", "x" * 70_000)


@needs_clsync
def test_clsync_itself() -> None:
    with listening() as (path, process):
        with Client(path, timeout_s=60) as client:
            assert client.version() == VERSION
            assert client.info() == Info("default", "lab", process.pid)
            client.dump(path.parent / "dump")
            assert (path.parent / "dump/instance").read_text().startswith("status == ")
            with pytest.raises(Failed) as caught:
                client.dump(path.parent / "dump")
            assert caught.value.errno == errno.EEXIST
            client.die()
        assert process.wait(60) == 0


@needs_clsync
def test_what_was_seen_is_what_clsync_says(tmp_path: Path) -> None:
    """The exchange that our own conversation is held to."""
    with listening() as (path, _):
        place = os.fsencode(path.parent / "dump")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(60)
            client.connect(bytes(path))
            with client.makefile("rb") as answers:
                assert answers.readline() == GREETING
                for request, answer in BOTH:
                    client.sendall(request.replace(b"DUMP", place) + b"\n")
                    assert answers.readline() == (answer or b"").replace(b"DUMP", place), request
                assert answers.read() == b""
        for line in CLOSING:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(60)
                client.connect(bytes(path))
                client.sendall(line + b"\n")
                with client.makefile("rb") as answers:
                    assert answers.read() == GREETING


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(NoDaemon, match="No such file"):
        Client(tmp_path / "none")
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(bytes(tmp_path / "gone"))
    with pytest.raises(NoDaemon, match="refused"):
        Client(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(NoDaemon, match="refused"):
        Client(tmp_path / "file")
    for path in (tmp_path / ("x" * 150), b"a\0b"):
        with pytest.raises(NoDaemon):
            Client(path)


def ask(path: Path) -> None:
    with Client(path, timeout_s=60) as client:
        client.version()


@pytest.mark.parametrize(
    "pieces",
    [[b"HTTP/1.1 400\r\n\r\n"], [b"0 0 7 :\n"], [], [GREETING, b"nonsense\n"], [GREETING, b"1 300 x\n"], [GREETING],
     [b"x" * 200_000]],
    ids=["http", "protocol", "nothing", "nonsense", "version", "end", "endless"],
)  # fmt: skip
def test_somebody_else(tmp_path: Path, pieces: list[bytes]) -> None:
    with saying(tmp_path / "sock", *pieces), pytest.raises(NoDaemon):
        ask(tmp_path / "sock")


@pytest.mark.parametrize("pieces", [[], [GREETING]], ids=["greeting", "answer"])
def test_no_answer(tmp_path: Path, pieces: list[bytes]) -> None:
    def impatient() -> None:
        with Client(tmp_path / "sock", timeout_s=0.2) as client:
            client.version()

    with saying(tmp_path / "sock", *pieces, close=False), pytest.raises(TimedOut, match="does not answer"):
        impatient()


@pytest.mark.parametrize(
    ("what", "answer", "number", "text"),
    [
        (lambda client: client.info(), b"1 301 x\x03/ 0 0\n", None, "does not speak"),
        (lambda client: client.version(), b"1 160 200 1 :Unknown command.\n", 0, "Unknown command."),
        (lambda client: client.version(), b"1 199\n", 0, "Success"),
        (lambda client: client.dump("x"), b"1 199 f\x03/ x\x03/ 2\x03/ :\n", 2, "No such file"),
    ],
)
def test_other_answers(
    tmp_path: Path, what: Callable[[Client], object], answer: bytes, number: int | None, text: str
) -> None:
    with saying(tmp_path / "sock", GREETING, answer), Client(tmp_path / "sock", timeout_s=60) as client:
        with pytest.raises(ClientError, match=text) as caught:
            what(client)
        assert number is None or (isinstance(caught.value, Failed) and caught.value.errno == number)


def test_a_login_prompt_is_passed_over(tmp_path: Path) -> None:
    answer = b"0 210 :login\n1 210 :login\n1 300 0 5 -release :clsync\n"
    with saying(tmp_path / "sock", GREETING, answer):
        ask(tmp_path / "sock")
