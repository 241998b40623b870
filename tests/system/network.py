"""Two machines' networks as namespaces of this one, joined by a cable that can be pulled out; for root only.

Whatever listens over there does so on addresses that exist in its namespace alone. A cable that is pulled out closes
nothing: no packet tells either end. Facts (ip(8), Linux 6.x): a namespace lives as long as a process in it; both ends
of a veth pair can be made in namespaces named by such processes; 68 bytes are the least MTU of IPv4.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.system.sshd import end_with_parent, why_unavailable

NEAR, NEAR_TOO = "192.0.2.1", "192.0.2.2"
FAR, FAR_TOO = "192.0.2.3", "192.0.2.4"
"""Of the block for documentation (RFC 5737): nobody's."""


@functools.cache
def why_no_network() -> str | None:
    """Why there can be no such networks here; None when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        return "needs ip, unshare and nsenter"
    try:
        with cabled():
            return None
    except (OSError, AssertionError, subprocess.CalledProcessError) as error:
        return f"no network namespaces here: {error}"


class Cable:
    """What joins the two, as its user sees it."""

    def __init__(self, near: int, far: int) -> None:
        """The processes that keep the namespaces."""
        self._near, self._far = near, far
        _run("ip", "link", "add", "near", "netns", str(near), "type", "veth", "peer", "name", "far", "netns", str(far))
        for words, device, addresses in ((self.near, "near", [NEAR]), (self.far, "far", [FAR, FAR_TOO])):
            for address in addresses:
                _run(*words, "ip", "address", "add", f"{address}/24", "dev", device)
            for each in ("lo", device):
                _run(*words, "ip", "link", "set", each, "up")

    @property
    def near(self) -> list[str]:
        """Words before a command, to run it on the near machine."""
        return ["nsenter", f"--net=/proc/{self._near}/ns/net"]

    @property
    def far(self) -> list[str]:
        """The same for the far one."""
        return ["nsenter", f"--net=/proc/{self._far}/ns/net"]

    def sent_bytes(self) -> int:
        """What has left the near machine so far, down to the headers of its packets."""
        with open(f"/proc/{self._near}/net/dev", encoding="ascii") as devices:
            words = next(line for line in devices if line.lstrip().startswith("near:")).partition(":")[2].split()
        return int(words[8])

    def pull_out(self) -> None:
        """No packet goes through any more."""
        _run(*self.far, "ip", "link", "set", "far", "down")

    def plug_in(self) -> None:
        """They go through again."""
        _run(*self.far, "ip", "link", "set", "far", "up")

    def lose_answers(self) -> None:
        """What is sent arrives over there, and nothing comes back: the far machine finds no way to the near one."""
        _run(*self.far, "ip", "route", "add", "blackhole", f"{NEAR}/32")

    def find_answers(self) -> None:
        """They come back again."""
        _run(*self.far, "ip", "route", "del", "blackhole", f"{NEAR}/32")

    def move_near(self) -> None:
        """The near machine gets another address, and loses the one it had."""
        _run(*self.near, "ip", "address", "del", f"{NEAR}/24", "dev", "near")
        _run(*self.near, "ip", "address", "add", f"{NEAR_TOO}/24", "dev", "near")

    def move_far(self) -> None:
        """The far machine loses the first one of its two addresses."""
        _run(*self.far, "ip", "address", "del", f"{FAR}/24", "dev", "far")
        # The kernel may take those that came after the first one of a network away together with it.
        _run(*self.far, "ip", "address", "replace", f"{FAR_TOO}/24", "dev", "far")

    def narrow(self, mtu: int) -> None:
        """No packet is longer than so many bytes from now on."""
        for words, device in ((self.near, "near"), (self.far, "far")):
            _run(*words, "ip", "link", "set", device, "mtu", str(mtu))


@contextlib.contextmanager
def cabled() -> Iterator[Cable]:
    """Two networks and their cable, for as long as the context lasts or this process lives."""
    holders: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(2):
            holder = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", "echo ready; exec cat"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                preexec_fn=end_with_parent,  # noqa: PLW1509  # it takes no lock
            )
            holders.append(holder)
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"ready\n", "unshare --net is not permitted"
        yield Cable(*(holder.pid for holder in holders))
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


def _run(*words: str) -> None:
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


NEEDS_NETWORKS = [
    pytest.mark.root,
    *(pytest.mark.skipif(why is not None, reason=why or "") for why in (why_unavailable(), why_no_network())),
]
"""For ``pytestmark``: an sshd, in such a network."""
