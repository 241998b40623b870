"""How it ends when it cannot begin: exit status and message, beside the distribution's lsyncd."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from instep.frontends.lsyncd.main import main
from instep.ports import Observer
from instep.spec import MirrorSpec
from tests.frontends.lsyncd.daemon import DEBIANS

pytestmark = pytest.mark.skipif(DEBIANS is None, reason="needs lsyncd")

SYNC = 'sync{ default.rsync, source="s", target="t" }'


def far(more: str) -> str:
    return f'sync{{ default.rsyncssh, source="s", {more} }}'


CASES: list[tuple[Sequence[str], str]] = [
    # words, and a configuration that stands for CONFIG among them
    ([], ""),
    (["-help"], ""),
    (["--help", "-bogus"], ""),
    (["-bogus"], ""),
    (["--bogus"], ""),
    (["-delay"], ""),
    (["-rsync", "s"], ""),
    (["-rsyncssh", "s", "host"], ""),
    (["-direct", "s"], ""),
    (["-delay", "x", "-rsync", "s", "t"], ""),
    (["-log", "x", "-rsync", "s", "t"], ""),
    (["-monitor"], ""),
    (["--runner", "x.lua"], ""),
    (["-monitor", "none", "-rsync", "s", "t"], ""),
    (["CONFIG", "-rsync", "s", "t"], SYNC),
    (["CONFIG", "other.lua"], SYNC),
    (["none.lua"], ""),
    (["-rsync", "none", "t"], ""),
    (["-nodaemon", "-logfile", "/none/log", "-rsync", "s", "t"], ""),
    *((["CONFIG"], text) for text in (
        "boo(",
        "x = = 1",
        "error('mine')",
        "error()",
        "nothing.x = 1",
        "terminate(7)",
        "terminate(300)",
        "",
        "settings{ foo=1 }",
        "settings{ nodaemon=true }",
        "settings{ inotifyMode='Foo', nodaemon=true }\n" + SYNC,
        "settings{ logfacility='zz' }\n" + SYNC,
        "\nsync{ target='x' }",
        "sync{ default.rsync, source='none', target='t' }",
        "sync{ default.rsync, source='s' }",
        "sync{ default.direct, source='s' }",
        "sync{ default.rsync, source='s', target='t', rsync={ archve=true } }",
        "sync{ default.rsync, source='s', target='t', rsync=true }",
        "sync{ default.rsync, source='s', target='t', onCreate='true' }",
        "sync{ default.rsync, source='s', target='t', delay='x' }",
        "sync{ default.rsync, source='s', target='t', delay=-1 }",
        "sync{ default.rsync, source='s', target='t', exclude=5 }",
        "sync{ default.rsync, source='s', target='t', excludeFrom='/none' }",
        "sync{ default.rsync, source='s', target='t', filter={ 'zzz' } }",
        "sync{ default.rsync, source='s', target='t', filterFrom='/none' }",
        "sync{ source='s', exclude='x', onCreate='true' }",
        "sync{ source='s', nonsense=1 }",
        far("targetdir='t'"),
        far("host='h'"),
        far("host='h', targetdir='t', target='u'"),
        far("host='h', targetdir='t', maxProcesses=3"),
        far("host='h', targetdir='t', ssh={ prt=1 }"),
    )),
]  # fmt: skip

SAID_OTHERWISE = frozenset({
    "", "--runner x.lua", "-help", "--help -bogus", "-delay x -rsync s t", "c.lua: error()",
    "c.lua: sync{ default.rsyncssh, source=\"s\", host='h', targetdir='t', target='u' }",
})  # fmt: skip
"""Where only the status is the same."""


def ours(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    def run(handler: Observer, mirrors: Sequence[MirrorSpec], *, told: Callable[[int], None]) -> tuple[int, int]:
        raise AssertionError(f"{words} are accepted")

    capsys.readouterr()
    status = main(words, run=run, detach=lambda _: lambda _: None)
    return status, message(capsys.readouterr().err)


def theirs(words: Sequence[str]) -> tuple[int, str]:
    assert DEBIANS is not None
    done = subprocess.run(
        [DEBIANS, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, message(done.stderr)


def message(text: str) -> str:
    """What is said at last, without the place in the configuration, which lsyncd leaves out now and then."""
    last = text.rstrip("\n").rpartition("\n")[2]
    return re.sub(r"^[\d:]* ?Error: |(error preparing )?\S*c\.lua: |\S*\.lua:\d+: ", "", last)


def test_the_same_cases_end_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lupa")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").mkdir()
    apart = {}
    for words, text in CASES:
        (tmp_path / "c.lua").write_text(text)
        given = ["c.lua" if word == "CONFIG" else word for word in words]
        name = ": ".join(filter(None, (" ".join(given), text)))
        one, other = ours(given, capsys), theirs(given)
        if one[0] != other[0] or (name not in SAID_OTHERWISE and one != other):
            apart[name] = (one, other)
    assert apart == {}
