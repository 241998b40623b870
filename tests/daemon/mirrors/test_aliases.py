"""What is noted of a file that was reported under an excluded name."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from instep.core.filters import Filter
from instep.daemon.mirrors import aliases as module
from instep.daemon.mirrors.aliases import Aliases
from instep.engines.hardlinks import Inode, Name, search
from instep.model import Report
from instep.paths import RelPath
from instep.rules import Rule

RULES = Filter([Rule(include=False, pattern=b"*.o"), Rule(include=False, pattern=b"cache/")])


class Rig:
    """A tree in which ``a`` is also ``d/b`` and ``x.o``."""

    def __init__(self, top: Path) -> None:
        self.top = top
        (top / "d").mkdir()
        (top / "a").write_bytes(b"x")
        for name in ("d/b", "x.o"):
            os.link(top / "a", top / name)
        self.noted: list[Report] = []
        self.settled = 0
        self.searches = 0
        self.rests = asyncio.Event()
        self.source = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        self.aliases = Aliases(self.source, RULES, note=self.noted.append, settled=self._settle)

    def _settle(self) -> None:
        self.settled += 1
        self.rests.set()

    @property
    def inode(self) -> Inode:
        info = (self.top / "a").lstat()
        return info.st_dev, info.st_ino

    def touched(self, name: bytes = b"x.o") -> list[bytes]:
        """What is to be noted at once."""
        noted: list[bytes] = sorted(report.path for report in self.aliases.touched(RelPath(name), self.inode))
        return noted

    def take_noted(self) -> list[bytes]:
        assert all(report.content and not report.is_dir for report in self.noted)
        noted: list[bytes] = sorted(report.path for report in self.noted)
        self.noted.clear()
        return noted

    async def at_rest(self) -> None:
        if self.aliases.busy:
            self.rests.clear()
            await self.rests.wait()
        assert not self.aliases.busy


@pytest.fixture
def play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Rig], Coroutine[None, None, None]]], None]:
    def play(scene: Callable[[Rig], Coroutine[None, None, None]]) -> None:
        async def run() -> None:
            rig = Rig(tmp_path)

            def counted(*arguments: object, **named: object) -> object:
                rig.searches += 1
                return search(*arguments, **named)  # type: ignore[arg-type]

            monkeypatch.setattr(module, "search", counted)
            try:
                await scene(rig)
            finally:
                await rig.aliases.close()
                os.close(rig.source)

        asyncio.run(asyncio.wait_for(run(), 30))

    return play


Play = Callable[[Callable[[Rig], Coroutine[None, None, None]]], None]


def test_the_other_names_are_searched_once_and_known_from_then_on(play: Play) -> None:
    async def scene(rig: Rig) -> None:
        assert rig.touched() == []
        assert rig.aliases.busy
        await rig.at_rest()
        assert rig.take_noted() == [b"a", b"d/b"]
        assert (rig.settled, rig.searches) == (1, 1)
        assert rig.touched() == [b"a", b"d/b"]
        assert not rig.aliases.busy

    play(scene)


def test_what_is_known_is_looked_at_again(play: Play) -> None:
    async def scene(rig: Rig) -> None:
        rig.touched()
        await rig.at_rest()
        rig.take_noted()
        (rig.top / "d").rename(rig.top / "e")
        assert rig.touched() == []
        await rig.at_rest()
        assert rig.take_noted() == [b"a", b"e/b"]
        os.link(rig.top / "a", rig.top / "new")
        assert rig.touched() == []
        await rig.at_rest()
        assert rig.take_noted() == [b"a", b"e/b", b"new"]
        (rig.top / "a").rename(rig.top / "a.o")
        (rig.top / "a").symlink_to("new")
        info = (rig.top / "new").lstat()
        assert list(rig.aliases.touched(RelPath(b"x.o"), (info.st_dev, info.st_ino))) == []
        await rig.at_rest()
        assert rig.take_noted() == [b"e/b", b"new"]

    play(scene)


def test_names_that_are_not_known_are_searched_each_time(play: Play, tmp_path: Path) -> None:
    """One is in an excluded directory, so nobody can tell when it is moved out of there."""
    (tmp_path / "cache").mkdir()

    async def scene(rig: Rig) -> None:
        os.link(rig.top / "a", rig.top / "cache" / "c")
        for _ in range(2):
            assert rig.touched() == []
            await rig.at_rest()
            assert rig.take_noted() == [b"a", b"d/b"]
        (rig.top / "cache" / "c").rename(rig.top / "c")
        rig.touched()
        await rig.at_rest()
        assert rig.take_noted() == [b"a", b"c", b"d/b"]

    play(scene)


def test_a_name_that_went_may_have_been_written_through(play: Play) -> None:
    async def scene(rig: Rig) -> None:
        assert list(rig.aliases.gone(RelPath(b"x.o"))) == []  # Nobody knows what it was.
        assert not rig.aliases.busy
        rig.touched()
        await rig.at_rest()
        rig.take_noted()
        (rig.top / "x.o").unlink()
        gone = rig.aliases.gone(RelPath(b"x.o"))
        assert sorted(report.path for report in gone) == [b"a", b"d/b"]
        assert list(rig.aliases.gone(RelPath(b"x.o"))) == []

    play(scene)


def test_a_rename_that_a_search_crosses(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(rig: Rig) -> None:
        def crossed(*arguments: object, **named: object) -> list[list[Name]]:
            """It has not been in d, and will not come to e."""
            found = [[name for name in names if name.path != b"d/b"] for names in search(*arguments, **named)]  # type: ignore[arg-type]
            (rig.top / "d").rename(rig.top / "e")
            rig.aliases.moved()
            monkeypatch.setattr(module, "search", search)
            return found

        monkeypatch.setattr(module, "search", crossed)
        rig.touched()
        await rig.at_rest()
        assert rig.take_noted() == [b"a", b"a", b"e/b"]
        assert rig.settled == 1

    play(scene)


def test_after_a_search_there_is_a_pause(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene(rig: Rig) -> None:
        rig.touched()
        await rig.at_rest()
        monkeypatch.setattr(rig.aliases._pause, "_until_s", float("inf"))
        (rig.top / "d").rename(rig.top / "e")
        rig.touched()
        rig.touched()
        await rig.aliases.close()
        assert rig.searches == 1

    play(scene)


def test_not_everything_is_remembered_for_ever(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED_MAX", 1)

    async def scene(rig: Rig) -> None:
        os.link(rig.top / "a", rig.top / "y.o")
        for name in (b"x.o", b"y.o"):
            rig.touched(name)
            await rig.at_rest()
            assert rig.take_noted() or name == b"y.o"
        (rig.top / "x.o").unlink()
        assert list(rig.aliases.gone(RelPath(b"x.o"))) == []

    play(scene)
