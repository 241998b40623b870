"""What a sync leaves out: each verdict is the same as rsync's own, in both phases."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from instep.frontends.lsyncd.include import include_list
from instep.frontends.lsyncd.selection import Selection, exclude_lines, filter_lines
from instep.paths import RelPath

TREE = ["foo", "foobar", "d/foo", "d/e/x", "d/x", "x", "f1o", "a.o", "d/b.o", "keep/f", "tmp/t", "f[ab]o", "fao", "a b", "x-y"]  # fmt: skip
PATTERNS = [
    ["foo"], ["/foo"], ["d/"], ["/d/"], ["*.o"], ["a*"], ["/a*"], ["fo?"], ["f?o"], ["foo*bar"], ["d/x"], ["d/e/x"],
    ["/d/*"], ["/d/**"], ["d/**"], ["foo**bar"], ["/d/**/x"], ["/d/***"], ["*"], ["**/x"], ["f[ab]o"], ["a b"], ["x-y"],
    ["tmp/"], ["foo", "x"],
]  # fmt: skip
FILTERS = [
    ["- /a**", "+ /d**", "- /**"], ["+ */", "+ *.o", "- *"], ["- *.o", "+ *.c"], ["- tmp/"], ["+ /keep/**", "- *"],
    ["+ /keep/", "+ /keep/**", "- *"],
]  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        (tmp_path / "s" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / name).write_text("")
    return tmp_path


def kept(selection: Selection, top: Path) -> set[str]:
    found = set()
    for path in top.rglob("*"):
        name = RelPath(os.fsencode(path.relative_to(top)))
        if not selection.excludes(name, path.is_dir()):
            found.add(os.fsdecode(name))
    return found


def rsync(tree: Path, text: str, option: str) -> set[str]:
    (tree / "t").mkdir(exist_ok=True)
    subprocess.run(
        ["rsync", "-rl", "--delete", "--delete-excluded", option, f"{tree}/s/", f"{tree}/t/"],
        input=text.encode(), check=True,
    )  # fmt: skip
    return {os.fsdecode(os.fsencode(path.relative_to(tree / "t"))) for path in (tree / "t").rglob("*")}


def test_excludes_agree_with_rsync(tree: Path) -> None:
    for patterns in PATTERNS:
        selection = Selection()
        for pattern in patterns:
            selection.exclude(pattern.encode())
        assert kept(selection, tree / "s") == rsync(tree, "\n".join(patterns), "--exclude-from=-"), patterns


def test_filters_agree_with_rsync(tree: Path) -> None:
    for lines in FILTERS:
        selection = Selection()
        for line in lines:
            assert selection.append(line.encode())
        assert kept(selection, tree / "s") == rsync(tree, "\n".join(lines), "--filter=. -"), lines


def test_the_source_itself_is_never_left_out() -> None:
    selection = Selection()
    selection.exclude(b"*")
    assert not selection.excludes(RelPath(b""), is_dir=True)


def test_both_may_change() -> None:
    selection = Selection()
    selection.exclude(b"*.x")
    assert selection.excludes(RelPath(b"a.x"), is_dir=False)
    assert selection.include_again(b"*.x")
    assert not selection.include_again(b"*.x")
    assert not selection.excludes(RelPath(b"a.x"), is_dir=False)
    assert selection.append(b"- *.y")
    assert not selection.append(b"zzz")
    assert selection.excludes(RelPath(b"a.y"), is_dir=False)


def test_files_of_patterns() -> None:
    assert exclude_lines(b"# c\n\n  a \n- b\n-c\n+ d\na \n") == [b"a ", b"b", b"c"]
    assert filter_lines(b"+ a\n# c\n\n- b\n") == [b"+ a", b"- b"]


# ---- the list of a batch --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "patterns"),
    [
        ([(b"/g", False)], [b"/g", b"/"]),
        ([(b"/n/", False), (b"/n/m/", False), (b"/n/m/z", False)], [b"/n/", b"/", b"/n/m/", b"/n/m/z"]),
        (
            [(b"/n/m/z", True), (b"/n/m/", True), (b"/n/", True)],
            [b"/n/m/z", b"/n/m/", b"/n/", b"/", b"/n/m/***", b"/n/***"],
        ),
        ([(b"/a/", True), (b"/b/", False), (b"/b/f", False)], [b"/a/***", b"/a/", b"/", b"/b/", b"/b/f"]),
        ([(b"/x]", False), (b"/q[1]", False), (b"/a\\b", False), (b"/a\\*b", False)],
            [b"/x]", b"/", b"/q\\[1]", b"/a\\b", b"/a\\\\\\*b"]),
        ([(b"/d\\x/", True)], [b"/d\\\\x/***", b"/d\\x/", b"/"]),
    ],
)  # fmt: skip
def test_include_lists(names: list[tuple[bytes, bool]], patterns: list[bytes]) -> None:
    assert include_list(names) == patterns


NASTY = [b"x]", b"q]", b"]", b"D]/k", b"q[1].txt", b"st*r", b"qm?", b"[", b"*", b"a\\b", b"a\\", b"\\", b"a\\*b",
         b"new\nline", b" lead", b"trail ", b"#x", b";x", b"- x", b"+ x", b"-r", b"!", b"\xff\xfe", "ü".encode()]  # fmt: skip


def test_every_name_reaches_the_target(tmp_path: Path) -> None:
    """Among them those with a closing bracket, which lsyncd never transfers."""
    source, target = os.fsencode(tmp_path / "s"), os.fsencode(tmp_path / "t")
    for each in (source, target, source + b"/D]"):
        os.makedirs(each)
    for name in NASTY:
        with open(os.path.join(source, name), "wb"):
            pass
    listing = include_list([(b"/D]/", False), *((b"/" + name, False) for name in NASTY)])
    subprocess.run(
        ["rsync", "-r", "--from0", "--include-from=-", "--exclude=*", source + b"/", target + b"/"],
        input=b"\0".join(listing), check=True,
    )  # fmt: skip
    assert sorted(os.listdir(target)) == sorted(os.listdir(source))
    assert os.listdir(os.path.join(target, b"D]")) == [b"k"]
