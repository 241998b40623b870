"""A place whose links are looked through: what is watched, what is not, and what is told of links themselves."""

from __future__ import annotations

import logging
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from instep.daemon.handlers import followed as followed_module
from instep.daemon.handlers import following as following_module
from instep.daemon.handlers.following import FollowingSight, sight_of
from instep.daemon.handlers.sight import OwnSight
from instep.linux.inotify import IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_MOVED_FROM, IN_MOVED_TO
from instep.model import EventReport
from instep.paths import RelPath
from instep.ports import Following, Place

DEADLINE_S = 60.0
WORDS = {
    IN_CREATE: "create", IN_DELETE: "delete", IN_CLOSE_WRITE: "write", IN_MOVED_TO: "to", IN_MOVED_FROM: "from",
}  # fmt: skip

Watch = Callable[..., "Watching"]


class Watching:
    """One place that is watched, and all that was told of it."""

    def __init__(self, root: Path, *, apart: Sequence[Path] = ()) -> None:
        following = Following(lambda _path, _text: True, tuple(map(os.fsencode, apart)))
        place = Place(os.fsencode(root), lambda path, _: path.startswith(b"ignored"), following=following)
        self.sight = sight_of(place)
        self.told: list[str] = []
        self.sight.open()

    def read(self) -> None:
        for report in self.sight.monitor.read():
            path, slash = os.fsdecode(report.path), "/" if report.is_dir else ""
            if not isinstance(report, EventReport):
                self.told.append(f"tree {path}")
            elif report.moved_from is not None:
                self.told.append(f"move {os.fsdecode(report.moved_from)} {path}{slash}")
            else:
                self.told.append(f"{WORDS.get(report.mask, 'other')} {path}{slash}")

    def until(self, *words: str, in_order: bool = True) -> None:
        """Read until these were told; forget all that was told."""
        poll = select.poll()
        poll.register(self.sight.monitor.fileno(), select.POLLIN)
        until_s = time.monotonic() + DEADLINE_S
        while True:
            self.read()
            told = iter(self.told) if in_order else self.told
            if all(word in told for word in words):
                self.told.clear()
                return
            assert time.monotonic() < until_s, (words, self.told)
            wake_s = self.sight.monitor.wake_s()
            poll.poll(1000 * (1.0 if wake_s is None else min(wake_s, 1.0)))

    def listed(self, path: str) -> dict[str, bool]:
        return {os.fsdecode(name): is_dir for name, is_dir in self.sight.listed(RelPath(path.encode()))}


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    """Watches the directory s, once all is in it."""
    (tmp_path / "s").mkdir(exist_ok=True)
    opened = []

    def begin(*, apart: Sequence[Path] = ()) -> Watching:
        opened.append(Watching(tmp_path / "s", apart=apart))
        opened[-1].until("tree ")
        return opened[-1]

    yield begin
    for each in opened:
        each.sight.close()
        each.sight.close()


@pytest.fixture
def there(tmp_path: Path) -> Path:
    path = tmp_path / "there"
    path.mkdir()
    return path


def refused(caplog: pytest.LogCaptureFixture) -> list[str]:
    return sorted(
        os.fsdecode(record.__dict__["fields"]["path"]) for record in caplog.records if "not-followed" in record.message
    )


def test_places_that_ask_for_nothing_get_nothing() -> None:
    assert type(sight_of(Place(b"/", lambda _path, _is_dir: False))) is OwnSight


def test_links_come_lead_elsewhere_and_go(tmp_path: Path, watch: Watch, there: Path) -> None:
    (there / "sub").mkdir()
    seen = watch()
    link = tmp_path / "s/link"
    link.symlink_to(there)
    seen.until("create link/", "tree link")
    assert seen.listed("") == {"link": True}
    assert seen.listed("link") == {"sub": True}
    (there / "sub/f").touch()
    seen.until("write link/sub/f")
    (tmp_path / "other").mkdir()
    (tmp_path / "s/new").symlink_to(tmp_path / "other")
    seen.until("create new/", "tree new")
    (tmp_path / "s/file").touch()
    seen.until("write file")
    (tmp_path / "s/new").rename(tmp_path / "s/file")
    seen.until("from new/", "delete file", "create file/", "tree file")
    (tmp_path / "s/file").rename(link)
    seen.until("from file/", "delete link/", "create link/", "tree link")
    (tmp_path / "other/f").touch()
    seen.until("write link/f")
    (there / "sub/f").touch()
    link.unlink()
    seen.until("delete link/")
    link.touch()
    seen.until("create link", "write link")
    assert seen.listed("") == {"link": False}
    assert seen.sight.monitor.status().watches == 1


def test_a_directory_takes_its_links_along(tmp_path: Path, watch: Watch, there: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/link").symlink_to(there)
    seen = watch()
    (tmp_path / "d").rename(tmp_path / "s/d")
    seen.until("to d/", "tree d")
    (tmp_path / "s/d").rename(tmp_path / "s/e")
    seen.until("move d e/")
    (there / "f").touch()
    seen.until("write e/link/f")
    (tmp_path / "s/e").rename(tmp_path / "away")
    seen.until("from e/")
    assert seen.sight.monitor.status().watches == 1
    (tmp_path / "s/ignored").symlink_to(there)
    seen.until("create ignored")
    assert seen.sight.monitor.status().watches == 1


def test_circles_end(tmp_path: Path, watch: Watch, there: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = tmp_path / "s"
    (source / "a").mkdir()
    (source / "a/up").symlink_to("..")
    (source / "a/self").symlink_to(".")
    (source / "all").symlink_to("/")
    (source / "b").mkdir()
    (source / "b/to-a").symlink_to("../a")
    (source / "c").symlink_to(there)
    (there / "s").symlink_to(source)
    (there / "again").symlink_to("../there")
    (there / "b").symlink_to(source / "b")
    with caplog.at_level(logging.WARNING):
        seen = watch()
        assert refused(caplog) == sorted(
            ["a/up", "a/self", "all", "b/to-a/up", "b/to-a/self", "c/s", "c/again", "c/b/to-a/up", "c/b/to-a/self"]
        )
        (source / "a/f").touch()
        seen.until("write a/f", "write b/to-a/f", "write c/b/to-a/f", in_order=False)
        for path in ("a/up", "all"):
            (source / path).unlink()
            seen.until(f"delete {path}")
        (there / "f").touch()
        seen.until("write c/f")
    assert len(refused(caplog)) == 9, "each once"


def test_targets_are_not_followed(tmp_path: Path, watch: Watch, there: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, to in (("holds", there), ("is", there / "t"), ("in", there / "t/in"), ("beside", there / "beside")):
        to.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).symlink_to(to)
    with caplog.at_level(logging.WARNING):
        seen = watch(apart=[there / "t"])
    assert refused(caplog) == ["holds", "in", "is"]
    assert seen.sight.monitor.status().watches == 2


def test_there_is_a_limit(
    tmp_path: Path, watch: Watch, there: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(followed_module, "FOLLOWED_MAX", 3)
    for number in range(6):
        (tmp_path / f"s/{number}").symlink_to(there)
    with caplog.at_level(logging.WARNING):
        seen = watch()
    assert seen.sight.monitor.status().watches == 4
    assert len(refused(caplog)) == 1


def test_what_changes_on_the_way_is_noticed_in_time(
    tmp_path: Path, watch: Watch, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following_module, "LOOK_S", 0.02)
    (tmp_path / "current").symlink_to("there")
    (tmp_path / "s/link").symlink_to(tmp_path / "current")
    seen = watch()
    there.rename(tmp_path / "v1")
    seen.until("delete link/", "create link")
    there.mkdir()
    (there / "f").touch()
    seen.until("create link/", "tree link")
    assert seen.listed("link") == {"f": False}
    (tmp_path / "new").symlink_to("v1")
    (tmp_path / "new").rename(tmp_path / "current")
    seen.until("delete link/", "create link/", "tree link")
    (tmp_path / "v1/g").touch()
    seen.until("write link/g")
    seen.read()
    assert seen.told == [], "what is as it was is not told"


def test_a_place_is_there_until_it_is_replaced(tmp_path: Path, watch: Watch) -> None:
    seen = watch()
    assert isinstance(seen.sight, FollowingSight)
    assert seen.sight.is_there()
    (tmp_path / "s").rename(tmp_path / "gone")
    (tmp_path / "s").mkdir()
    assert not seen.sight.is_there()
