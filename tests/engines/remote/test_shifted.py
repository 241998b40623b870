"""Large files whose content has shifted: little of them goes over the wire, and whatever happens both sides end equal."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import random
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from instep.engines import ssh
from instep.engines.remote import agent, shifted
from instep.engines.remote.connection import Connection
from instep.engines.remote.shifted import Chunk, Chunks, Piece, Suspicion, choose, unpack_chunks
from instep.model import Outcome
from tests.engines.remote.peer import Peer, attributes
from tests.engines.remote.rig import Rig, over_a_pipe, read, write

SIZE = 5_000_000
CUTTER = os.path.join(os.path.dirname(__file__), "cutter.py")


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def text(size: int) -> bytes:
    dice = random.Random(2)
    words = [b"insert", b"into", b"values", b"users", b"select", b"null", b"(", b"),", b"'", b"customer", b"2026-11-21"]
    lines = (b"%d " % number + b" ".join(dice.choices(words, k=9)) + b"\n" for number in itertools.count())
    parts: list[bytes] = []
    length = 0
    while length < size:
        parts.append(next(lines))
        length += len(parts[-1])
    return b"".join(parts)[:size]


# -- decisions ---------------------------------------------------------------------------------------------------------


def sift(size: int, differs: Sequence[bool]) -> tuple[list[int], int]:
    """Which of the blocks are sent, and where the content was found to have shifted."""
    suspicion = Suspicion(size)
    sent: list[Piece] = []
    for number, one in enumerate(differs):
        pieces = [Piece(number * agent.BLOCK, agent.BLOCK)] if one else []
        sent += suspicion.sift(pieces, (number + 1) * agent.BLOCK)
        if suspicion.shifted_from >= 0:
            return [piece.offset // agent.BLOCK for piece in sent], suspicion.shifted_from
    sent += suspicion.release()
    return [piece.offset // agent.BLOCK for piece in sent], -1


def test_changes_in_place_are_sent_and_nothing_is_suspected() -> None:
    dice = random.Random(1)
    differs = [dice.random() < 0.3 for _ in range(800)]
    assert sift(800 * agent.BLOCK, differs) == ([number for number, one in enumerate(differs) if one], -1)


def test_a_stretch_that_is_small_beside_the_rest_is_sent() -> None:
    differs = [False] * 100 + [True] * 40 + [False] * 8000
    sent, where = sift(len(differs) * agent.BLOCK, differs)
    assert (len(sent), where) == (40, -1)


def test_where_most_differs_nothing_of_it_is_sent() -> None:
    blocks = 800
    differs = [number == 3 or number >= 100 for number in range(blocks)]
    differs[110] = False  # there may be zeros on both sides
    assert sift(blocks * agent.BLOCK, differs) == ([3], 100 * agent.BLOCK)
    assert sift(10 * agent.BLOCK, [True] * 10) == (list(range(10)), -1), "too little to be worth it"


CONTENTS: dict[str, Callable[[int], bytes]] = {
    "noise": noise,
    "text": text,
    "zeros": bytes,
    "pairs": lambda size: b"ab" * (size // 2),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_chunks_are_neither_too_long_nor_too_short(tmp_path: Path, content: str) -> None:
    data = CONTENTS[content](1 << 20)
    (tmp_path / "f").write_bytes(data)
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    cut = choose([data[at : at + (32 << 10)] for at in range(0, len(data), 128 << 10)], len(data))
    digest = agent.hasher(agent.SHA256, b"key")
    chunks = list(cut.of(fd, 0, digest))
    assert sum(length for length, _ in chunks) == len(data)
    at = 0
    for length, sum_ in chunks:
        assert digest(data[at : at + length]) == sum_
        at += length
    assert all(cut.least <= length <= cut.most for length, _ in chunks[:-1])
    if len(set(data)) > 10:
        assert 4 << 10 < len(data) / len(chunks) < 16 << 10
        assert list(cut.of(fd, 100_000, digest))[-5:] == chunks[-5:], "content alone tells"
    os.close(fd)
    assert agent.unpack_cut(memoryview(cut.pack(7, 8))) == (7, 8, cut)


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_makes_our_file_of_theirs(seed: int) -> None:
    dice = random.Random(seed)

    def chunks(content: Sequence[bytes]) -> Iterator[Chunk]:
        return ((len(one), hashlib.sha256(one).digest()[: agent.DIGEST]) for one in content)

    pool = [dice.randbytes(dice.randrange(1, 9)) for _ in range(12)]
    theirs, ours = (dice.choices(pool[start:], k=dice.randrange(30)) for start in (0, 3))
    known = Chunks(5)
    for at in range(0, len(theirs), 4):
        known.add(chunks(theirs[at : at + 4]))
    begin, made, last = 9, b"", None
    for piece in known.plan(chunks(ours), begin):
        assert piece.offset == begin + len(made)
        assert piece.length
        assert last is None or (last.there < 0) != (piece.there < 0) or last.there + last.length != piece.there
        source, at = (b"".join(theirs), piece.there - 5) if piece.there >= 0 else (b"".join(ours), len(made))
        made += source[at : at + piece.length]
        last = piece
    assert made == b"".join(ours)


def test_what_are_no_chunks_is_refused() -> None:
    packed = agent.CHUNK.pack(7) + b"d" * agent.DIGEST
    assert unpack_chunks(packed * 2) == [(7, b"d" * agent.DIGEST)] * 2
    with pytest.raises(agent.ProtocolError):
        unpack_chunks(packed[:-1])
    for wrong in (
        {"least": 0},
        {"most": agent.CHUNK_MOST + 1},
        {"follows": b""},
        {"follows": bytes(257)},
        {"least": 5000},
    ):
        cut = agent.Cut(5, b"]^", 3, 1000, 4000)._replace(**wrong)
        with pytest.raises(agent.ProtocolError):
            agent.unpack_cut(memoryview(cut.pack(1, 0)))


# -- whole files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of operations that are sent, and of frames that come back."""
    counts = [0, 0]
    request, take = Connection.request, Connection._take

    def requested(self: Connection, parts: Sequence[bytes], size: int, *, bulk: bool) -> object:
        counts[0] += size
        return request(self, parts, size, bulk=bulk)

    def taken(self: Connection, kind: int, number: int, body: bytes) -> None:
        counts[1] += len(body)
        take(self, kind, number, body)

    monkeypatch.setattr(Connection, "request", requested)
    monkeypatch.setattr(Connection, "_take", taken)
    return counts


def bring(rig: Rig, data: bytes) -> Outcome:
    write(rig.s(b"big"), data)
    outcome = rig.bring(b"big")
    rig.clean(outcome)
    assert read(rig.d(b"big")) == data
    assert os.listdir(rig.dst) == [b"big"]
    return outcome


@pytest.mark.parametrize(("content", "inplace"), [("noise", True), ("text", False)])
def test_shifted_content_costs_little(tmp_path: Path, wire: list[int], content: str, *, inplace: bool) -> None:
    data = CONTENTS[content](SIZE)
    with Rig(os.fsencode(tmp_path), inplace_bytes=1 if inplace else math.inf) as rig:
        bring(rig, data)
        for new in (
            data[:1000] + b"put in near the start" + data[1000:],
            data[:3_000_000] + data[3_200_123:],
            data,
            data[3_000_000:] + data[:3_000_000],
            b"".join(data[at : at + 1_000_000] + b"%d" % at for at in range(0, SIZE, 1_000_000)),
            data[:2_000_000] + noise(300_000, 7) + data[2_000_000:],
        ):
            wire[:] = 0, 0
            bring(rig, new)
            assert sum(wire) < 700_000
        other = noise(SIZE, 3)
        outcome = bring(rig, other)
        assert outcome.bytes_copied == SIZE, "another file"
        # What is known from the time before the shift, or not, leads astray nowhere.
        for at in (10, SIZE // 2, SIZE - 10):
            other = other[:at] + b"x" + other[at + 1 :]
            bring(rig, other)
        shifted_again = other[:100] + b"put in" + other[100:]
        wire[:] = 0, 0
        bring(rig, shifted_again)
        assert sum(wire) < 200_000


def test_nothing_in_common_is_found_out_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wire: list[int]) -> None:
    monkeypatch.setattr("instep.engines.remote.matching.LOOK_BYTES", 1 << 20)
    for inplace in (math.inf, 1):
        with Rig(os.fsencode(tmp_path), inplace_bytes=inplace) as rig:
            bring(rig, noise(SIZE))
            wire[:] = 0, 0
            bring(rig, noise(SIZE, 2))
            assert SIZE < wire[0] < SIZE * 1.01


def test_holes_stay_holes(tmp_path: Path) -> None:
    with Rig(os.fsencode(tmp_path)) as rig:
        for begin in (b"", b"put in"):
            with open(rig.s(b"big"), "wb") as file:
                file.write(begin)
                for part in range(3):
                    file.write(noise(2_000_000, part))
                    file.seek(4 << 20, os.SEEK_CUR)
                file.truncate(file.tell())
            rig.clean(rig.bring(b"big"))
            assert os.stat(rig.d(b"big")).st_blocks * 512 < 8 << 20


@pytest.mark.parametrize("seed", range(3))
def test_random_insertions_and_deletions(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    data = noise(SIZE, seed)
    with Rig(os.fsencode(tmp_path), inplace_bytes=1 if seed == 2 else math.inf) as rig:
        bring(rig, data)
        for _ in range(5):
            for _ in range(dice.randrange(1, 4)):
                at = dice.randrange(len(data))
                match dice.randrange(4):
                    case 0:
                        data = data[:at] + data[at + dice.randrange(500_000) :]
                    case 1:
                        data = data[:at] + dice.randbytes(dice.randrange(400_000)) + data[at:]
                    case 2:
                        data = data[:at] + bytes(dice.randrange(400_000)) + data[at:]
                    case _:
                        data = data[at:] + data[:at]
            if len(data) < 4 << 20:
                data += noise(3_000_000, 9)
            bring(rig, data)


@pytest.mark.parametrize("frames", [12, 15, 18, 22])
def test_a_cut_in_the_midst_of_it_ends_equal(tmp_path: Path, frames: int, wire: list[int]) -> None:
    """The first connection brings nothing new; the second one is cut."""
    counter = tmp_path / "starts"
    old = noise(SIZE)
    new = b"".join(old[at : at + 500_000] + b"put in" for at in range(0, SIZE, 500_000))

    def command(place: ssh.Place) -> Sequence[bytes]:
        words = [sys.executable, CUTTER, str(frames), str(counter)]
        return [*map(os.fsencode, words), *over_a_pipe(place)]

    with Rig(os.fsencode(tmp_path)) as rig:
        bring(rig, old)
    with Rig(os.fsencode(tmp_path), command=command) as rig:
        write(rig.s(b"big"), new)
        outcome = rig.bring(b"big")
        assert outcome.away is not None, "cut"
        assert read(rig.d(b"big")) == old
        rig.run(rig.engine.open())
        wire[:] = 0, 0
        rig.clean(rig.bring(b"big"))
        assert sum(wire) < 1_500_000, "what came over before the cut, and what stood there before, was used"
        assert os.listdir(rig.dst) == [b"big"]


def test_somebody_who_writes_there_meanwhile_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = noise(SIZE)
    with Rig(os.fsencode(tmp_path)) as rig:
        bring(rig, data)
        plan = Chunks.plan

        def planned(self: Chunks, ours: Sequence[Chunk], offset: int) -> Iterator[Piece]:
            with open(rig.d(b"big"), "r+b") as file:
                file.write(b"theirs")
            return plan(self, ours, offset)

        monkeypatch.setattr(Chunks, "plan", planned)
        write(rig.s(b"big"), b"put in" + data)
        outcome = rig.bring(b"big")
        assert [failure.change.path for failure in outcome.failures] == [b"big"]
        monkeypatch.setattr(Chunks, "plan", plan)
        rig.clean(rig.bring(b"big"))


def test_a_file_that_grows_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = noise(SIZE)
    with Rig(os.fsencode(tmp_path)) as rig:
        bring(rig, data)
        write(rig.s(b"big"), b"put in" + data)
        grown = 0
        original = shifted.Chunks.plan

        def planned(self: Chunks, ours: Sequence[Chunk], offset: int) -> Iterator[Piece]:
            nonlocal grown
            if not grown:
                grown += 1
                with open(rig.s(b"big"), "ab") as file:
                    file.write(b"more" * 100_000)
                cut = agent.Cut(0, b"]^-", 0, 1000, 4000)
                fd = os.open(rig.s(b"big"), os.O_RDONLY)
                ours = list(cut.of(fd, offset, agent.hasher(agent.SHA256, b"")))
                os.close(fd)
                yield from original(self, [*ours, *ours], offset)
                yield Piece(0, SIZE, there=0)
                return
            yield from original(self, ours, offset)

        monkeypatch.setattr(Chunks, "plan", planned)
        rig.clean(rig.bring(b"big"))
        assert os.stat(rig.d(b"big")).st_size == SIZE + 400_006


# -- what an agent takes -----------------------------------------------------------------------------------------------

CUT = agent.Cut(7, bytes(range(40, 100)), 7, 2048, 16384)


def begun(peer: Peer, root: Path, *, flags: int = agent.SIGN) -> None:
    peer.hello()
    peer.open(os.fsencode(root))
    rest = struct.pack("<IQ", 1, SIZE) + bytes(2 * agent.DIGEST)
    peer.batch(agent.operation(agent.CD, 0, b""), agent.operation(agent.BEGIN, flags, b"big", rest))


def ask_for_chunks(peer: Peer) -> None:
    peer.batch(agent.operation(agent.CD, 0, b""), agent.operation(agent.CHUNKS, 0, b"big", CUT.pack(1, 0)))


def copy(offset: int, start: int, length: int) -> bytes:
    return agent.operation(agent.COPY, 0, b"", agent.STREAM.pack(1, offset) + agent.COPIED.pack(start, length))


def signed(peer: Peer) -> bytes:
    while (received := peer.receive()) is not None:
        if received[0] == agent.SIGNED and received[2][8] & agent.BY_CONTENT and received[2][8] & agent.LAST:
            return received[2]
    raise AssertionError("nothing was signed")


@pytest.mark.parametrize("wrong", ["past its end", "from nowhere", "no base", "compared only"])
def test_an_agent_refuses_what_leads_outside(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "big").write_bytes(noise(SIZE))
    operations = {
        "past its end": copy(SIZE - 5, 0, 6),
        "from nowhere": copy(0, 1 << 62, 1),
        "no base": copy(0, 0, 5),
        "compared only": agent.operation(agent.CHUNKS, 0, b"big", CUT.pack(1, 0)),
    }
    with Peer() as peer:
        begun(peer, tmp_path, flags=agent.SIGN_ONLY if wrong == "compared only" else agent.SIGN)
        if wrong in ("past its end", "from nowhere"):
            ask_for_chunks(peer)
            signed(peer)
        peer.send(agent.frame(agent.BATCH, 77, agent.operation(agent.CD, 0, b"") + operations[wrong]))
        said = b""
        while (received := peer.receive()) is not None:
            said = received[2] if received[0] == agent.REFUSED else said
        assert b"protocol error" in said
    assert (tmp_path / "big").read_bytes() == noise(SIZE)


def test_a_stretch_that_is_not_there_fails(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(noise(SIZE))
    with Peer() as peer:
        begun(peer, tmp_path)
        ask_for_chunks(peer)
        signed(peer)
        peer.batch(copy(0, SIZE - 10, 20), copy(0, 0, 0))
        assert struct.unpack_from("<H", signed(peer), 9)[0]
        end = agent.operation(agent.END, 0, b"big", struct.pack("<I", 1) + attributes())
        assert peer.batch(agent.operation(agent.CD, 0, b""), end)[1][0] == agent.FAILED
    assert (tmp_path / "big").read_bytes() == noise(SIZE)


def test_away_is_told_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instep.engines.remote.matching.CHUNKS_MAX", 10)
    with Rig(os.fsencode(tmp_path)) as rig:
        bring(rig, noise(SIZE))
        write(rig.s(b"big"), b"put in" + noise(SIZE))
        outcome = rig.bring(b"big")
        assert outcome.away is not None
