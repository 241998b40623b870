"""The grammar and the verdicts of rules files, also against the original."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.core.filters import Filter
from instep.frontends.clsync.complaints import Refused
from instep.frontends.clsync.rules import ALL, Rules, parse
from instep.paths import ROOT, RelPath
from tests import original_clsync as original

TREE = {
    b"": "d", b"passwd": "f", b"group": "f", b"lnk": "l", b"ssh": "d", b"ssh/sshd_config": "f", b"ssh/keys": "d",
    b"ssh/keys/k1": "f", b"web": "d", b"web/index.c": "f", b"web/index.h": "f", b"web/sub": "d", b"web/sub/deep.c": "f",
    b"Dontsync": "d", b"Dontsync/x": "f", b"d": "d", b"d/sess": "d", b"d/sess/s1": "f", b"sess_1": "f",
}  # fmt: skip
ALL_OF_IT = set(TREE)
DIRECTORIES = {path for path, kind in TREE.items() if kind == "d"}
BELOW_WEB = {b"web/index.c", b"web/index.h", b"web/sub", b"web/sub/deep.c"}
THREE = {b"passwd", b"group", b"ssh/sshd_config"}
KEYS = b"+f^passwd$\n+f^group$\n+f^ssh/sshd_config$\n"


def plant(top: Path) -> Path:
    for path, kind in TREE.items():
        place = top / path.decode()
        if kind == "d":
            place.mkdir()
        elif kind == "l":
            place.symlink_to("passwd")
        else:
            place.write_bytes(b"x")
    return top


def walked(rules: Rules, top: bytes = ROOT) -> set[bytes]:
    """What a walk tells."""
    found = set()
    is_dir = TREE[top] == "d"
    if rules.syncs(RelPath(top), is_dir=is_dir, is_regular=not is_dir):
        found.add(top)
    if is_dir and rules.walks(RelPath(top)):
        for path in TREE:
            if path and path.rpartition(b"/")[0] == top:
                found |= walked(rules, path)
    return found


def watched(rules: Rules) -> set[bytes]:
    """The directories that are watched from the start on."""
    found: set[bytes] = set()
    for path in sorted(DIRECTORIES):
        if (not path or path.rpartition(b"/")[0] in found) and rules.walks(RelPath(path)):
            found.add(path)
    return found


def told(rules: Rules) -> set[bytes]:
    """The paths, save the root, of which a change is told."""
    found = set()
    for path, kind in TREE.items():
        seen = path and path.rpartition(b"/")[0] in watched(rules)
        if seen and rules.syncs(RelPath(path), is_dir=kind == "d", is_regular=kind == "f"):
            found.add(path)
    return found


def rejected(rules: Rules, top: bytes = ROOT) -> set[bytes]:
    """What rsync is to leave alone when it is told of everything."""
    is_dir = TREE[top] == "d"
    if not rules.syncs(RelPath(top), is_dir=is_dir, is_regular=not is_dir):
        return {top}
    found = set()
    if is_dir and rules.walks(RelPath(top)):
        for path in TREE:
            if path and path.rpartition(b"/")[0] == top:
                found |= rejected(rules, path)
    return found


# rules, what a walk tells, of what a change is told
VERDICTS = [
    (b"", ALL_OF_IT, ALL_OF_IT - {b""}),
    (KEYS + b"+w^$\n+w^ssh$\n-*\n", THREE, THREE),
    (KEYS + b"+W^$\n+W^ssh$\n-*\n", THREE, THREE),
    (KEYS + b"+w^$\n+m^$\n+w^ssh$\n+m^ssh$\n-*\n", THREE, THREE),
    (KEYS + b"+d^$\n+d^ssh$\n-*\n", THREE | {b"", b"ssh"}, THREE | {b"ssh"}),
    (
        b"+f.c$\n-f\n",
        DIRECTORIES | {b"web/index.c", b"web/sub/deep.c"},
        (DIRECTORIES - {b""}) | {b"web/index.c", b"web/sub/deep.c", b"lnk"},
    ),
    (b"-d^[Dd]ont[Ss]ync$\n+*.*\n", ALL_OF_IT - {b"Dontsync", b"Dontsync/x"}, ALL_OF_IT - {b"", b"Dontsync", b"Dontsync/x"}),
    (
        b"-f^sess_\n-d/sess(ion)?s?$\n+*\n",
        ALL_OF_IT - {b"sess_1", b"d/sess", b"d/sess/s1"},
        ALL_OF_IT - {b"", b"sess_1", b"d/sess", b"d/sess/s1"},
    ),
    (b"-s^web$\n", ALL_OF_IT - {b"web"}, ALL_OF_IT - {b"", b"web"}),
    (b"-w^web$\n", ALL_OF_IT - BELOW_WEB, ALL_OF_IT - {b""} - BELOW_WEB),
    (b"-m^web$\n", ALL_OF_IT, ALL_OF_IT - {b""}),
    (b"+f^passwd$\n-f^pass\n-f^group$\n+f^group$\n", ALL_OF_IT - {b"group"}, ALL_OF_IT - {b"", b"group"}),
    (b"-*/ssh\n-*^/web\n-*^ssh/$\n", ALL_OF_IT - {b"ssh/sshd_config"}, ALL_OF_IT - {b"", b"ssh/sshd_config"}),
    (b"-f^lnk$\n", ALL_OF_IT - {b"lnk"}, ALL_OF_IT - {b""}),
]  # fmt: skip

# rules, what rsync is told to leave alone
REJECTED = [
    (b"-d^web$\n-f^group$\n", {b"web", b"group"}),
    (b"-w^web$\n", set()),
    (b"-s^web$\n", {b"web"}),
    (b"+f\\.c$\n-*\n", {b""}),
    (
        KEYS + b"+d^$\n+d^ssh$\n-*\n",
        {b"ssh/keys", b"web", b"Dontsync", b"d", b"sess_1", b"lnk"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "walk", "events"), VERDICTS)
def test_verdicts(text: bytes, walk: set[bytes], events: set[bytes]) -> None:
    rules = parse(text, "rules")
    assert walked(rules) == walk
    assert told(rules) == events


@pytest.mark.parametrize(("text", "excluded"), REJECTED)
def test_verdicts_for_rsync(text: bytes, excluded: set[bytes]) -> None:
    assert rejected(parse(text, "rules")) == excluded


@original.needs_clsync
@pytest.mark.parametrize("text", [text for text, _, _ in VERDICTS])
def test_walks_as_the_original(text: bytes, tmp_path: Path) -> None:
    tree = plant(tmp_path / "tree")
    (tmp_path / "rules").write_bytes(text)
    runs = original.initial(tmp_path, tree, ["-Mshell", f"-R{tmp_path}/rules"])
    paths = {line.split(b" ", 3)[3] for run in runs for line in run.lists["list"]}
    assert paths == walked(parse(text, "rules"))


@original.needs_clsync
@pytest.mark.parametrize("text", [text for text, _ in REJECTED])
def test_rejects_as_the_original(text: bytes, tmp_path: Path) -> None:
    tree = plant(tmp_path / "tree")
    (tmp_path / "rules").write_bytes(text)
    (run,) = original.initial(tmp_path, tree, ["-Mrsyncshell", f"-R{tmp_path}/rules"])
    assert run.lists == {
        "list": [b"/***"],
        "exclist": sorted(b"/" + path if path else b"" for path in rejected(parse(text, "rules"))),
    }


def test_new_directories_are_watched_by_other_rules_than_those_at_start() -> None:
    rules = parse(b"-m^web$\n-w^ssh$\n-W^d$\n-d^Dontsync$\n-s^other$\n", "rules")
    asked = [RelPath(path) for path in (b"web", b"ssh", b"d", b"Dontsync", b"other")]
    assert [rules.walks(path) for path in asked] == [True, False, False, False, True]
    assert [rules.monitors(path) for path in asked] == [False, True, False, False, True]


# ---- the grammar ---------------------------------------------------------------------------------------------------


def test_last_line_without_newline_counts_in_full() -> None:
    assert walked(parse(b"+w^$\n-*", "rules")) == set()
    assert b"group" not in walked(parse(b"-f^group", "rules"))


def test_what_is_no_rule_is_left_out() -> None:
    assert parse(b"\n\n# a comment\n#-*\n", "rules").is_trivial
    assert ALL.is_trivial
    assert not parse(b"-*\n", "rules").is_trivial


def test_types_are_known_in_capitals_too() -> None:
    assert walked(parse(b"-F^group$\n-D^web$\n-S^d$\n", "rules")) == ALL_OF_IT - {b"group", b"d", b"web"} - BELOW_WEB


def test_an_unknown_type_is_told_with_its_line() -> None:
    rules = parse(b"+w^$\n-z^group$\n+\n", "/etc/rules")
    assert [note.text.split(" ")[0] for note in rules.notes] == ["/etc/rules:2:", "/etc/rules:3:"]
    assert all(note.is_warning for note in rules.notes)
    assert walked(rules) == ALL_OF_IT


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        (b"x\n", 22, "rules:1: x is no rule"),
        (b"-*\n -f^a$\n", 22, "rules:2:  -f^a$ is no rule"),
        (b"-f(\n", 8, "rules:1: ( is no regular expression: a '(' is not closed"),
        (b"-f[a", 7, "a '[' is not closed"),
        (b"-f*x\n", 13, "nothing before '*'"),
    ],
)
def test_what_cannot_be_used_is_refused(text: bytes, code: int, says: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(text, "rules")
    assert caught.value.status == code
    assert says in str(caught.value)


def status(text: bytes) -> int:
    """What the program would end with because of these rules."""
    try:
        parse(text, "rules")
    except Refused as error:
        return error.status
    return 0


@original.needs_clsync
@pytest.mark.parametrize("text", [b"-f(\n", b"-f[a\n", b"-f*x\n", b"zzz\n", b"+z^a\n"])
def test_is_refused_as_by_the_original(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "rules").write_bytes(text)
    assert original.exit_status(tmp_path, tmp_path / "tree", ["-Mdirect", f"-R{tmp_path}/rules"]) == status(text)


def test_any_number_of_rules_in_their_order() -> None:
    text = b"".join(b"%bf^%d$\n" % (b"+-"[number % 2 :][:1], number // 2) for number in range(1000))
    rules = parse(text + b"-f^5$\n-f^x$\n", "rules")
    assert [rules.syncs(RelPath(path), is_dir=False, is_regular=True) for path in (b"0", b"499", b"5", b"x", b"y")] == [
        True,
        True,
        True,
        False,
        True,
    ]


def test_rules_that_refer_to_their_own_groups() -> None:
    rules = parse(b"+f^(aa|bb)/(x)\n-f^(a|b)\\1\n+f^(.*)/\\1$\n-f/\n", "rules")
    paths = [b"aa/x", b"aa/y", b"bb", b"ab", b"q/q", b"q/r"]
    assert [rules.syncs(RelPath(path), is_dir=False, is_regular=True) for path in paths] == [
        True, False, False, True, True, False,
    ]  # fmt: skip


def test_an_expression_that_could_take_for_ever_does_not() -> None:
    rules = parse(b"+d^keep$\n-d^(.*/)*\\.git$\n+d^a/a\n-d^(a|a)*/b$\n-d^a$", "rules")
    deep = b"/".join([b"a"] * 1000)
    paths = [deep, b"a" * 4000, deep + b"/.git", b".git", b"keep", b"keep/.git", b"aaa/b", b"a", b"b"]
    assert [rules.walks(RelPath(path)) for path in paths] == [True, True, False, False, True, False, False, False, True]
    assert rules.for_engines() is None


# ---- first match, one by one ---------------------------------------------------------------------------------------

LINES = [
    sign + kind + expression
    for sign in (b"+", b"-")
    for kind in (b"f", b"d", b"*", b"w", b"W", b"m", b"s")
    for expression in (b"", b"^$", b"a", b"^a", b"b$", b"/b", b"^a/b$", b"c", b"^(a|b)/", b"^.$")
]
PATHS = [b"", b"a", b"b", b"a/b", b"a/c", b"b/b", b"a/b/c", b"c"]


@given(st.lists(st.sampled_from(LINES), max_size=8), st.sampled_from(PATHS))
def test_the_first_that_bears_on_the_question_decides(lines: list[bytes], path: bytes) -> None:
    def first(kinds: bytes) -> bool:
        for line in lines:
            if line[1:2] in [b"%c" % kind for kind in kinds] and not parse(b"-*" + line[2:], "").walks(RelPath(path)):
                return line[:1] == b"+"
        return True

    rules = parse(b"\n".join(lines), "rules")
    at = RelPath(path)
    assert rules.walks(at) == first(b"wWd*")
    assert rules.monitors(at) == first(b"mWd*")
    assert rules.syncs(at, is_dir=True, is_regular=False) == first(b"sd*")
    assert rules.syncs(at, is_dir=False, is_regular=True) == first(b"f*")
    assert rules.syncs(at, is_dir=False, is_regular=False) == first(b"*")


# ---- for engines ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"-d^[Dd]ont[Ss]ync$\n+*.*\n",
        b"+f.c$\n-f\n",
        KEYS + b"+d^$\n+d^ssh$\n-*\n",
        b"-f^sess_\n-d/sess(ion)?s?$\n+*\n",
        b"+f^ssh/keys/k1$\n-d^ssh$\n",
        b"-f^lnk$\n-*^web/index",
    ],
)
def test_an_engine_decides_the_same(text: bytes) -> None:
    rules = parse(text, "rules")
    given_on = rules.for_engines()
    assert given_on is not None
    compiled = Filter(given_on)
    assert not compiled.by_name_only or not given_on
    kept = {path for path, kind in TREE.items() if not compiled.excludes(RelPath(path), kind == "d")}
    assert kept == walked(rules)
    for path, kind in TREE.items():
        parent, _, name = path.rpartition(b"/")
        if path and parent in kept:
            assert compiled.excludes_entry(RelPath(parent), name, kind == "d") == (path not in kept)


@pytest.mark.parametrize(
    "text",
    [
        b"-w^web$\n",  # the directory comes, what is in it does not
        b"-m^web$\n",
        b"-W^web$\n",
        b"-s^web$\n",  # what is in it comes, the directory does not
        b"+w^$\n-*\n",
        b"+f\\.c$\n-*\n",  # rsync brings everything over at start, and nothing is watched
        b"-d^$\n",
        b"-f(a)\\1\n",
    ],
)
def test_what_an_engine_cannot_decide(text: bytes) -> None:
    assert parse(text, "rules").for_engines() is None


def test_which_rules_keep_contents_from_directories() -> None:
    assert [parse(text, "").split_walk for text in (b"-d^web$", b"-f^web$\n-*a", b"-w^web$", b"-s^web$", b"-W^a")] == [
        False, False, True, True, True,
    ]  # fmt: skip


def test_quick_enough() -> None:
    """Hundreds of rules cost no more than some microseconds for each path; measured figures with -rP."""
    import timeit

    numbers = random.Random(1)
    text = b"".join(b"-f\\.%06d$\n" % numbers.randrange(10**6) for _ in range(100)) + b"-d^[Dd]ont[Ss]ync$\n+*.*\n"
    rules = parse(text, "rules")
    path = RelPath(b"some/where/deep/in/the/tree/a-file-name.txt")
    seconds = timeit.timeit(lambda: rules.syncs(path, is_dir=False, is_regular=True), number=2000) / 2000
    print(f"{seconds * 1e6:.1f} us with 100 rules")
    few = parse(b"-f^sess_\n-d/sess(ion)?s?$\n-f\\.tmp$\n+*\n", "rules")
    seconds = timeit.timeit(lambda: few.syncs(path, is_dir=False, is_regular=True), number=20000) / 20000
    print(f"{seconds * 1e6:.2f} us with 3")
