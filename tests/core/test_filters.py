"""The compiled filter against the real rsync, and by name."""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.core import filters
from instep.core.filters import Filter, parse_rule, parse_rule_text, parse_rules
from instep.errors import UsageError
from instep.paths import ROOT, RelPath
from instep.rules import Rule

TREE = [
    b"a/", b"a/a", b"a/ab", b"a/b/", b"a/b/a", b"a/b/c/", b"a/b/c/ab", b"a/b/c/a/", b"b/", b"b/a/", b"b/a/b", b"b/ab", b"b/c",
    b"ab/", b"ab/a", b"ab/ab/", b"ab/ab/c", b"c", b"d1/", b"d1/-", b"d1/]", b"d1/[", b"d1/[a]", b"d1/!", b"d1/^", b"d1/*",
    b"d1/**", b"d1/***", b"d1/\\", b"d1/a\\b", b"d1/a*b", b"d1/a b", b"d1/#", b"A", b"B/", b"B/9", b"B/a9b",
    b"\xff/", b"\xff/\xfe", b"\xff/a", b"n\nl/", b"n\nl/a", b"n\nl/x\n", b".h/", b".h/.a", b" ", b"\x01",
]  # fmt: skip


def rule(text: bytes) -> Rule:
    return Rule(include=text.startswith(b"+"), pattern=text[2:])


def kept(rules: list[bytes], tree: list[bytes] = TREE) -> set[bytes]:
    """What a walk by our filter finds; every step is asked both ways."""
    compiled = Filter([rule(text) for text in rules])
    found = set()
    for entry in tree:
        is_dir = entry.endswith(b"/")
        path = RelPath(entry.rstrip(b"/"))
        parent, _, name = path.rpartition(b"/")
        excluded = compiled.excludes(path, is_dir)
        if not parent or parent + b"/" in found:
            assert compiled.excludes_entry(RelPath(parent), name, is_dir) == excluded
        else:
            assert excluded
        if not excluded:
            found.add(entry)
    return found


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    top = os.fsencode(tmp_path_factory.mktemp("filters") / "source")
    os.mkdir(top)
    for entry in TREE:
        if entry.endswith(b"/"):
            os.mkdir(top + b"/" + entry)
        else:
            os.close(os.open(top + b"/" + entry, os.O_CREAT | os.O_WRONLY, 0o600))
    return top


def rsync(source: bytes, *options: bytes) -> set[bytes]:
    """What rsync would transfer from the tree."""
    command = [b"rsync", b"-rn", b"--8-bit-output", b"--out-format=%n", *options, source + b"/", source + b"-none/"]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "LC_ALL": "C.UTF-8"})
    # With --8-bit-output only control bytes are written as \#ooo (and a backslash that would look like one of these).
    return {
        re.sub(rb"\\#(\d{3})", lambda found: bytes([int(found[1], 8)]), line)
        for line in done.stdout.split(b"\n")
        if line and line != b"./" and not line.startswith(b"created directory ")
    }


def rsync_by_filter(source: bytes, rules: list[bytes]) -> set[bytes]:
    return rsync(source, *(b"--filter=" + text for text in rules))


PIECES = [
    b"a", b"b", b"c", b"ab", b"*", b"**", b"***", b"/", b"?", b"[ab]", b"[!a]", b"[a-c]", b"[[:alpha:]]", b"\\*", b"\\",
    b"d1", b"B", b"a", b"/", b"*", b"\xff", b"[\x80-\xff]", b".", b"\n", b"**/", b"/**", b"[^b-z]", b"[]", b"[", b"]",
    b"[[:digit:][:upper:]]", b"[a/]", b"!", b"-",
]  # fmt: skip
WHOLE = [entry.rstrip(b"/") for entry in TREE]


def random_rules(seed: int) -> list[bytes]:
    rng = random.Random(seed)
    rules = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        if rng.random() < 0.25:
            pattern = bytearray(rng.choice(WHOLE))
            if rng.random() < 0.5:
                pattern[rng.randrange(len(pattern))] = rng.choice(b"*?")
        else:
            pattern = bytearray(b"".join(rng.choices(PIECES, k=rng.randint(1, 5))))
        start = rng.choice((b"", b"", b"/"))
        end = rng.choice((b"", b"", b"", b"/", b"/***", b"/**"))
        rules.append(rng.choice((b"- ", b"- ", b"+ ")) + start + bytes(pattern) + end)
    return rules


@pytest.mark.parametrize("chunk", range(10))
def test_generated_rules_match_what_rsync_matches(source: bytes, chunk: int) -> None:
    decisive = 0
    for seed in range(chunk * 25, chunk * 25 + 25):
        rules = random_rules(seed)
        theirs = rsync_by_filter(source, rules)
        ours = kept(rules)
        assert ours == theirs, f"seed {seed}: {rules}: only ours {ours - theirs}, only rsync's {theirs - ours}"
        decisive += len(ours) < len(TREE)
    assert decisive > 5  # the cases have to exclude something to say anything


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(10 if os.environ.get("INSTEP_SIZES") == "full" else 1))
def test_more_generated_rules_match_what_rsync_matches(source: bytes, chunk: int) -> None:
    for seed in range(1000 + chunk * 100, 1100 + chunk * 100):
        rules = random_rules(seed)
        assert kept(rules) == rsync_by_filter(source, rules), f"seed {seed}: {rules}"


NAMED = {
    "name": [b"- ab"],
    "suffix": [b"- *b"],
    "directories": [b"- ab/"],
    "anchored": [b"- /ab"],
    "last two": [b"- b/a"],
    "directory and all below": [b"- /a/b/***"],
    "all below, not it": [b"- /a/b/**"],
    "stars first": [b"- **/ab"],
    "stars in the middle do not vanish": [b"- /a/**/ab"],
    "stars first, anchored": [b"- /**/ab"],
    "stars at the end": [b"- a**"],
    "stars alone": [b"- **"],
    "everything below first level": [b"- /*/*"],
    "only c files": [b"+ */", b"+ c", b"- *"],
    "first match wins": [b"+ ab", b"- ab", b"- c"],
    "unreachable include": [b"+ /a/b/c/ab", b"- /a/b"],
    "reachable include": [b"+ /a/", b"+ /a/b/", b"+ /a/b/c/***", b"- *"],
    "backslash is literal without wildcards": [b"- a\\b"],
    "backslash escapes with wildcards": [b"- a\\b?", b"- a\\\\*"],
    "escaped star": [b"- [a]\\*b"],
    "closing bracket in a class": [b"- []]"],
    "bracket in a class": [b"- [[]"],
    "negated": [b"- [!a-c]"],
    "circumflex": [b"- [^a-c]"],
    "hyphen last": [b"- [a-]"],
    "escape in a class": [b"- [\\]\\\\]"],
    "escaped end of a range": [b"- [a-\\c]"],
    "named class": [b"- a[[:digit:]]b"],
    "unknown named class": [b"- [[:word:]]"],
    "half a named class": [b"- [[:a]"],
    "unclosed class": [b"- [a"],
    "lone backslash at the end": [b"- *\\"],
    "byte names": [b"- \xff/\xfe"],
    "byte range": [b"- [\xf0-\xff]"],
    "any byte": [b"- /?"],
    "newline": [b"- n?l"],
    "newline is no end": [b"- x"],
    "slash in a class": [b"- a[/]b", b"- [/]ab"],
    "slash in an anchored class": [b"- /[/a]"],
    "slash in a class with stars": [b"- **[/b]b"],
    "escaped slash": [b"- a\\/b*"],
    "two slashes": [b"- a//b", b"- //a", b"- a//"],
    "only a slash": [b"- /"],
    "stars then directories": [b"- a/**/"],
    "three stars then directories": [b"- a/***/"],
    "four stars": [b"- a/****"],
    "stars then three stars": [b"- **/***"],
    "star before three stars": [b"- a*/***"],
    "include with three stars": [b"+ /a/***", b"- *"],
    "dot": [b"- .*"],
    "mixed": [b"- c", b"+ /a/b/c/**", b"- **/c/", b"- ab"],
}


@pytest.mark.parametrize("rules", NAMED.values(), ids=NAMED.keys())
def test_named_rules_match_what_rsync_matches(source: bytes, rules: list[bytes]) -> None:
    assert kept(rules) == rsync_by_filter(source, rules)


def reference_match(pattern: str, text: str) -> bool:
    """Stars, question marks and letters, by trying everything."""
    if not pattern:
        return not text
    if pattern.startswith("**"):
        rest = pattern.lstrip("*")
        return any(reference_match(rest, text[cut:]) for cut in range(len(text) + 1))
    if pattern[0] == "*":
        stop = (text + "/").index("/")
        return any(reference_match(pattern[1:], text[cut:]) for cut in range(stop + 1))
    return (
        bool(text)
        and (pattern[0] == text[0] or (pattern[0] == "?" and text[0] != "/"))
        and reference_match(pattern[1:], text[1:])
    )


@given(
    st.text("ab/*?", min_size=1, max_size=9), st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4)
)
def test_no_backtracking_is_cut_that_was_needed(pattern: str, parts: list[str]) -> None:
    body = "x*" + pattern.strip("/") + "x"  # ends literally, so only the stars are at stake
    path = "/".join(["x", *parts, "x"])
    compiled = Filter([Rule(include=False, pattern=b"/" + body.encode())])
    parent, _, name = path.rpartition("/")
    assert compiled.excludes_entry(RelPath(parent.encode()), name.encode(), is_dir=False) == reference_match(body, path)


def test_stars_do_not_take_for_ever() -> None:
    compiled = Filter(
        [Rule(include=False, pattern=b"*a" * 40 + b"b"), Rule(include=False, pattern=b"**a/" * 12 + b"**a*b")]
    )
    assert not compiled.excludes(RelPath(b"a" * 250), False)
    assert not compiled.excludes(RelPath(b"a/" * 40 + b"c"), False)


@given(st.lists(st.sampled_from(["- a", "+ a", "- *b", "- c/", "+ *", "- ?", "- [ab]c"]).map(str.encode), max_size=4))
def test_by_name_only_means_that_a_verdict_follows_the_name(rules: list[bytes]) -> None:
    compiled = Filter([rule(text) for text in rules])
    assert compiled.by_name_only
    for name in (b"a", b"b", b"c", b"ab", b"ac"):
        for is_dir in (False, True):
            verdicts = {compiled.excludes_entry(RelPath(parent), name, is_dir) for parent in (b"", b"x", b"x/y")}
            assert len(verdicts) == 1


@pytest.mark.parametrize("pattern", [b"/a", b"a/b", b"a**", b"**", b"a/***", b"[/]"])
def test_a_pattern_that_looks_at_the_path_is_not_by_name_only(pattern: bytes) -> None:
    assert not Filter([Rule(include=False, pattern=pattern)]).by_name_only


def test_trivial() -> None:
    assert Filter([]).is_trivial
    assert Filter([]).by_name_only
    assert not Filter([rule(b"- a")]).is_trivial
    assert not Filter([rule(b"- a")]).excludes(RelPath(b"b/c"), False)


@pytest.mark.parametrize("rules", [[], [b"+ *"], [b"+ /**"], [b"- x"], [b"- /a/b"]], ids=repr)
def test_names_we_write_with_are_always_excluded(rules: list[bytes]) -> None:
    compiled = Filter([rule(text) for text in rules])
    for excluded in (
        b".instep-1.tmp",
        b"a/.instep-ab.tmp",
        b".instep-1.tmp/below",
        b"a/.instep-.tmp/b/c",
        b"q/.instep-\n.tmp",
    ):
        assert compiled.excludes(RelPath(excluded), False), excluded
        parent, _, name = excluded.rpartition(b"/")
        if name.endswith(b".tmp"):
            assert compiled.excludes_entry(RelPath(parent), name, False)
    for kept_path in (b"a.instep-1.tmp", b".instep-1.tmpx", b".instep-x/y.tmp", b"a/.instep-", b"a"):
        assert not compiled.excludes(RelPath(kept_path), False), kept_path


@pytest.mark.parametrize("rules", [[b"- *"], [b"- **"], [b"- /"], [b"- /***"], []], ids=repr)
def test_the_root_is_never_excluded(rules: list[bytes]) -> None:
    assert not Filter([rule(text) for text in rules]).excludes(ROOT, True)


def test_remembered_directories_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "DIRECTORIES_MAX", 10)
    compiled = Filter([rule(b"- /d3"), rule(b"- x")])
    for number in range(100):
        path = RelPath(b"d%d/e/f/g" % number)
        assert compiled.excludes(path, False) == (number == 3)
        assert compiled.excludes(RelPath(b"d3/e/f"), False)
        assert len(compiled._directories) <= 10 + 4


# ---- rules as text -------------------------------------------------------------------------------------------------

# ---- regular expressions -------------------------------------------------------------------------------------------


def test_expressions_are_searched_in_the_whole_path() -> None:
    rules = [
        Rule(True, rb"\Aa/b/a\Z", "", "others"),
        Rule(False, rb"/b/", "", "all"),
        Rule(False, rb"\Ad1\Z|\AB\Z", "", "directories"),
        Rule(False, rb"\n", "", "others"),
        Rule(True, b"ab"),
        Rule(False, b"a*", "", None),
    ]
    compiled = Filter(rules)
    assert not compiled.by_name_only
    assert not compiled.is_trivial
    found = {entry for entry in TREE if not compiled.excludes(RelPath(entry.rstrip(b"/")), entry.endswith(b"/"))}
    assert found == {b"b/", b"b/ab", b"b/c", b"ab/", b"ab/ab/", b"ab/ab/c", b"c", b"A", b"\xff/", b"\xff/\xfe", b"n\nl/",
                     b".h/", b".h/.a", b" ", b"\x01"}  # fmt: skip


def test_an_empty_expression_is_found_everywhere() -> None:
    compiled = Filter([Rule(True, rb"\Ac\Z", "", "all"), Rule(False, b"", "", "others")])
    kept = [
        not compiled.excludes(RelPath(path), is_dir=is_dir)
        for path, is_dir in [(b"c", False), (b"d", False), (b"d", True)]
    ]
    assert kept == [True, False, True]
    assert not compiled.excludes(ROOT, is_dir=True)


FILE = b"# comment\n;another\n\nab\n+ c\r\n- /a/b/\n  # no comment\n b\r/B\n!x\nx \n"


def test_a_pattern_file() -> None:
    assert parse_rules(FILE, False, "F") == (
        Rule(False, b"ab", "F:4"),
        Rule(True, b"c", "F:5"),
        Rule(False, b"/a/b/", "F:6"),
        Rule(False, b"  # no comment", "F:7"),
        Rule(False, b" b", "F:8"),
        Rule(False, b"/B", "F:9"),
        Rule(False, b"!x", "F:10"),
        Rule(False, b"x ", "F:11"),
    )
    assert parse_rules(b"ab", True, "F") == (Rule(True, b"ab", "F:1"),)


@pytest.mark.parametrize("text", [FILE, b"c\n!\na\n", b"- a\n+ b\n", b"*\r", b"\xff\n#a\n\x01\n"], ids=repr)
@pytest.mark.parametrize("include", [False, True])
def test_a_pattern_file_reads_as_rsync_reads_it(source: bytes, tmp_path: Path, text: bytes, *, include: bool) -> None:
    file = tmp_path / "patterns"
    file.write_bytes(text)
    option = b"--include-from=" if include else b"--exclude-from="
    rules = [(b"+ " if each.include else b"- ") + each.pattern for each in parse_rules(text, include, "F")]
    assert kept([*rules, b"- a"]) == rsync(source, option + bytes(file), b"--exclude=a")


def test_clearing() -> None:
    found = parse_rule_text(b"a\n!\nb\n", include_default=False, origin="F")
    assert found == ((Rule(False, b"b", "F:3"),), True)
    assert not parse_rule_text(b"a\n- !\n", include_default=False, origin="F").clears


@pytest.mark.parametrize(
    "line",
    [b"P a", b"R a", b"H a", b"S a", b". file", b"merge file", b"dir-merge .f", b": .f", b":n- .f", b"protect,p x",
     b"hide x", b"-s a", b"-! */", b"+r x", b"-,p a", b"include a", b"exclude a"],
    ids=repr,
)  # fmt: skip
def test_rules_we_cannot_honour_are_refused_with_line_and_fix(line: bytes) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rules(b"ok\n" + line + b"\n", False, "/etc/patterns")
    assert caught.value.code == "unsupported-rule"
    assert caught.value.what.startswith(f"/etc/patterns:2: '{line.decode()}'")
    assert f"write '- {line.decode()}'" in caught.value.fix
    assert parse_rules(b"- " + line, False, "F") == (Rule(False, line, "F:1"),)


@pytest.mark.parametrize(
    "line", [b".git", b"Pa", b"-a", b"+", b"-", b"merge", b"merged files", b"P", b"...", b"-_x y", b"!! a"]
)
def test_odd_names_are_patterns(line: bytes) -> None:
    assert parse_rules(line, False, "F") == (Rule(False, line, "F:1"),)


@pytest.mark.parametrize(("line", "code"), [(b"- ", "empty-rule"), (b"+ ", "empty-rule"), (b"a\0b", "bad-pattern")])
def test_rules_that_say_nothing(line: bytes, code: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_rule(line, include_default=True, origin="--include")
    assert caught.value.code == code


def test_what_stands_there_is_left_out_by_a_rule_alone() -> None:
    directories = Filter([Rule(include=False, pattern=b"x/")])
    assert directories.leaves_out(b"a/x", is_dir=True)
    assert directories.leaves_out(b"x/below", is_dir=False)
    assert not directories.leaves_out(b"a/x", is_dir=False)
    assert not Filter(()).leaves_out(b".instep-1.tmp", is_dir=False)
