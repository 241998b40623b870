"""Requests and answers survive the way."""

from __future__ import annotations

import pytest

from instep.engines.modules import requests, wire
from instep.model import Call, Told


@pytest.mark.parametrize("size", [0, 1, wire.PIECE_BYTES, wire.PIECE_BYTES + 1, 3 * wire.PIECE_BYTES])
def test_pieces_make_the_whole(size: int) -> None:
    whole = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    records = list(wire.pieces(whole))
    assert b"".join(record[1:] for record in records) == whole
    assert [record[0] for record in records] == [1] * (len(records) - 1) + [0]
    assert max(map(len, records)) <= wire.PIECE_BYTES + 1


def test_a_call() -> None:
    event = Told(b"a\xffb\nc", 0x40000100, True, 1, 3)
    request = wire.Request(requests.call(Call((event,), environment={b"A": b""})))
    assert request.number() == 1
    assert (request.text(), request.text()) == (b"A", b"")
    assert (request.number(), request.number()) == (0, 1)
    assert Told(*request.event()) == event


def test_a_call_with_lists() -> None:
    request = wire.Request(requests.call(Call(include=b"/i")))
    assert [request.number(), request.number()] == [0, 1]
    assert (request.text_or_none(), request.text_or_none()) == (b"/i", None)


def test_answers() -> None:
    assert wire.answer(wire.encode_done(-1)) == wire.Done(-1)
    assert wire.answer(wire.encode_unusable("load", "a\0b\udcff")) == wire.Unusable("load", "a\0b\\udcff")
    assert wire.answer(wire.encode_message(wire.INFO, "f", "é")) == wire.Message(wire.INFO, 0, "f", "é")


def test_a_long_message_keeps_its_end() -> None:
    message = wire.answer(wire.encode_message(wire.ERROR, "f", "x" * 100_000 + "end"))
    assert isinstance(message, wire.Message)
    assert message.text.endswith("end")
    assert len(wire.encode_message(wire.ERROR, "f", "x" * 100_000)) < wire.RECORD_BYTES_MAX
