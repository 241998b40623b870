"""One ssh connection for each far target: moves and rsync's runs go over it, instead of one of their own.

Facts (OpenSSH 9.2): a client whose control socket is not there makes a connection of its own, so nothing waits for
ours, and a run under way is not lost with it. A login takes 200 ms, a client of a connection that is there 10.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any, Final

from instep.frontends.lsyncd.companions import Companions
from instep.frontends.lsyncd.fast import is_usual
from instep.frontends.lsyncd.handler import Sync
from instep.linux.prctl import ending_with_us

SOCKET_PATH_BYTES: Final = 80
"""A socket's path may have 107 bytes, and ssh adds 17 for a while."""
PREFIX: Final = "instep-ssh-"
RETRY_S: Final = 10.0
_SPECIAL: Final = b" \t\"'\\%$"
"""What ssh, or rsync in its ``--rsh``, takes for more than itself."""


class Connections:
    """Those that are kept, and the words by which others go over them."""

    def __init__(self, companions: Companions) -> None:
        """Begin with none.

        Args:
            companions: what keeps programs running.
        """
        self._companions = companions
        self._directory: bytes | None = None
        self._sockets: dict[int, tuple[bytes, bool]] = {}

    def keep(self, sync: Sync) -> None:
        """Keep a connection to the target of a sync, unless something of its own is to be run as ssh."""
        config = sync.config
        options = config[b"ssh"]
        if sync.tunnel is not None or options[b"binary"] != b"ssh" or _has_own(options):
            return
        directory = self._place()
        if directory is None:
            return
        socket = directory + b"/%d" % sync.number
        rsync = config[b"rsync"]
        self._sockets[sync.number] = (socket, is_usual(rsync[b"binary"]) and rsync[b"rsh"] is None)
        master = (
            *(b"ssh", b"-q", *options[b"_computed"].values(), b"-M", b"-N", *_over(socket)[:2]),
            *(b"-o", b"ControlPersist=no", b"-o", b"RemoteCommand=none", b"-o", b"BatchMode=yes"),
            *(b"-o", b"ServerAliveInterval=15", b"--", config[b"host"]),
        )
        self._companions.keep(ending_with_us(master), retry_s=RETRY_S)

    def words(self, number: int, *, for_rsync: bool) -> Sequence[bytes]:
        """What is to be put behind ``ssh`` for the sync of this number; nothing where none is kept."""
        socket, also_rsync = self._sockets.get(number, (b"", False))
        return _over(socket) if socket and (also_rsync or not for_rsync) else ()

    def close(self) -> None:
        """Remove the sockets' directory."""
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _place(self) -> bytes | None:
        """A private directory with a short and plain path; None where there is none."""
        if self._directory is None:
            for parent in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
                bare = os.fsencode(parent or "")
                if not bare or len(bare) > SOCKET_PATH_BYTES - 30 or any(char in _SPECIAL for char in bare):
                    continue
                if os.access(bare, os.W_OK | os.X_OK):
                    self._directory = os.fsencode(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
                    break
        return self._directory


def _over(socket: bytes) -> tuple[bytes, ...]:
    return b"-o", b"ControlPath=" + socket, b"-o", b"ControlMaster=no"


def _has_own(options: Any) -> bool:
    """Whether the configuration itself says how connections are shared."""
    words = [bytes(word).lower() for word in options[b"_computed"].values()]
    return any(b"control" in word or word.startswith((b"-s", b"-m")) for word in words)
