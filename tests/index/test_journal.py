"""The journal: what was noted is there after the death of the process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.index import journal as module
from instep.index.journal import Journal, read_journal
from instep.paths import Scope

PATHS = st.binary(min_size=0, max_size=300).filter(lambda path: b"\0" not in path)


@pytest.fixture
def path(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path / "j")


@settings(max_examples=50)
@given(
    notes=st.lists(st.tuples(PATHS, st.sampled_from(Scope)), max_size=40),
    first=st.dictionaries(PATHS, st.sampled_from(Scope)),
)
def test_notes_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, notes: list[tuple[bytes, Scope]], first: dict[bytes, Scope]
) -> None:
    path = os.fsencode(tmp_path_factory.mktemp("j") / "j")
    journal = Journal(path, first)
    expected = dict(first)
    for name, scope in notes:
        journal.note(name, scope)
        expected[name] = max(scope, expected.get(name, Scope.ENTRY))
    assert read_journal(path) == expected
    journal.restart({b"only": Scope.TREE})
    assert read_journal(path) == {b"only": Scope.TREE}
    journal.note(b"more", Scope.ENTRY)
    assert read_journal(path) == {b"only": Scope.TREE, b"more": Scope.ENTRY}
    journal.close()


def test_it_grows(path: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROW_BYTES", 4096)
    journal = Journal(path, {})
    names = [b"%05d" % number * 20 for number in range(1000)]
    for name in names:
        journal.note(name, Scope.ENTRY)
    assert read_journal(path) == dict.fromkeys(names, Scope.ENTRY)
    journal.close()


def test_it_survives_kill_9(path: bytes) -> None:
    child = os.fork()
    if not child:
        try:
            journal = Journal(path, {})
            journal.note(b"a path", Scope.TREE)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert read_journal(path) == {b"a path": Scope.TREE}


def test_half_a_note_does_no_harm(path: bytes) -> None:
    journal = Journal(path, {b"whole": Scope.ENTRY})
    journal.close()
    with open(path, "r+b") as file:
        file.seek(len(b"ewhole\0"))
        file.write(b"thal")
    assert read_journal(path) == {b"whole": Scope.ENTRY, b"hal": Scope.TREE}


def test_what_is_no_journal_says_so(path: bytes) -> None:
    assert read_journal(path) is None
    for text in (b"xpath\0", b"epath without an end"):
        with open(path, "wb") as file:
            file.write(text)
        assert read_journal(path) is None


def test_no_room_is_an_error_not_a_signal(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        Journal(os.fsencode(tmp_path / "nowhere" / "j"), {})
