"""Sockets with paths of any length."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from instep.linux.unixsocket import ADDRESS_BYTES_MAX, address


@pytest.mark.parametrize(
    "path",
    [b"s", b"s" * ADDRESS_BYTES_MAX, b"d" * 17 + b"/" + b"s" * 90, b"/".join([b"d" * 100] * 4 + [b"s" * 80])],
    ids=len,
)
def test_bind_and_connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: bytes) -> None:
    monkeypatch.chdir(tmp_path)
    os.makedirs(os.path.dirname(path) or b".", exist_ok=True)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with address(path) as name:
            server.bind(name)
        server.listen()
        with address(path) as name:
            client.connect(name)
    assert os.path.exists(path)


def test_a_name_that_is_too_long_by_itself(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long") as caught, address(bytes(tmp_path) + b"/" + b"s" * 200):
        pass
    assert caught.value.errno == errno.ENAMETOOLONG


def test_a_directory_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError), address(b"/nonexistent/" + b"x" * 200):
        pass
