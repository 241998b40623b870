"""The lists, put to the real rsync where they are for it."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.frontends.clsync.entries import Entry, ObjectType
from instep.frontends.clsync.lists import Line, can_be_listed, exclude_list, include_lists, own_list
from instep.linux.inotify import IN_CREATE, IN_ISDIR, IN_MODIFY, IN_MOVED_FROM
from instep.paths import ROOT, RelPath
from tests import original_clsync as original

NAMES = [
    b"plain", b"a\\b", b"ab", b"c]d", b"e[f", b"g[h]i", b"ghi", b"s*r", b"sr", b"sXr", b"q?", b"qq", b"n\nl", b"nXl", b"n\rl", b"n l",
    b"\n", b"\r\n", b"x", b"n\nl\\[*]?", b"-rf", b"#hash", b";semi", b"+ plus", b"- minus", b"!", b" lead", b"trail ", b"\xff\xfe",
    "ä".encode(), b"%label%", b"50%", b"*", b"**", b"***", b"?", b"[", b"]", b"\\", b"\\\\", b"\\*", b"[!a]", b"[a-", b"a\tb", b"\x01",
    b"{a,b}", b"~", b"host:path", b"\x7f",
]  # fmt: skip


def entry(path: bytes, *, recursive: bool = False) -> Entry:
    return Entry(RelPath(path), IN_MODIFY, ObjectType.FILE, ObjectType.FILE, recursive=recursive)


def directory(path: bytes, *, recursive: bool = False) -> Entry:
    return Entry(RelPath(path), IN_CREATE | IN_ISDIR, ObjectType.ABSENT, ObjectType.DIRECTORY, recursive=recursive)


def gone(path: bytes) -> Entry:
    return Entry(RelPath(path), IN_MOVED_FROM | IN_ISDIR, ObjectType.DIRECTORY, ObjectType.ABSENT)


def include(entries: Iterable[Entry]) -> bytes:
    (only,) = include_lists(entries, 0)
    return only.content


def below(top: bytes) -> set[bytes]:
    return {
        os.path.relpath(os.path.join(here, name), top)
        for here, directories, files in os.walk(top)
        for name in [*directories, *files]
    }


def synced(base: Path, included: bytes, excluded: bytes = b"") -> set[bytes]:
    """What the target holds after a run of mode rsyncdirect."""
    (base / "include").write_bytes(included)
    (base / "exclude").write_bytes(excluded)
    (base / "dst").mkdir(exist_ok=True)
    subprocess.run(
        ["rsync", "-aH", "--delete", "--exclude-from", base / "exclude", "--include-from", base / "include", "--exclude=*",
         f"{base}/src/", f"{base}/dst/"],
        check=True,
    )  # fmt: skip
    return below(os.fsencode(base / "dst"))


def plant(top: Path, paths: Iterable[bytes]) -> None:
    """Files at these paths."""
    for path in paths:
        place = os.path.join(os.fsencode(top), path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(path)


# ---- to include ----------------------------------------------------------------------------------------------------


def test_a_file_comes_alone(tmp_path: Path) -> None:
    plant(tmp_path / "src", NAMES)
    for name in NAMES:
        assert synced(tmp_path, include([entry(name)])) == {name}
        os.unlink(os.path.join(os.fsencode(tmp_path / "dst"), name))


@pytest.mark.parametrize("name", [b"n\nl", b"a\\b", b"[x]", b"c]d", b"s*", b"\r", b"-d", b"\\[n\n*"])
def test_a_directory_and_what_is_in_it(tmp_path: Path, name: bytes) -> None:
    plant(tmp_path / "src", [name + b"/f", name + b"/" + name + b"/g", b"other/f", b"n/l", b"ab/f", b"x/f"])
    assert synced(tmp_path, include([directory(name)])) == {name}
    assert synced(tmp_path, include([entry(name + b"/f")])) == {name, name + b"/f"}
    whole = {name, name + b"/f", name + b"/" + name, name + b"/" + name + b"/g"}
    assert synced(tmp_path, include([directory(name, recursive=True)])) == whole
    os.rename(os.path.join(os.fsencode(tmp_path / "src"), name), os.fsencode(tmp_path / "elsewhere"))
    plant(tmp_path / "dst", [b"kept/f"])
    assert synced(tmp_path, include([gone(name)])) == {b"kept", b"kept/f"}


def test_all_at_once(tmp_path: Path) -> None:
    plant(tmp_path / "src", [*NAMES, b"d/x", b"d/e/y"])
    asked = [*NAMES[::2], b"d/e/y"]
    assert synced(tmp_path, include(map(entry, asked))) == {*asked, b"d", b"d/e"}
    assert synced(tmp_path, include([entry(ROOT, recursive=True)])) == {*NAMES, b"d", b"d/e", b"d/e/y", b"d/x"}


def test_a_directory_renamed_away_goes_with_all_that_is_in_it(tmp_path: Path) -> None:
    plant(tmp_path / "src", [b"new/a", b"new/sub/b"])
    plant(tmp_path / "dst", [b"old/a", b"old/sub/b", b"older/c"])
    found = synced(tmp_path, include([gone(b"old"), directory(b"new", recursive=True)]))
    assert found == {b"new", b"new/a", b"new/sub", b"new/sub/b", b"older", b"older/c"}


@pytest.mark.parametrize("recursive", [False, True])
def test_a_file_in_the_place_of_a_directory(tmp_path: Path, recursive: bool) -> None:
    plant(tmp_path / "src", [b"p/now"])
    plant(tmp_path / "dst", [b"p/now/was/f", b"p/stays"])
    change = Entry(RelPath(b"p/now"), IN_MODIFY, ObjectType.DIRECTORY, ObjectType.FILE, recursive=recursive)
    assert synced(tmp_path, include([change])) == {b"p", b"p/now", b"p/stays"}
    assert (tmp_path / "dst/p/now").is_file()


def test_lines_are_those_of_the_original() -> None:
    assert include([entry(b"a/b/c"), entry(b"a/b/d"), entry(b"a")]).split(b"\n") == [
        b"/a/b/c", b"/a/b", b"/a", b"/a/b/d", b"",
    ]  # fmt: skip
    assert include([directory(ROOT)]) == b"\n"
    assert include([directory(ROOT, recursive=True)]) == b"/***\n"
    assert include([directory(b"a/b", recursive=True)]) == b"/a/b/***\n/a\n"
    assert include([entry(b"a[b]c?*\\")]) == b"/a\\[b\\]c\\?\\*\\\\\n"
    assert include([entry(b"a\\b]")]) == b"/a\\b]\n"  # where the original's escapes are none for rsync


# ---- to exclude ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(3))
def test_paths_are_left_alone(tmp_path: Path, number: int) -> None:
    plant(tmp_path / "src", [*NAMES, *(b"d/" + name + b"/x" for name in NAMES)])
    asked = include([directory(ROOT, recursive=True)])
    refused = {*NAMES[number::3], *(b"d/" + name for name in NAMES[number::3])}
    found = synced(tmp_path, asked, exclude_list((RelPath(path), False) for path in sorted(refused)))
    everything = {path for name in NAMES for path in (name, b"d/" + name, b"d/" + name + b"/x")} | {b"d"}
    assert found == {path for path in everything if path not in refused and path.rpartition(b"/")[0] not in refused}


@pytest.mark.parametrize("name", [b"mnt", b"m[n]t", b"m\nt", b"m\\t", b"m]t"])
def test_what_is_below_a_mount_point_is_left_alone(tmp_path: Path, name: bytes) -> None:
    plant(tmp_path / "src", [name + b"/x/y", name + b"/z", b"mt/x"])
    assert synced(tmp_path, b"/***\n", exclude_list([(RelPath(name), True)])) == {name, b"mt", b"mt/x"}


def test_excluded_lines() -> None:
    assert exclude_list([]) == b""
    assert exclude_list([(RelPath(b"a"), False), (RelPath(b"b/c"), True), (RelPath(b"a"), False)]) == b"/a\n/b/c/**\n"
    assert exclude_list([(ROOT, False)]) == b"\n"


@pytest.mark.parametrize("name", [b"", b"l", b"d/l[i]s*"])
def test_our_own_lists_are_left_alone(tmp_path: Path, name: bytes) -> None:
    below_it = name + b"/" if name else b""
    lists = {below_it + b".clsync-list.1.2.3.4", below_it + b".clsync-exclist.1.2.3.4"}
    others = {below_it + b"other", below_it + b"sub/.clsync-list.1", b"x/.clsync-list.1", b"x/l/f"}
    plant(tmp_path / "src", lists | others)
    whole = include([directory(ROOT, recursive=True)])
    found = synced(tmp_path, whole, exclude_list([(RelPath(b"x/l"), False)], (RelPath(name), True)))
    assert others - found == {b"x/l/f"}
    assert not lists & found
    if name:
        plant(tmp_path / "dst", [name + b"/stays"])
        plant(tmp_path / "src", [name + b"/new"])
        found = synced(tmp_path, whole, exclude_list([], (RelPath(name), False)))
        assert name + b"/stays" in found
        assert name + b"/new" not in found


# ---- any names -----------------------------------------------------------------------------------------------------

components = st.lists(
    st.sampled_from([b"a", b"b", b"*", b"?", b"[", b"]", b"\\", b"\n", b"\r", b"!", b"-", b"^", b" ", b"\xff"]), min_size=1, max_size=4
).map(b"".join)  # fmt: skip


@settings(max_examples=12, deadline=None)
@given(st.sets(components, min_size=1, max_size=12), st.data())
def test_any_names(names: set[bytes], data: st.DataObject) -> None:
    paths = sorted({b"d/" + name for name in names} | {b"f" + name for name in names})
    asked = data.draw(st.sets(st.sampled_from(paths), min_size=1))
    refused = data.draw(st.sets(st.sampled_from(paths)))
    with tempfile.TemporaryDirectory() as base:
        plant(Path(base) / "src", paths)
        found = synced(
            Path(base), include(map(entry, sorted(asked))), exclude_list((RelPath(path), False) for path in refused)
        )
    kept = asked - refused
    assert found == kept | ({b"d"} if any(path.startswith(b"d/") for path in asked) else set())


# ---- how lists are cut ---------------------------------------------------------------------------------------------


def sizes(paths: Sequence[bytes], lines_max: int) -> list[int]:
    parts = list(include_lists(map(entry, paths), lines_max))
    assert [each.path for part in parts for each in part.entries] == list(paths)
    for part in parts:
        lines = part.content.split(b"\n")[:-1]
        assert len(lines) == len(set(lines))
        for each in part.entries:
            assert {b"/" + each.path, b"/" + each.path.rpartition(b"/")[0]} - {b"/"} <= set(lines)
    return [len(part.entries) for part in parts]


FLAT = [b"%d" % number for number in range(12)]
DEEP = [b"%d/x/y" % number for number in range(5)]
SHARED = [b"a/b/%d" % number for number in range(9)]


@pytest.mark.parametrize("lines_max", [0, 3, 4, 5])
@pytest.mark.parametrize("paths", [FLAT, DEEP, SHARED], ids=["flat", "deep", "shared"])
@original.needs_clsync
def test_cut_as_by_the_original(tmp_path: Path, paths: list[bytes], lines_max: int) -> None:
    plant(tmp_path / "src", paths)
    (tmp_path / "rules").write_bytes(b"-s\n")
    options = ["-Mrsyncshell", "--rsync-prefer-include", f"--rsync-inclimit={lines_max}", f"-R{tmp_path}/rules"]
    runs = original.initial(tmp_path, tmp_path / "src", options)
    asked = {b"/" + path for path in paths}
    assert [len(asked.intersection(run.lists["list"])) for run in runs] == sizes(paths, lines_max)


def test_many_paths_take_linear_time() -> None:
    """A deep tree costs no more for each path than a flat one: what stands in the list already is not gone through."""
    deep = b"/".join([b"some-directory"] * 60)
    (only,) = include_lists((entry(deep + b"/%d" % number) for number in range(10_000)), 0)
    assert only.content.count(b"\n") == 10_060


# ---- clsync's own list ---------------------------------------------------------------------------------------------


def test_own_list() -> None:
    lines = [Line(256, b"a b"), Line(IN_ISDIR | IN_CREATE, b""), Line(8, b"\\*")]
    assert (
        own_list(lines, b"lab el", simplified=False)
        == b"sync lab el 256 a b\nsync lab el 1073742080 \nsync lab el 8 \\*\n"
    )
    assert own_list(lines, b"lab el", simplified=True) == b"a b\n\n\\*\n"
    assert [can_be_listed(path) for path in (b"", b"a\rb", b"a\nb")] == [True, True, False]
