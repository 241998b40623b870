"""A real sshd on 127.0.0.1 with keys and configuration of its own, and ways to disturb it."""

from __future__ import annotations

import contextlib
import ctypes
import getpass
import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tests.system.proxy import Proxy

DEADLINE_S = 60.0
STEP_S = 0.01
HOST = "there"
"""The name under which clients know it; ``there2``, ``therein`` … are the same."""


def why_unavailable() -> str | None:
    """Why there can be no sshd here; None when there can."""
    if not (_program() and shutil.which("ssh") and shutil.which("ssh-keygen")):
        return "needs ssh and sshd"
    with contextlib.suppress(KeyError):
        shell = pwd.getpwuid(os.geteuid()).pw_shell
        if os.path.basename(shell) not in ("nologin", "false"):
            return None
    return "needs a user who may log in"


class Sshd:
    """The server, with all a client needs to reach it.

    Attributes:
        base: Holds keys, configuration, logs and programs; may be removed after ``close``.
        ssh: The client's command, as for ``instep --ssh``.
        programs: A directory whose ``ssh`` is that command: put it first in PATH where ``ssh`` cannot be chosen.

    Sessions have an empty home, so that no start-up file of the user counts, and find the python3 that runs this.
    """

    def __init__(
        self,
        base: Path,
        *,
        quick: bool = True,
        addresses: Sequence[str] = ("127.0.0.1",),
        near: Sequence[str] = (),
        far: Sequence[str] = (),
    ) -> None:
        """Not yet started.

        Args:
            base: An empty directory, or one to be made; without blanks in its path.
            quick: Use the cheapest key exchange, which saves 100 ms a connection. Benchmarks take ssh as it comes.
            addresses: Where it listens; clients use the first one.
            near: Words before the client's command, to run it in another network.
            far: The same for the server.
        """
        self.base = base
        self.port = 0
        self.ssh = shlex.join([*near, "ssh", "-F", f"{base}/ssh_config"])
        self.addresses = list(addresses)
        self._far = tuple(far)
        self.programs = base / "bin"
        self.log = base / "sshd.log"
        self._quick = quick
        self._hosts: dict[str, str] = {}
        self._proxies: list[Proxy] = []
        self._process: subprocess.Popen[bytes] | None = None
        base.mkdir(exist_ok=True)
        base.chmod(0o700)
        for name in ("host", "user"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", base / name], check=True)
        self.authorize()
        (base / "home").mkdir()
        (base / "far").mkdir()
        (base / "far/python3").symlink_to(os.path.realpath(sys.executable))
        self.programs.mkdir()
        (self.programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {base}/ssh_config "$@"\n')
        (self.programs / "ssh").chmod(0o755)

    # -- who may do what ----------------------------------------------------------------------------------------

    def authorize(self, options: str = "") -> None:
        """Let the client's key in, with these options of authorized_keys(5); counts from the next connection on."""
        line = (self.base / "user.pub").read_text()
        (self.base / "authorized").write_text(f"{options} {line}" if options else line)

    def refuse(self) -> None:
        """Let nobody in."""
        (self.base / "authorized").write_text("")

    def force(self, command: str) -> None:
        """Run this command for every session, whatever the client asks for: ``$SSH_ORIGINAL_COMMAND``."""
        quoted = command.replace('"', '\\"')  # all that sshd itself undoes
        self.authorize(f'restrict,command="{quoted}"')

    def offer_only(self, *programs: str) -> None:
        """Let sessions find only these programs, and what a shell has of itself."""
        offered = self.base / "offered"
        shutil.rmtree(offered, ignore_errors=True)
        offered.mkdir()
        for program in programs:
            found = shutil.which(program)
            assert found is not None, program
            (offered / program).symlink_to(found)
        self.force(f'PATH={offered}; export PATH; eval "$SSH_ORIGINAL_COMMAND"')

    def change_host_key(self) -> None:
        """Be another machine; counts from the next start on."""
        for name in ("host", "host.pub"):
            (self.base / name).unlink()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.base / "host"], check=True)

    def trust(self) -> None:
        """Let the client know the host key as it is now."""
        (self.base / "known").write_text(f"* {(self.base / 'host.pub').read_text()}")

    def lead_to(self, address: str) -> None:
        """Let clients reach it at this one of its addresses from now on."""
        self.addresses = [address, *(other for other in self.addresses if other != address)]
        self._write_configuration()

    # -- its life -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and wait until it listens; on the port that it had, unless another has taken that."""
        program = _program()
        assert program is not None
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        if not (self.base / "known").exists():
            self.trust()
        for _ in range(20):
            self.port = self.port or _free_port()
            self._write_configuration()
            self.log.write_bytes(b"")
            self._process = subprocess.Popen(
                [*self._far, program, "-D", "-f", str(self.base / "sshd_config"), "-E", str(self.log)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509  # it takes no lock
            )
            if self._listens():
                break
            self.port = 0
        else:
            raise AssertionError(f"sshd does not start:\n{self.said()}")
        for proxy in self._proxies:
            proxy.upstream(self.port)

    def stop(self) -> None:
        """End it and all its sessions, at once."""
        if self._process is None:
            return
        known: set[int] = set()
        # They stand still first: one that is killed may leave another that it has just started, and nobody knows whose.
        while more := {self._process.pid, *_below(self._process.pid)} - known:
            known |= more
            _signal(more, signal.SIGSTOP)
        _signal(known, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def sessions(self) -> list[int]:
        """The processes that it has started for its clients, and theirs."""
        return [] if self._process is None else _below(self._process.pid)

    def said(self) -> str:
        """Its log since the last start."""
        return self.log.read_text(errors="replace")

    def logins(self) -> int:
        """How many connections were let in since the last start."""
        return self.said().count("Accepted publickey")

    def close(self) -> None:
        """End it and its proxies."""
        self.stop()
        for proxy in self._proxies:
            proxy.close()

    # -- the wire -----------------------------------------------------------------------------------------------

    def proxy(self, host: str) -> Proxy:
        """A wire to it, on which it is known as ``host``; ended with the server."""
        made = Proxy(self.port)
        self._proxies.append(made)
        self.alias(host, made.port)
        return made

    def alias(self, host: str, port: int, *, more: str = "") -> None:
        """Let clients reach it as ``host`` through this port, with more lines of ssh_config(5)."""
        self._hosts[host] = f"Host {host}\nPort {port}\n{more}\n"
        self._write_configuration()

    def run(self, command: str, host: str = HOST) -> subprocess.CompletedProcess[str]:
        """Run a command over there."""
        argv = [*shlex.split(self.ssh), "-o", "BatchMode=yes", host, command]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60)

    # -- inside -------------------------------------------------------------------------------------------------

    def _write_configuration(self) -> None:
        base = self.base
        listening = "".join(f"ListenAddress {address}\n" for address in self.addresses)
        (base / "sshd_config").write_text(
            f"Port {self.port}\n{listening}HostKey {base}/host\nAuthorizedKeysFile {base}/authorized\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin yes\nPidFile none\nUseDNS no\nMaxStartups 200\nMaxSessions 64\nLogLevel INFO\n"
            "PrintMotd no\nPrintLastLog no\nSubsystem sftp internal-sftp\n"
            f"SetEnv HOME={base}/home PATH={base}/far:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        )
        kex = "KexAlgorithms curve25519-sha256\n" if self._quick else ""
        # Of several values for one setting, ssh takes the first.
        named = "".join(self._hosts.values())
        _replace(
            base / "ssh_config",
            f"{named}Host *\nHostName {self.addresses[0]}\nPort {self.port}\nUser {getpass.getuser()}\n"
            f"IdentityFile {base}/user\nIdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {base}/known\n"
            f"GlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\nLogLevel ERROR\n{kex}",
        )

    def _listens(self) -> bool:
        assert self._process is not None
        until_s = time.monotonic() + DEADLINE_S
        while "Server listening" not in self.said():
            if self._process.poll() is not None:
                return False
            assert time.monotonic() < until_s, f"sshd does not listen:\n{self.said()}"
            time.sleep(STEP_S)
        return True


@contextlib.contextmanager
def serving(
    base: Path,
    *,
    quick: bool = True,
    addresses: Sequence[str] = ("127.0.0.1",),
    near: Sequence[str] = (),
    far: Sequence[str] = (),
) -> Iterator[Sshd]:
    """A started server, which is ended with all its sessions; keys and logs stay in ``base``."""
    server = Sshd(base, quick=quick, addresses=addresses, near=near, far=far)
    try:
        server.start()
        yield server
    finally:
        server.close()


def wait_until(done: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    until_s = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < until_s, f"not within {DEADLINE_S:g} s: {what}"
        time.sleep(STEP_S)


_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """In a new process: be killed when its parent is; a test run that is killed leaves no server behind."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _replace(path: Path, text: str) -> None:
    """Write a file that others may be reading."""
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.rename(path)


def _program() -> str | None:
    return shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ["PATH"])


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _below(top: int) -> list[int]:
    """The process's children and theirs; they have sessions of their own, so its group does not name them."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{int(name)}/stat", "rb") as file:
            parents[int(name)] = int(file.read().rpartition(b")")[2].split()[1])
    found, todo = [], [top]
    while todo:
        here = todo.pop()
        below = [pid for pid, parent in parents.items() if parent == here]
        found += below
        todo += below
    return found


def main() -> None:
    """``python -m tests.system.sshd DIRECTORY``: serve until interrupted, for trying things by hand."""
    with serving(Path(sys.argv[1])) as server:
        print(f"{server.ssh} {HOST}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
