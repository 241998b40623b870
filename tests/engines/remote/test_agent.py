"""The agent alone: what it refuses, and that nothing leads it outside."""

from __future__ import annotations

import ast
import contextlib
import errno
import os
import random
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.engines.remote import agent
from instep.engines.remote.agent import operation
from tests.engines.remote.peer import Peer, attributes
from tests.engines.remote.rig import needs_root

HOSTILE = [b"", b".", b"..", b"/", b"a/b", b"../x", b"/etc", b"x\0y", b"\0"]


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    """The root, and what lies beside it."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (root / "link").symlink_to(outside)
    (root / "file").write_text("file")
    (root / "d").mkdir()
    return root, outside


@pytest.fixture
def peer(places: tuple[Path, Path]) -> Iterator[Peer]:
    """An agent whose root is open."""
    with Peer() as peer:
        peer.hello()
        opened = peer.open(os.fsencode(places[0]))
        assert opened is not None
        assert opened[0] == agent.OPENED
        yield peer


def untouched(outside: Path) -> bool:
    return {path.name: path.read_text() for path in outside.iterdir()} == {"kept": "kept"}


def test_it_is_source_for_python_3_8() -> None:
    source = Path(agent.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names} | {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module
    }
    assert imported - {"xxhash", "zstandard", "compression"} <= sys.stdlib_module_names | {
        "collections.abc",
        "__future__",
    }
    # Added after 3.8: what the parser does not see.
    for newer in (
        "removeprefix",
        "removesuffix",
        "strict=",
        "pidfd",
        "bit_count",
        "randbytes",
        " slots=",
        "hardlink_to",
    ):
        assert newer not in source


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_no_name_is_refused(peer: Peer, places: tuple[Path, Path], name: bytes) -> None:
    found = peer.batch(
        operation(agent.CD, 0, b""),
        operation(agent.PUT, 0, name, attributes() + b"data"),
        operation(agent.MKDIR, 0, name),
        operation(agent.SYMLINK, 0, name, attributes(0o120777) + b"to"),
        operation(agent.NODE, 0, name, attributes(0o010644) + b"\0" * 8),
        operation(agent.DELETE, agent.RECURSIVE, name),
        operation(agent.LINK, 0, name, b"file"),
        operation(agent.META, 0, name, attributes() + b"\4" + b"\0" * 7),
        operation(agent.VERIFY, 0, name, attributes() + b"\4" + b"\0" * 23),
        operation(agent.BEGIN, 0, name, struct.pack("<IQ", 1, 10) + b"k" * 16),
    )
    assert {index: status for index, (status, _) in found.items()} == dict.fromkeys(range(1, 10), agent.FAILED)
    assert {struct.unpack("<HB", payload)[0] for _, payload in found.values()} == {errno.EINVAL}
    assert untouched(places[1])


@pytest.mark.parametrize(
    "what", ["made again", "made for all to see", "gone", "a file by now", "a link by now", "moved with what is above"]
)
def test_a_directory_that_is_never_filled_leaves_nothing(peer: Peer, places: tuple[Path, Path], what: str) -> None:
    """It was made out of sight; its source went before it was told what is in it."""
    root = places[0]
    hidden = operation(agent.MKDIR, agent.HIDDEN, b"x")
    peer.batch(operation(agent.CD, 0, b"d"), hidden)
    peer.batch(operation(agent.CD, 0, b"d/x"), operation(agent.PUT, 0, b"lost", attributes() + b"data"))
    assert [name[:8] for name in os.listdir(root / "d")] == [".instep-"]
    there = "d"
    if what == "made again":
        peer.batch(operation(agent.CD, 0, b"d"), hidden)
    elif what == "made for all to see":
        peer.batch(operation(agent.CD, 0, b"d"), operation(agent.MKDIR, 0, b"x"))
    elif what == "gone":
        peer.batch(operation(agent.CD, 0, b"d"), operation(agent.DELETE, agent.RECURSIVE, b"x"), hidden)
    elif what == "a file by now":
        peer.batch(operation(agent.CD, 0, b"d"), operation(agent.PUT, 0, b"x", attributes() + b"data"))
        assert os.listdir(root / "d") == ["x"]
        peer.batch(operation(agent.CD, 0, b"d"), operation(agent.DELETE, 0, b"x"), hidden)
    elif what == "a link by now":
        peer.batch(operation(agent.CD, 0, b"d"), operation(agent.SYMLINK, 0, b"x", attributes(0o120777) + b"to"))
        assert os.listdir(root / "d") == ["x"]
        peer.batch(operation(agent.CD, 0, b"d"), operation(agent.DELETE, 0, b"x"), hidden)
    else:
        there = "new"
        info = (root / "d").stat()
        moved = agent.MOVED.pack(3, info.st_mode, info.st_size, info.st_mtime_ns) + b"new"
        peer.batch(operation(agent.MOVE, 0, b"d", moved), operation(agent.CD, 0, b"new"), hidden)
    path = os.fsencode(there) + b"/x"
    peer.batch(operation(agent.CD, 0, path), operation(agent.PUT, 0, b"file", attributes() + b"data"))
    peer.batch(operation(agent.CD, 0, path), operation(agent.SELF, 0, b"", attributes(0o040700)))
    assert os.listdir(root / there) == ["x"]
    assert os.listdir(root / there / "x") == ["file"]


@pytest.mark.parametrize(
    "path", [b"..", b"../outside", b"/etc", b"link", b"link/", b"d/../..", b"d//x", b"d\0", b"./d", b"file", b"file/x"]
)
def test_no_directory_outside_is_entered(peer: Peer, places: tuple[Path, Path], path: bytes) -> None:
    found = peer.batch(
        operation(agent.CD, 0, path),
        operation(agent.PUT, 0, b"kept", attributes() + b"data"),
        operation(agent.DELETE, agent.RECURSIVE, b"kept"),
        operation(agent.SELF, 0, b"", attributes(0o040700)),
        operation(agent.MOVE, 0, path + b"/kept", agent.MOVED.pack(3, 0o100644, 4, 0) + b"new"),
        operation(agent.MOVE, 0, b"file", agent.MOVED.pack(len(path) + 2, 0o100644, 4, 0) + path + b"/n"),
        operation(agent.CHECK, 0, path),
    )
    assert found.keys() == {0, 4, 5, 6}
    assert found[6][0] == agent.FAILED
    assert untouched(places[1])
    assert (places[0] / "file").exists()


def test_a_leader_outside_is_not_linked(peer: Peer, places: tuple[Path, Path]) -> None:
    found = peer.batch(
        operation(agent.CD, 0, b""),
        operation(agent.LINK, 0, b"a", b"link/kept"),
        operation(agent.LINK, 0, b"a", b"../outside/kept"),
        operation(agent.LINK, 0, b"a", b"link"),
        operation(agent.LINK, 0, b"a", b""),
    )
    assert found.keys() == {1, 2, 3, 4}
    assert not (places[0] / "a").exists()


def test_only_what_may_have_several_names_is_linked(peer: Peer, places: tuple[Path, Path]) -> None:
    root, _ = places
    os.mkfifo(root / "fifo")
    found = peer.batch(
        operation(agent.CD, 0, b"d"),
        operation(agent.LINK, 0, b"a", b"d"),
        operation(agent.LINK, 0, b"b", b"link"),
        operation(agent.LINK, 0, b"c", b"fifo"),
        operation(agent.LINK, 0, b"c", b"fifo"),
    )
    assert found == {
        1: (agent.FAILED, agent.FAILURE.pack(errno.ESTALE, agent.AT_OPERATION)),
        2: (agent.FAILED, agent.FAILURE.pack(errno.ESTALE, agent.AT_OPERATION)),
        4: (agent.OK, b"\0"),  # It was that already.
    }
    assert os.listdir(root / "d") == ["c"]
    assert (root / "d/c").lstat().st_ino == (root / "fifo").lstat().st_ino


def test_what_was_swapped_right_before_it_was_linked_is_not(
    places: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write where the leader is could have anything linked to a place where only we may."""
    root, _ = places
    linking = os.link

    def link(*arguments: Any, **options: Any) -> None:
        (root / "file").unlink()
        (root / "file").symlink_to("elsewhere")
        linking(*arguments, **options)

    monkeypatch.setattr(os, "link", link)
    fd = os.open(root, agent.DIRECTORY)
    try:
        writer = agent.Writer(fd, agent.MAY_DELETE, 0, 0o022, lambda: None)
        writer.change_to(b"d")
        with pytest.raises(agent.Refused) as refused:
            writer.link(b"a", b"file")
        writer.leave()
    finally:
        os.close(fd)
    assert refused.value.errno == errno.ESTALE
    assert os.listdir(root / "d") == []


def test_a_node_that_is_right_stays(peer: Peer, places: tuple[Path, Path]) -> None:
    """It keeps its other names, and whoever has it open."""
    fifo = places[0] / "fifo"

    def make(flags: int = 0, mode: int = 0o010640, *, device: int = 0, **more: Any) -> bool:
        """Whether the agent left it as it was."""
        before = fifo.lstat()
        node = operation(agent.NODE, flags, b"fifo", attributes(mode, **more) + struct.pack("<Q", device))
        answers = peer.batch(operation(agent.CD, 0, b""), node)
        after = fifo.lstat()
        assert after.st_mode == mode
        assert after.st_rdev == device
        stayed = after.st_ino == before.st_ino
        assert stayed == (after.st_ctime_ns == before.st_ctime_ns)
        assert answers == ({1: (agent.OK, b"\0")} if stayed else {})
        return stayed

    fifo.touch()
    assert not make()
    assert make()
    assert make(agent.LINKED)
    assert not make(mode=0o010600)
    assert not make(mode=0o010600, mtime_ns=10**17)
    assert make(mode=0o010600, mtime_ns=10**17)
    assert not make(mode=0o140600, mtime_ns=10**17)
    if os.geteuid() == 0:
        os.chown(fifo, 1, 0)
        assert not make(mode=0o140600, mtime_ns=10**17)
        assert not make(mode=0o020600, device=os.makedev(1, 3))
        assert make(mode=0o020600, device=os.makedev(1, 3))
        assert not make(mode=0o020600, device=os.makedev(1, 5))
        assert not make(mode=0o060600, device=os.makedev(1, 5))
    assert not make()
    os.link(fifo, places[1] / "another")
    assert make(agent.LINKED)
    assert not make()
    assert fifo.lstat().st_nlink == 1
    os.link(fifo, places[0] / "d" / "more")
    assert not make(agent.LINKED, mode=0o010604)
    (places[1] / "another").unlink()


@needs_root
def test_a_node_with_other_xattrs_is_made_anew(peer: Peer, places: tuple[Path, Path]) -> None:
    def make(xattrs: dict[str, bytes]) -> None:
        node = attributes(0o010640, xattrs=agent.pack_xattrs(xattrs)) + b"\0" * 8
        peer.batch(operation(agent.CD, 0, b""), operation(agent.NODE, 0, b"fifo", node))
        assert {name: os.getxattr(fifo, name) for name in os.listxattr(fifo)} == xattrs

    fifo = places[0] / "fifo"
    make({"trusted.one": b"1"})
    before = fifo.lstat().st_ino
    make({"trusted.one": b"1"})
    assert fifo.lstat().st_ino == before
    make({"trusted.one": b"2"})
    make({})


def test_links_are_replaced_and_removed_themselves(peer: Peer, places: tuple[Path, Path]) -> None:
    root, outside = places
    (root / "d/inner").symlink_to(outside)
    (root / "l2").symlink_to(outside / "kept")
    found = peer.batch(
        operation(agent.CD, 0, b""),
        operation(agent.PUT, 0, b"l2", attributes() + b"data"),
        operation(agent.META, 0, b"link", attributes(0o100777) + b"\4" + b"\0" * 7),
        operation(agent.DELETE, agent.RECURSIVE, b"d"),
        operation(agent.DELETE, agent.RECURSIVE, b"link"),
    )
    assert found[2][0] == agent.WANTED
    assert untouched(outside)
    assert not (root / "link").is_symlink()
    assert not (root / "d").exists()
    assert (root / "l2").read_text() == "data"
    assert not (root / "l2").is_symlink()


def test_garbage_ends_it(places: tuple[Path, Path]) -> None:
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n" * 3,
        b"\xff" * 64,
        agent.frame(99, 1, b""),
        agent.frame(agent.BATCH, 1, b"\1"),
        agent.frame(agent.BATCH, 1, operation(agent.DATA, 0, b"", agent.STREAM.pack(7, 0))),
        agent.frame(agent.BATCH, 1, operation(agent.PUT, 0, b"x", b"")),
        agent.frame(agent.BATCH | agent.COMPRESSED, 1, b"no"),
    ):
        with Peer() as peer:
            peer.hello()
            peer.open(os.fsencode(places[0]))
            peer.send(garbage)
            assert peer.process.stdin is not None
            peer.process.stdin.close()
            received = peer.receive()
            assert received is None or received[0] in (agent.REFUSED, agent.ACK), garbage
    assert untouched(places[1])


def test_nothing_is_done_before_a_root_is_open(places: tuple[Path, Path]) -> None:
    with Peer() as peer:
        peer.hello()
        peer.send(agent.frame(agent.BATCH, 1, operation(agent.CD, 0, b"")))
        received = peer.receive()
        assert received is not None
        assert received[0] == agent.REFUSED
        assert peer.receive() is None


def test_a_bomb_is_not_unpacked() -> None:
    import zlib

    with pytest.raises(agent.ProtocolError):
        agent.inflate(zlib.compress(bytes(agent.FRAME_MAX + 1)))
    assert agent.inflate(zlib.compress(b"x" * 1000)) == b"x" * 1000


def test_random_operations_stay_inside(peer: Peer, places: tuple[Path, Path]) -> None:
    root, outside = places
    dice = random.Random(20)
    names = [*HOSTILE, b"link", b"link/kept", b"d", b"d/e", b"file", b"n1", b"n2", b"../outside/kept"]
    codes = [
        agent.CD, agent.PUT, agent.SELF, agent.MKDIR, agent.SYMLINK, agent.NODE, agent.DELETE, agent.MOVE, agent.LINK,
        agent.META, agent.CHECK,
    ]  # fmt: skip
    for _ in range(60):
        operations = [operation(agent.CD, 0, b"")]
        for _ in range(30):
            code = dice.choice(codes)
            rest = {
                agent.PUT: attributes() + dice.randbytes(10),
                agent.SELF: attributes(0o040755),
                agent.SYMLINK: attributes(0o120777) + dice.choice([b"../outside", b"/etc", b"d"]),
                agent.NODE: attributes(0o010600) + b"\0" * 8,
                agent.LINK: dice.choice(names),
                agent.META: attributes() + b"\4" + b"\0" * 7,
            }.get(code, b"")
            if code == agent.MOVE:
                new = dice.choice(names)
                rest = agent.MOVED.pack(len(new), dice.choice([0o040755, 0o100644]), 4, 0) + new
            operations.append(operation(code, dice.randrange(2), dice.choice(names), rest))
        peer.batch(*operations)
    assert untouched(outside)
    assert sorted(path.name for path in root.parent.iterdir()) == ["outside", "root"]


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_decoding_never_fails_otherwise_than_it_says(data: bytes) -> None:
    for decode in (
        lambda: list(agent.operations(memoryview(data))),
        lambda: list(agent.results(data)),
        lambda: agent.unpack_xattrs(data),
        lambda: agent.unpack_attributes(memoryview(data)),
        lambda: agent.unpack_listing(data),
        lambda: agent.inflate(data),
    ):
        with contextlib.suppress(agent.ProtocolError):
            decode()


@given(st.dictionaries(st.binary(min_size=1, max_size=20).filter(lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..")), st.tuples(st.integers(0, 2**32 - 1), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=50))))  # fmt: skip
@settings(max_examples=50, deadline=None)
def test_a_listing_comes_back(names: dict[bytes, tuple[int, int, bytes]]) -> None:
    entries = {
        name: agent.Entry(mode, 1, 2, 3, time, time, 0, 1, 4, extra) for name, (mode, time, extra) in names.items()
    }
    packed = b"".join(agent.pack_listed(name, entry) for name, entry in entries.items())
    assert agent.unpack_listing(packed) == entries


# -- a key that is bound to a directory ----------------------------------------------------------------------------


def forced(root: Path) -> Peer:
    script = "import sys; from instep.engines.remote import agent; sys.exit(agent.main(sys.argv[1].encode()))"
    return Peer([os.fsencode(sys.executable), b"-c", script.encode(), os.fsencode(root)])


@pytest.mark.parametrize(
    ("asked", "served"),
    [("{}", "{}"), ("{}/d", "{}/d"), (".", "{}"), ("d", "{}/d"), ("{}/new", "{}/new"), ("{}/../outside", None),
     ("/etc", None), ("../outside", None), ("d/../..", None), ("{}/link", None), ("", None), ("{}/no/where", None)],
)  # fmt: skip
def test_a_bound_agent_serves_its_directory_alone(places: tuple[Path, Path], asked: str, served: str | None) -> None:
    root, outside = places
    with forced(root) as peer:
        peer.hello()
        received = peer.open(asked.format(root).encode(), agent.MAY_DELETE | agent.MAY_MAKE_ROOT)
        assert received is not None
        if served is None:
            assert received[0] == agent.REFUSED
        else:
            assert received[0] == agent.OPENED
            info = os.stat(served.format(root))
            assert agent.OPENED_BODY.unpack(received[2])[:2] == (info.st_dev, info.st_ino)
    assert untouched(outside)


def test_a_bound_agent_runs_nothing_that_is_sent(places: tuple[Path, Path]) -> None:
    import zlib

    source = zlib.compress(f"open({str(places[0] / 'ran')!r}, 'w')".encode())
    with forced(places[0]) as peer:
        peer.send(agent.BOOT % len(source) + source)
        assert peer.process.stdout is not None
        assert peer.process.stdout.read(len(agent.MAGIC)) == agent.MAGIC
    assert not (places[0] / "ran").exists()
