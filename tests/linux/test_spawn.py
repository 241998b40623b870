"""Programs started by the C library: what they get, what they do not, and why some cannot be started."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from instep.linux import spawn

pytestmark = pytest.mark.skipif(not spawn.is_available(), reason="the C library cannot close what is inherited")


def test_words_input_and_output(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"given")
    with open(tmp_path / "in", "rb") as given, open(tmp_path / "out", "wb") as out:
        words = (b"sh", b"-c", b'cat; printf "%s|" "$@"; echo bad >&2; exit 3', b"sh", b"a b", b"\xff", b"")
        child = spawn.spawn(words, stdin=given.fileno(), output=out.fileno())
        assert (child.wait(), child.wait(), child.returncode) == (3, 3, 3)
    assert (tmp_path / "out").read_bytes() == b"givena b|\xff||bad\n"


def test_nothing_is_inherited_but_the_first_three(tmp_path: Path) -> None:
    """Not what Lua opened, which knows nothing of closing at exec; and a signal that we ignore ends it as ever."""
    with open(tmp_path / "out", "w+b") as out, open(tmp_path / "kept", "wb") as kept:
        os.set_inheritable(kept.fileno(), True)
        script = b"ls -1 /proc/self/fd | wc -l; cut -d ' ' -f 5 /proc/$$/stat; echo $$; kill -PIPE $$"
        child = spawn.spawn((b"/bin/sh", b"-c", script), output=out.fileno())
        assert child.wait() == -signal.SIGPIPE
        out.seek(0)
        count, group, pid = out.read().split()
    assert int(count) == 4, "three, and the directory that is listed"
    assert group == pid == b"%d" % child.pid


@pytest.mark.parametrize(
    ("word", "number"), [(b"there-is-no-such", errno.ENOENT), (b"/", errno.EACCES), (b"/etc/passwd", errno.EACCES)]
)
def test_what_cannot_be_started(word: bytes, number: int) -> None:
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        spawn.spawn((word,))
    assert caught.value.errno == number
    with pytest.raises(ValueError, match="null byte"):
        spawn.spawn((b"true", b"a\0b"))


def test_a_directory_by_that_name_in_path_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "true").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert spawn.spawn((b"true",)).wait() == 0


def test_an_empty_place_in_path_is_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    for place in (tmp_path, tmp_path / "bin"):
        (place / "prog").write_text(f"#!/bin/sh\nprintf {place}\n")
        (place / "prog").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for path, place in ((f":{tmp_path}/bin", tmp_path), (f"{tmp_path}/bin:", tmp_path / "bin")):
        monkeypatch.setenv("PATH", path)
        with open(tmp_path / "out", "w+b") as out:
            assert spawn.spawn((b"prog",), output=out.fileno()).wait() == 0
            out.seek(0)
            assert out.read() == bytes(place)
