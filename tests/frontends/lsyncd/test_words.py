"""lsyncd's command line."""

from __future__ import annotations

import pytest

from instep.frontends.lsyncd.words import CommandLine, WordsError, log_words, read


def test_one_and_two_dashes_are_the_same() -> None:
    one = read(["-rsync", "/s", "/t", "-delay", "0.5", "-insist", "-nodaemon", "-logfile", "/l", "-pidfile", "/p"])
    two = read(
        ["--rsync", "/s", "/t", "--delay", "0.5", "--insist", "--nodaemon", "--logfile", "/l", "--pidfile", "/p"]
    )
    assert one == two
    assert one.syncs == [{b"": b"rsync", b"source": b"/s", b"target": b"/t"}]
    assert one.delay_s == 0.5
    assert one.settings == {b"insist": True, b"nodaemon": True, b"logfile": b"/l", b"pidfile": b"/p"}


def test_syncs_may_be_mixed_and_repeated() -> None:
    line = read(["-rsync", "/a", "/b", "-direct", "/c", "/d", "-rsyncssh", "/e", "h", "f", "-rsync", "-x", "--y",
                 "-sshopts", "-p 22 -o 'A b'"])  # fmt: skip
    assert [sync[b""] for sync in line.syncs] == [b"rsync", b"direct", b"rsyncssh", b"rsync"]
    assert line.syncs[3][b"source"] == b"-x", "values are the words that follow, whatever they begin with"
    assert line.syncs[2][b"ssh"] == {b"_extra": {1: b"-p", 2: b"22", 3: b"-o", 4: b"A b"}}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bogus"], "unknown option command line option --bogus"),
        (["-delay"], "delay needs 1 arguments"),
        (["-rsync", "/a"], "rsync needs 2 arguments"),
        (["a.lua", "-rsync", "/a", "/b"], "There cannot be command line syncs and a config file together."),
        (["a.lua", "b.lua"], "There can only be one config file in the command line."),
        (["-delay", "soon", "a.lua"], "delay must be a number and >= 0"),
        *(
            (["-delay", each, "a.lua"], "delay must be a number and >= 0")
            for each in ("-1", "1_0", "", "0x", "inf", "1e")
        ),
        (["-monitor", "kqueue"], 'event monitor "kqueue" unknown'),
        (["-bogus", "-version"], "unknown option command line option -bogus"),
    ],
)
def test_what_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(WordsError, match=said):
        read(words)


@pytest.mark.parametrize(
    ("words", "said", "status"),
    [
        ([], "usage: lsyncd", 255),
        (["-rsync", "-help"], "usage: lsyncd", 255),
        (["--version"], "Version: 2.3.1", 0),
        (["-version", "-bogus"], "Version: 2.3.1", 0),
        (["-monitor"], "inotify", 255),
    ],
)
def test_what_is_only_answered(words: list[str], said: str, status: int) -> None:
    line: CommandLine = read(words)
    assert line.answer is not None
    assert line.answer.startswith(said)
    assert line.status == status


@pytest.mark.parametrize(
    ("given", "delay_s"), [("0x1", 1), ("0xA.8p1", 21), (" 2 ", 2), (".5", 0.5), ("5.", 5), ("1e-1", 0.1), ("+3", 3)]
)
def test_numbers_are_lua_s(given: str, delay_s: float) -> None:
    assert read(["-delay", given, "a.lua"]).delay_s == delay_s


def test_log_categories_are_looked_for_everywhere() -> None:
    assert log_words(["-log", "Exec", "x.lua", "--log", "all", "-log", "scarce"]) == ["Exec", "all", "scarce"]
    with pytest.raises(WordsError, match="'exec' is not a valid logging category"):
        log_words(["-log", "exec"])
