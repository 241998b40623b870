"""Frames that are packed by zstd, where both ends have it."""

from __future__ import annotations

import importlib.machinery
import os
import site
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from instep.engines import ssh
from instep.engines.remote import agent, connection
from instep.spec import Compress
from tests.engines.remote.rig import Rig, over_a_pipe, write

STAND_IN = '''
"""Speaks like the package zstandard, and packs by other means."""
import io, zlib
class ZstdError(Exception): pass
class ZstdCompressor:
    def __init__(self, level): self.level = level
    def compress(self, body): return b"stand-in" + zlib.compress(body)
class ZstdDecompressor:
    def __init__(self, max_window_size): pass
    def stream_reader(self, body):
        if body[:8] != b"stand-in": raise ZstdError("not mine")
        return io.BytesIO(zlib.decompress(body[8:]))
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in which Python finds a zstandard, as this process does."""
    there = tmp_path / "packages"
    there.mkdir()
    (there / "zstandard.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(there)
    monkeypatch.delitem(sys.modules, "zstandard", raising=False)
    connection._abilities.cache_clear()
    yield there
    sys.modules.pop("zstandard", None)
    connection._abilities.cache_clear()


def kinds(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The kinds of all frames that are sent from now on."""
    seen: set[int] = set()

    class Noting:
        size = agent.HEADER.size
        unpack_from = agent.HEADER.unpack_from

        @staticmethod
        def pack(length: int, kind: int, number: int) -> bytes:
            seen.add(kind)
            return header.pack(length, kind, number)

    header = agent.HEADER
    monkeypatch.setattr(agent, "HEADER", Noting)
    return seen


@pytest.mark.parametrize("both", [True, False])
def test_zstd_is_taken_where_both_have_it(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, both: bool
) -> None:
    def with_package(_: ssh.Place) -> Sequence[bytes]:
        begin = f"import sys;sys.path.insert(0,{str(package)!r});".encode()
        return [os.fsencode(sys.executable), b"-S", b"-E", b"-c", begin + connection._STUB]

    seen = kinds(monkeypatch)
    with Rig(os.fsencode(tmp_path), compress=Compress.ON, command=with_package if both else over_a_pipe) as rig:
        for number in range(20):
            write(rig.s(b"text%d" % number), b"the same again and again " * 500)
            write(rig.s(b"noise%d" % number), os.urandom(20_000))
        write(rig.s(b"large"), b"0123456789" * 200_000)
        rig.clean(rig.tree())
    packed = {kind for kind in seen if kind & (agent.COMPRESSED | agent.ZSTD)}
    there = both or "zstandard" in _installed()
    assert packed == {agent.BATCH | (agent.ZSTD if there else agent.COMPRESSED)}


def _installed() -> set[str]:
    """What an agent finds here without being helped."""
    found = importlib.machinery.PathFinder.find_spec("zstandard", site.getsitepackages())
    return {"zstandard"} if found is not None or sys.version_info >= (3, 14) else set()


def test_what_is_none_is_refused(package: Path) -> None:
    assert package.is_dir()
    assert agent.unpack_zstd(agent.packer()(b"x" * 1000)) == b"x" * 1000
    with pytest.raises(agent.ProtocolError):
        agent.unpack_zstd(b"anything else")
    with pytest.raises(agent.ProtocolError, match="more than"):
        agent.unpack_zstd(agent.packer()(bytes(agent.FRAME_MAX + 1)))
