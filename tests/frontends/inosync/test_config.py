"""inosync's configuration files: what is read, and what is refused with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instep.errors import UsageError
from instep.frontends.inosync.config import assignments, checked, load


def read(text: str) -> dict[str, object]:
    return assignments(text.encode(), origin="f.py")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('wpaths = ["/a/", "/b/"]  # both', {"wpaths": ["/a/", "/b/"]}),
        ("'''A text at the top.'''\nedelay = 1.5\nrspeed = -3", {"edelay": 1.5, "rspeed": -3}),
        ('a = b = u"x"', {"a": "x", "b": "x"}),
        ('base = "/srv"\nwpaths = [base + "/a/", "%s/b/" % base, f"{base}/c/"]', None),
        ('rexcludes = ["a"]\nrexcludes += ["b"]', {"rexcludes": ["a", "b"]}),
        ("edelay = 60 * 5", {"edelay": 300}),
        ('p = ("/a", "/b")', {"p": ["/a", "/b"]}),
        ('p = "%s:%s 100%%" % ("h", 22)', {"p": "h:22 100%"}),
        ("x = None\npass", {"x": None}),
        # Python 2's; what only looks like it, in texts and comments, stays as it is.
        ("a = 0644\nb = [10L, 0xffL, -0l, 00, 007L]", {"a": 420, "b": [10, 255, 0, 0, 7]}),
        (
            r'''a = ur"\d 0644"; b = ['010 \' 7L', """5L
          " 011"""]  # 0644 isn't''',
            {"a": "\\d 0644", "b": ["010 ' 7L", '5L\n          " 011']},
        ),
        ("a0644 = 1.5e3; b = 01 + 0.5; c = b'x'", {"a0644": 1500.0, "b": 1.5, "c": "x"}),
        ('# -*- coding: latin-1 -*-\np = "\xe9"'.encode("latin-1").decode("latin-1"), None),
    ],
)
def test_plain_assignments_are_read(text: str, values: dict[str, object] | None) -> None:
    found = read(text)
    if values is not None:
        assert found == values
    elif "base" in text:
        assert found["wpaths"] == ["/srv/a/", "/srv/b/", "/srv/c/"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nprint 'x'", "f.py:2: not the syntax of Python: "),
        ("x = 0644\ny = 089", "f.py:2: not the syntax of Python: "),
        ("x = `y`", "f.py:1: not the syntax of Python: "),
        ("try:\n  x = 1\nexcept E, e:\n  pass", "not the syntax of Python: "),
        ("import os", "f.py:1: more than an assignment"),
        ("x = 1\nfor i in []: pass", "f.py:2: more than an assignment"),
        ('x = open("/etc/passwd").read()', "f.py:1: .* is more than a plain value"),
        ("x = y", "f.py:1: y is more than a plain value"),
        ('x = "a" * 1000000000', "more than a plain value"),
        ('x = "%d" % 3', "only %s is filled in"),
        ("x = [1] + 2", "cannot be joined"),
        ("x.y = 1", "more than an assignment"),
        ("x = 'a\0b'", "f.py:1: "),
    ],
)
def test_anything_else_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(text)


@pytest.fixture
def watched(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "w").mkdir()
    return {"wpaths": [f"{tmp_path}/w/"], "rpaths": ["/t/"], "rnodes": ["h:"]}


def test_defaults(watched: dict[str, object]) -> None:
    config = checked(watched, origin="f.py")
    assert (config.edelay_s, config.rspeed, config.extra, config.rexcludes) == (10, 0, "", ((),))
    assert config.rsync == "/usr/bin/rsync"


def test_the_older_form(watched: dict[str, object], tmp_path: Path) -> None:
    config = checked({"wpath": f"{tmp_path}/w", "rnodes": ["h:/t"]}, origin="f.py")
    assert (config.wpaths, config.rpaths) == ((f"{tmp_path}/w",), ("",))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"wpaths": []}, "no paths given to watch"),
        ({"wpaths": ["/nowhere/"]}, "one of the watch paths does not exist: /nowhere/"),
        ({"rpaths": []}, "the no. of remote paths must be equal to the number of watched paths"),
        ({"rnodes": None}, "no remote nodes given"),
        ({"rnodes": [1]}, "rnodes must be a list of texts"),
        ({"emask": ["IN_BOGUS"]}, "invalid inotify event: IN_BOGUS"),
        ({"edelay": -1}, "event delay needs to be greater or equal to 0"),
        ({"edelay": "soon"}, "edelay must be a number"),
        ({"rspeed": float("inf")}, "rspeed must be a number"),
        ({"logfile": "a\0b"}, "logfile holds a character that no file's name can have"),
        ({"rnodes": ["\ud800"]}, "rnodes holds a character that no file's name can have"),
        ({"rsync": "rsync"}, "rsync path needs to be absolute"),
        ({"rsync": "/no/rsync"}, "rsync binary does not exist: /no/rsync"),
        ({"rexcludes": [["a"], ["b"]]}, "rexcludes must be one list of patterns, or one list for each"),
        ({"extra": ["-a"]}, "extra must be a text"),
    ],
)
def test_what_cannot_be_is_refused(watched: dict[str, object], change: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        checked({**watched, **change}, origin="f.py")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        load(str(tmp_path / "none.py"))
