"""Addresses of hosts, ssh's command line, and what its last words mean."""

from __future__ import annotations

import pytest

from instep.engines import ssh
from instep.engines.ssh import Place
from instep.errors import TargetAway, TargetError

PLACES = [
    (b"host:/srv", Place(b"host", b"/srv")),
    (b"host:/srv/", Place(b"host", b"/srv")),
    (b"host:/", Place(b"host", b"/")),
    (b"host:", Place(b"host", b"")),
    (b"host:rel/a", Place(b"host", b"rel/a")),
    (b"me@host:/a:b", Place(b"me@host", b"/a:b")),
    (b"me@[::1]:/a", Place(b"me@::1", b"/a")),
    (b"ssh://host/srv", Place(b"host", b"/srv")),
    (b"ssh://me@host:2222/srv/", Place(b"me@host", b"/srv", 2222)),
    (b"ssh://[fe80::1]:22/x", Place(b"fe80::1", b"/x", 22)),
    (b"ssh://host/~/rel", Place(b"host", b"rel")),
    (b"ssh://host", Place(b"host", b"")),
    (b"ssh://host/", Place(b"host", b"/")),
    (b"ssh://host:port/x", None),
    (b"ssh:///x", None),
    (b"rsync://host/module", None),
    (b"host::module", None),
    (b"/local:x", None),
    (b"./a:b", None),
    (b":/x", None),
]


@pytest.mark.parametrize(("target", "place"), PLACES, ids=[repr(target) for target, _ in PLACES])
def test_an_address_is_taken_apart(target: bytes, place: Place | None) -> None:
    assert ssh.place(target) == place


def test_the_command_never_asks_and_never_waits_for_ever() -> None:
    line = ssh.command([b"ssh", b"-i", b"key"], port=2222)
    assert line[:3] == [b"ssh", b"-i", b"key"]
    assert {b"BatchMode=yes", b"ConnectTimeout=10", b"ServerAliveInterval=5"} <= set(line)
    assert line[line.index(b"-p") + 1] == b"2222"
    assert b"-p" not in ssh.command([b"ssh"])


CHANGED = b"""@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@
Host key for [127.0.0.1]:34645 has changed and you have requested strict checking.\r
Host key verification failed.\r
"""


@pytest.mark.parametrize(
    ("stderr", "fatal", "words"),
    [
        (CHANGED, True, "has changed and you have requested strict checking.; Host key verification failed."),
        (b"root@h: Permission denied (publickey).\r\n", True, "root@h: Permission denied (publickey)."),
        (b"/k: line 1: Bad configuration option: x\n", True, "Bad configuration option"),
        (b"ssh: connect to host h port 22: Connection refused\r\n", False, "Connection refused"),
        (b"ssh: Could not resolve hostname h: Name or service not known\n", False, "Could not resolve"),
        (b"\xff\n", False, "\\xff"),
        (b"", False, "exit status 255"),
    ],
)
def test_a_failure_has_the_words_of_ssh(stderr: bytes, fatal: bool, words: str) -> None:
    error = ssh.failure(b"h", 255, stderr)
    assert isinstance(error, TargetError if fatal else TargetAway)
    assert words in str(error)
