"""Directories behind links: changes there come over where rsync brings over what a link leads to."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from instep.frontends.lsyncd.links import leads_out
from instep.paths import RelPath
from tests.frontends.lsyncd.conftest import Start
from tests.frontends.lsyncd.test_handler import serving


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory that links lead to."""
    path = tmp_path / "there"
    (path / "sub").mkdir(parents=True)
    (path / "sub/f").write_text("1")
    return path


def read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def holds(path: Path, text: str) -> bool:
    return read(path) == text


COPYING = """
settings{ nodaemon=true }
sync{ default.rsync, source="@/s", target="@/t", delay=0.05, exclude={ "left*" }, rsync={ copy_links=true } }
"""


def test_what_changes_behind_links_comes_over(start: Start, source: Path, tmp_path: Path, there: Path) -> None:
    target = tmp_path / "t"
    (source / "link").symlink_to(there)
    (source / "left").symlink_to(there)
    daemon = start(config=COPYING)
    daemon.said("finished.")
    (there / "sub/f").write_text("22")
    daemon.wait(lambda: read(target / "link/sub/f") == "22", "a change behind a link")
    (there / "new/er").mkdir(parents=True)
    (there / "new/er/f").write_text("3")
    daemon.wait(lambda: read(target / "link/new/er/f") == "3", "a new directory behind a link")
    (there / "new").rename(there / "old")
    daemon.wait(lambda: not (target / "link/new").exists() and read(target / "link/old/er/f") == "3", "a rename")
    # Links that come, in a directory that comes, too.
    (tmp_path / "inner").mkdir()
    (there / "inner").symlink_to(tmp_path / "inner")
    (source / "n/m").mkdir(parents=True)
    (source / "n/m/link").symlink_to("../../../there")
    daemon.wait((target / "n/m/link/inner").is_dir, "a link behind a link")
    (tmp_path / "inner/f").write_text("4")
    for name in ("link", "n/m/link"):
        inner = target / name / "inner/f"
        daemon.wait(functools.partial(holds, inner, "4"), "a change behind both")
    # One that is renamed with its directory, led elsewhere, removed.
    (source / "n").rename(source / "k")
    (tmp_path / "inner/f").write_text("55")
    daemon.wait(lambda: read(target / "k/m/link/inner/f") == "55" and not (target / "n").exists(), "the new name")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/g").write_text("6")
    (source / "tmp").symlink_to(tmp_path / "other")
    os.replace(source / "tmp", source / "link")
    daemon.wait(lambda: read(target / "link/g") == "6" and not (target / "link/sub").exists(), "what it leads to now")
    (tmp_path / "other/g").write_text("77")
    daemon.wait(lambda: read(target / "link/g") == "77", "a change there")
    (source / "k/m/link").unlink()
    daemon.wait(lambda: not os.path.lexists(target / "k/m/link"), "no link, no directory")
    assert (target / "k/m").is_dir()
    assert not (target / "left").exists()
    assert (there / "sub/f").exists(), "only the link was removed"
    assert daemon.stop() == 143


def test_only_links_that_lead_out_are_followed_where_rsync_copies_only_these(
    start: Start, source: Path, tmp_path: Path, there: Path
) -> None:
    (source / "link").symlink_to(there)
    (source / "d/inside").symlink_to("../e")
    (source / "e").mkdir()
    daemon = start(config=COPYING.replace("copy_links", "copy_unsafe_links"))
    daemon.said("finished.")
    (there / "sub/f").write_text("22")
    (source / "e/f").write_text("3")
    daemon.wait(lambda: read(tmp_path / "t/link/sub/f") == "22", "a change behind a link that leads out of the source")
    daemon.wait(lambda: read(tmp_path / "t/e/f") == "3", "a change that a link of the source leads to")
    assert os.readlink(tmp_path / "t/d/inside") == "../e"
    assert "Warn: " not in daemon.text()


def test_without_such_options_links_are_links(start: Start, source: Path, tmp_path: Path, there: Path) -> None:
    (source / "link").symlink_to(there)
    daemon = start(config=COPYING.replace("copy_links", "update"))
    daemon.said("finished.")
    (there / "f").write_text("2")
    (source / "a").write_text("22")
    daemon.wait(lambda: read(tmp_path / "t/a") == "22", "the file")
    assert (tmp_path / "t/link").is_symlink()
    assert daemon.text().count("Calling rsync") == 1


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("l", "/abs", True), ("l", "d", False), ("l", "..", True), ("d/l", "..", False), ("d/l", "../..", True),
        ("d/l", "../e/./f", False), ("d/l", "x/../../../y", True), ("d//l", "", False),
    ],
)  # fmt: skip
def test_unsafe_links(path: str, text: str, expected: bool) -> None:
    assert leads_out(RelPath(path.encode()), text.encode()) is expected


@pytest.mark.parametrize(
    ("text", "apart"),
    [
        ('default.rsync, target="@/t", rsync={ copy_links=true }', ["@/t"]),
        ('default.direct, target="@/t", rsync={ copy_dirlinks=true }', ["@/t"]),
        ('default.rsync, target="h:t", rsync={ _extra={ "--timeout", "5", "-vL" } }', []),
        ('default.rsyncssh, host="h", targetdir="@/t", rsync={ copy_unsafe_links=true }', []),
        ('default.rsync, target="h:t", rsync={ keep_dirlinks=true, _extra={ "--suffix", "-L" } }', None),
        ('default.rsync, target="h:t", rsync={ update=true, _extra={ "what" } }', None),
        ('onCreate="true", checkgauge=false, rsync={ copy_links=true }', None),
        ('onCreate="true", checkgauge=false, rsync="-L"', None),
    ],
)
def test_what_a_sync_wants_followed(tmp_path: Path, text: str, apart: list[str] | None) -> None:
    handler, _ = serving(tmp_path, f'sync{{ source="@/s", delay=1, init=false, {text} }}')
    (place,) = handler.places
    found = None if place.following is None else [os.fsdecode(path) for path in place.following.apart]
    assert found == (None if apart is None else [path.replace("@", str(tmp_path)) for path in apart])
