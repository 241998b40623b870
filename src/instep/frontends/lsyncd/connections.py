"""One ssh connection for each far target: moves and rsync's runs go over it, instead of one of their own.

Facts (OpenSSH 9.2): a client whose control socket is not there makes a connection of its own, so nothing waits for
ours, and a run under way is not lost with it. A login takes 200 ms, a client of a connection that is there 10.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any, Final

from instep.frontends.lsyncd.companions import Companions
from instep.frontends.lsyncd.fast import is_usual
from instep.frontends.lsyncd.syncs import Sync
from instep.linux.prctl import ending_with_us
from instep.linux.sshsockets import private_directory

RETRY_S: Final = 10.0


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
        if self._directory is None:
            self._directory = private_directory()
            if self._directory is None:
                return
        socket = self._directory + b"/%d" % sync.number
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


def _over(socket: bytes) -> tuple[bytes, ...]:
    return b"-o", b"ControlPath=" + socket.replace(b"%", b"%%"), b"-o", b"ControlMaster=no"


def _has_own(options: Any) -> bool:
    """Whether the configuration itself says how connections are shared."""
    words = [bytes(word).lower() for word in options[b"_computed"].values()]
    return any(b"control" in word or word.startswith((b"-s", b"-m")) for word in words)
