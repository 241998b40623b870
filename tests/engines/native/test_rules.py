"""Rules that are regular expressions, also in the engine's workers."""

from __future__ import annotations

import os

import pytest

from instep.paths import Scope
from instep.rules import Rule
from tests.engines.native.rig import Rig, well, write

RULES = (
    Rule(True, rb"\Akept/\d+\Z", "rules:1", "others"),
    Rule(False, rb"\d", "rules:2", "others"),
    Rule(False, rb"(?:\A|/)no[a-z]*\Z", "rules:3", "directories"),
)


def below(top: bytes) -> set[bytes]:
    return {
        os.path.relpath(os.path.join(directory, name), top)
        for directory, directories, files in os.walk(top)
        for name in [*directories, *files]
    }


@pytest.mark.parametrize("now", [False, True])
def test_regular_expressions(base: bytes, now: bool) -> None:
    with Rig(base, rules=RULES) as rig:
        for directory in (b"kept", b"not", b"deep", b"deep/none"):
            os.mkdir(rig.s(directory))
            for name in (b"1", b"a", b"no"):
                write(rig.s(directory + b"/" + name))
        os.mkdir(rig.d(b"not"))
        write(rig.d(b"not/there"))
        well(rig.tree())
        wanted = {b"kept", b"kept/1", b"kept/a", b"kept/no", b"deep", b"deep/a", b"deep/no", b"not", b"not/there"}
        assert below(rig.dst) == wanted
        for name in (b"deep/2", b"deep/b", b"kept/2", b"not/b"):
            write(rig.s(name))
        well(rig.bring(b"deep", b"kept", scope=Scope.TREE, now=now))
        assert below(rig.dst) == wanted | {b"deep/b", b"kept/2"}


@pytest.mark.parametrize("now", [False, True])
@pytest.mark.parametrize("directory", [False, True])
def test_what_is_excluded_by_what_it_has_become_stays_here(base: bytes, *, now: bool, directory: bool) -> None:
    """The report was of something else under this name, which has to go; what the target has of the kind stays."""
    rules = (Rule(False, b"x/"),) if directory else (Rule(True, b"x/"), Rule(False, b"x"))

    def make(path: bytes, kind: bool) -> None:
        if kind:
            os.mkdir(path)
        else:
            write(path)

    with Rig(base, rules=rules) as rig:
        make(rig.s(b"x"), not directory)
        well(rig.bring(b"x", now=now))
        assert below(rig.dst) == {b"x"}
        os.rename(rig.s(b"x"), base + b"/aside")
        make(rig.s(b"x"), directory)
        for _ in range(2):
            well(rig.bring(b"x", now=now))
            assert below(rig.dst) == set()
        make(rig.d(b"x"), directory)
        well(rig.bring(b"x", now=now))
        assert below(rig.dst) == {b"x"}
