"""The UNIX socket that a daemon is talked to by, with clients that behave and clients that do not."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from instep.daemon import control
from instep.daemon.control import ControlServer
from instep.errors import OperatorError
from instep.linux.unixsocket import address

DEADLINE_S = 60.0
GREETING = b"hello\n"


def in_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Let pytest run a coroutine function."""

    @functools.wraps(test)
    def run(**fixtures: object) -> None:
        asyncio.run(test(**fixtures))

    return run


class Echo:
    """Says each line again as often as it has bytes; ends at ``bye``."""

    greeting = GREETING

    def __init__(self) -> None:
        self._rest = b""
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        *lines, self._rest = (self._rest + data).split(b"\n")
        self.ended = b"bye" in lines or len(self._rest) > 10_000
        if b"crash" in lines:
            raise RuntimeError("crash")
        return b"".join((line + b"\n") * max(1, len(line)) for line in lines)


@contextlib.asynccontextmanager
async def serving(path: Path, *, mode: int = 0o700) -> AsyncIterator[ControlServer]:
    server = ControlServer(bytes(path), Echo)
    server.open(mode=mode)
    try:
        server.start()
        async with asyncio.timeout(DEADLINE_S):
            yield server
    finally:
        server.close()


async def connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    with address(bytes(path)) as name:
        reader, writer = await asyncio.open_unix_connection(os.fsdecode(name))
    assert await reader.readexactly(len(GREETING)) == GREETING
    return reader, writer


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """Everything up to the end, whatever kind of end that is."""
    got = []
    with contextlib.suppress(ConnectionResetError):
        while data := await reader.read(1 << 16):
            got.append(data)
    return b"".join(got)


async def talk(path: Path, said: bytes) -> bytes:
    reader, writer = await connect(path)
    writer.write(said)
    writer.write_eof()
    try:
        return await read_to_end(reader)
    finally:
        writer.close()


@in_a_loop
async def test_a_talk_in_pieces(path: Path) -> None:
    async with serving(path):
        reader, writer = await connect(path)
        for piece in (b"a", b"b\nc", b"\n", b"d\ne\n"):
            writer.write(piece)
            await writer.drain()
        assert await reader.readexactly(12) == b"ab\nab\nc\nd\ne\n"
        writer.write(b"bye\nmore\n")
        assert (await read_to_end(reader)).startswith(b"bye\n")
        writer.close()


@in_a_loop
async def test_the_answers_come_though_the_client_has_nothing_more_to_say(path: Path) -> None:
    async with serving(path):
        assert await talk(path, b"x\n" * 5000) == b"x\n" * 5000
        assert await talk(path, b"no end") == b""


@in_a_loop
async def test_any_number_of_connections(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B-23: more than eight, at a time and in all; the one that is silent longest makes room."""
    monkeypatch.setattr(control, "CONNECTIONS_MAX", 20)
    async with serving(path):
        for _ in range(100):
            assert await talk(path, b"x\n") == b"x\n"
        held = [await connect(path) for _ in range(20)]
        held[0][1].write(b"a\n")
        assert await held[0][0].readline() == b"a\n"
        assert await talk(path, b"x\n") == b"x\n"
        assert await read_to_end(held[1][0]) == b""
        held[0][1].write(b"b\n")
        assert await held[0][0].readline() == b"b\n"
        for _, writer in held:
            writer.close()


@in_a_loop
async def test_a_client_that_never_reads_costs_a_bounded_amount(path: Path) -> None:
    async with serving(path) as server:
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.connect(bytes(path))
            deaf.setblocking(False)
            sent = 0
            while sent < 50_000_000:
                try:
                    sent += deaf.send(b"x" * 99 + b"\n")
                except BlockingIOError:
                    # What the kernel holds is full; whether for good is known when others have been served meanwhile.
                    before = sent
                    for _ in range(20):
                        assert await talk(path, b"x\n") == b"x\n"
                    with contextlib.suppress(BlockingIOError):
                        sent += deaf.send(b"x")
                    if sent == before:
                        break
            assert sent < 5_000_000
            (connection,) = server._connections
            assert len(connection._output) <= control.READ_BYTES * 100
    assert not server._connections


@in_a_loop
async def test_an_endless_line_and_a_hangup_at_any_time(path: Path) -> None:
    async with serving(path) as server:
        reader, writer = await connect(path)
        with contextlib.suppress(ConnectionError):
            writer.write(b"x" * 1_000_000)
            await writer.drain()
        assert await read_to_end(reader) == b""
        writer.close()
        for said in (b"", b"x", b"x" * 99 + b"\n"):
            _, writer = await connect(path)
            writer.write(said)
            writer.transport.abort()
        assert await talk(path, b"x\n") == b"x\n"
        while server._connections:  # noqa: ASYNC110  # the kernel tells
            await asyncio.sleep(0.01)


@in_a_loop
async def test_a_defect_ends_one_connection(path: Path) -> None:
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
    async with serving(path):
        reader, writer = await connect(path)
        writer.write(b"crash\n")
        assert await read_to_end(reader) == b""
        writer.close()
        assert await talk(path, b"x\n") == b"x\n"
    assert [type(failure) for failure in failures] == [RuntimeError]


@in_a_loop
async def test_no_descriptors_left(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "RETRY_S", 0.05)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    async with serving(path) as server:
        client = socket.socket(socket.AF_UNIX)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(client.fileno()))
            client.connect(bytes(path))
            while server._retry is None:  # noqa: ASYNC110  # the kernel tells
                await asyncio.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            client.setblocking(False)
            assert await asyncio.get_running_loop().sock_recv(client, 100) == GREETING
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            client.close()
            for fd in taken:
                os.close(fd)


@pytest.mark.parametrize("mode", [0o600, 0o755, 0o660])
@in_a_loop
async def test_mode_and_end(path: Path, mode: int) -> None:
    umask = os.umask(0o027)
    try:
        async with serving(path, mode=mode):
            info = os.stat(path)
            assert stat.S_ISSOCK(info.st_mode)
            assert stat.S_IMODE(info.st_mode) == mode
            assert os.listdir(path.parent) == [path.name]
    finally:
        os.umask(umask)
    assert os.listdir(path.parent) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.root
def test_owner(path: Path) -> None:
    server = ControlServer(bytes(path), Echo)
    server.open(mode=0o600, owner=(1, 2))
    info = path.stat()
    assert (info.st_uid, info.st_gid) == (1, 2)
    server.close()
    server.close()
    assert not path.exists()


def test_an_old_socket_is_replaced_and_a_new_one_is_not_removed(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(bytes(path))
    first, second = ControlServer(bytes(path), Echo), ControlServer(bytes(path), Echo)
    first.open(mode=0o600)
    second.open(mode=0o600)
    first.close()
    assert path.is_socket()
    second.close()
    assert not path.exists()


def test_what_is_no_socket_is_refused(path: Path) -> None:
    for make in (lambda: path.write_text("precious"), path.mkdir, lambda: path.symlink_to("elsewhere")):
        make()
        server = ControlServer(bytes(path), Echo)
        with pytest.raises(OperatorError, match="no socket") as caught:
            server.open(mode=0o600)
        assert caught.value.code == "control-socket-occupied"
        server.close()
        assert os.path.lexists(path)
        assert len(os.listdir(path.parent)) == 1
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()


def test_where_none_can_be_made(path: Path) -> None:
    server = ControlServer(bytes(path / "none/socket"), Echo)
    with pytest.raises(OperatorError, match="cannot be made: No such file"):
        server.open(mode=0o600)


@in_a_loop
async def test_a_path_that_is_longer_than_addresses_are(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    async with serving(deep / "socket"):
        assert await talk(deep / "socket", b"x\n") == b"x\n"
    assert os.listdir(deep) == []


def test_children_do_not_have_it(path: Path) -> None:
    server = ControlServer(bytes(path), Echo)
    server.open(mode=0o600)
    try:
        said = subprocess.run(
            [sys.executable, "-c", "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in range(3, 64) if os.path.islink(f'/proc/self/fd/{n}')])"],
            stdout=subprocess.PIPE, text=True, check=True, close_fds=False,
        )  # fmt: skip
        assert "socket:" not in said.stdout
    finally:
        server.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run/sock"
