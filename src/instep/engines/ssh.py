"""The system's ssh, as every engine that needs it starts it; and what its last words mean.

Facts (OpenSSH 9.2, ssh(1), ssh_config(5)): of several values for one setting the first counts, so options on the
command line win over the user's configuration, where hosts, keys, jump hosts and the like stay as they are. With
BatchMode nothing is ever asked, neither a password nor whether a host is known. Exit status 255 is ssh's own; any other
is the remote command's. The words for a changed host key are fifteen lines, of which the last two tell most.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from instep.errors import TargetAway, TargetError

COMMAND: tuple[bytes, ...] = (b"ssh",)
"""When nothing else was asked for."""

OWN_FAILURE = 255
CONNECT_S = 10
ALIVE_INTERVAL_S = 5
ALIVE_COUNT = 3
"""A connection on which nothing comes back is given up after the product of both."""

_HOST = re.compile(rb"((?:[^@:/]+@)?(?:\[[^]/]*\]|[^:/\[]*)):(.*)", re.DOTALL)
_URL = re.compile(rb"ssh://((?:[^@/]+@)?)(\[[^]/]*\]|[^:/\[\]]+)(?::([0-9]{1,5}))?((?:/.*)?)", re.DOTALL)

_FATAL = (
    b"Host key verification failed",
    b"Permission denied (",
    b"Too many authentication failures",
    b"no matching host key type found",
    b"no matching key exchange method found",
    b"no matching cipher found",
    b"no matching MAC found",
    b"Bad configuration option",
    b"bad configuration option",
    b"Bad owner or permissions on",
    b"unknown option --",
    b"illegal option --",
    b"invalid option --",
    b"usage: ssh",
)
"""Words after which another try cannot end otherwise, until somebody has changed something."""


class Place(NamedTuple):
    """A directory on a host that ssh reaches."""

    host: bytes
    """``user@host``, without the brackets of an IPv6 address; what ssh's configuration knows it by."""
    path: bytes
    """Absolute, or relative to the home directory there; empty for that itself. Without trailing slash."""
    port: int | None = None


def place(target: bytes) -> Place | None:
    """Take ``host:path``, ``user@host:path`` or ``ssh://user@host:port/path`` apart; None for anything else.

    As rsync has it, a colon before the first slash makes an address remote; two colons are an rsync daemon's. Below
    ``ssh://host`` stands an absolute path, or after ``/~/`` one relative to the home directory.
    """
    if target.startswith(b"ssh://"):
        url = _URL.fullmatch(target)
        if url is None:
            return None
        user, host, port, path = url.groups()
        path = path[3:] if path.startswith(b"/~/") else path
        return Place(user + host.strip(b"[]"), _bare(path), int(port) if port else None)
    if target.startswith(b"rsync://"):
        return None
    found = _HOST.fullmatch(target)
    if found is None or found[2].startswith(b":") or not found[1].rpartition(b"@")[2]:
        return None
    return Place(found[1].replace(b"[", b"").replace(b"]", b""), _bare(found[2]))


def _bare(path: bytes) -> bytes:
    return path.rstrip(b"/") or path[:1]


def command(words: Sequence[bytes], *, port: int | None = None) -> list[bytes]:
    """The start of every ssh command line of ours: it never asks, never waits for ever, forwards nothing."""
    return [
        *words,
        *(b"-T", b"-a", b"-x", b"-o", b"BatchMode=yes", b"-o", b"ClearAllForwardings=yes"),
        *(b"-o", b"ConnectTimeout=%d" % CONNECT_S),
        *(b"-o", b"ServerAliveInterval=%d" % ALIVE_INTERVAL_S, b"-o", b"ServerAliveCountMax=%d" % ALIVE_COUNT),
        *((b"-p", b"%d" % port) if port is not None else ()),
    ]


def said(stderr: bytes) -> str:
    """The end of what ssh said, which names the reason, in one line."""
    lines = [line.strip() for line in stderr.splitlines()]
    telling = [line for line in lines if line and not line.startswith(b"@")]
    return "; ".join(line.decode("utf-8", "backslashreplace") for line in telling[-2:])


def is_fatal(stderr: bytes) -> bool:
    """Whether trying again is of no use: the host key or the login was refused, or ssh is configured wrongly."""
    return any(words in stderr for words in _FATAL)


def failure(host: bytes, status: int, stderr: bytes) -> TargetAway | TargetError:
    """The error for an ssh that could not connect, with its own words."""
    shown = host.decode("utf-8", "backslashreplace")
    words = said(stderr) or f"ssh ended with exit status {status} and said nothing"
    if not is_fatal(stderr):
        return TargetAway(f"ssh cannot connect to {shown}: {words}")
    return TargetError(
        "ssh-refused",
        f"ssh cannot log in to {shown}: {words}",
        fix=f"make this work without any question asked: ssh -o BatchMode=yes {shown} true",
    )
