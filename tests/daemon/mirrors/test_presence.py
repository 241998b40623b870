"""Whether the source is there, and who is told."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from instep.daemon.mirrors import source as module
from instep.daemon.mirrors.presence import Presence
from instep.daemon.mirrors.source import Source


class Watched:
    """A source, and what was told of it; it is looked for in each turn of the loop."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.told: list[str] = []
        self.source = Source(os.fsencode(place))
        self.presence = Presence(
            self.source, away=lambda: self.told.append("away"), back=lambda: self.told.append("back")
        )

    def replaced(self) -> None:
        """By a directory that is another one."""
        self.place.rename(self.place.with_name("elsewhere"))
        self.place.mkdir()

    def returned(self) -> None:
        """In the place of that."""
        self.place.rmdir()
        self.place.with_name("elsewhere").rename(self.place)


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(module, "backoff_s", lambda _: 0.0)
    (tmp_path / "source").mkdir()
    return Watched(tmp_path / "source")


async def some_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_it_is_told_once_and_waited_for(watched: Watched) -> None:
    async def life() -> None:
        assert watched.presence.check()
        watched.replaced()
        assert not watched.presence.check()
        assert not watched.presence.check()
        await some_turns()
        assert watched.told == ["away"]
        watched.returned()
        await some_turns()
        assert watched.told == ["away", "back"]
        assert not watched.presence.is_elsewhere
        assert watched.presence.is_away, "until somebody makes everything anew"

    asyncio.run(life())


def test_it_could_not_be_opened_though_it_is_there(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at once again: that might go on for ever."""
    pauses: list[float] = []

    def backoff_s(tries: int) -> float:
        pauses.append(tries)
        return 0.0

    monkeypatch.setattr(module, "backoff_s", backoff_s)

    async def life() -> None:
        watched.presence.miss("because")
        await some_turns()
        assert watched.told == ["away", "back"]
        assert pauses == [2]

    asyncio.run(life())


def test_it_is_said_once_that_it_is_away(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    """Who makes a mirror may find out by two ways."""

    async def life() -> None:
        watched.replaced()
        assert not watched.presence.check()
        watched.presence.miss("because")
        await some_turns()
        watched.returned()
        await some_turns()

    asyncio.run(life())
    assert watched.told == ["away", "back"]
    assert [record.message for record in caplog.records if record.message == "source-away"] == ["source-away"]


def test_who_does_not_wait_any_longer_is_not_told(watched: Watched) -> None:
    async def life() -> None:
        watched.presence.miss("because")
        watched.presence.close()
        watched.presence.close()
        await some_turns()
        assert watched.told == ["away"]

    asyncio.run(life())
