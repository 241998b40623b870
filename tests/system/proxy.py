"""A wire with a will of its own: a TCP proxy that delays, throttles, stalls, cuts and counts on command.

As a program, ``python proxy.py`` serves one port of 127.0.0.1, which it prints; each line of its standard input is a
command, answered by one line; it ends with its standard input. It is a process of its own and uses threads: their
sleep is exact to 0.1 ms, and takes nothing from the process under test.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from typing import Self

CHUNK_BYTES = 1 << 16
HELD_BYTES = 1 << 22
"""So much may be under way in one direction: 5 ms at 800 MB/s."""


class Proxy:
    """The proxy as its user sees it."""

    def __init__(self, upstream: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.port = int(self._answer())
        self.upstream(upstream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def upstream(self, port: int) -> None:
        """Lead new connections to this port of 127.0.0.1."""
        self._tell("upstream", port)

    def delay(self, one_way_s: float) -> None:
        """Let everything take so much longer in each direction."""
        self._tell("delay", one_way_s)

    def rate(self, bytes_per_s: float) -> None:
        """Let at most so much through in each direction of each connection; 0: all."""
        self._tell("rate", bytes_per_s)

    def cut(self) -> None:
        """Break all connections off; new ones are closed as soon as they come."""
        self._tell("cut")

    def cut_after(self, more_bytes: int) -> None:
        """The same, once so many more bytes have come from the clients."""
        self._tell("cut-after", more_bytes)

    def stall(self) -> None:
        """Forward nothing any more, and close nothing: what a host looks like whose cable was pulled."""
        self._tell("stall")

    def heal(self) -> None:
        """Let everything through again."""
        self._tell("heal")

    def is_cut(self) -> bool:
        """Whether connections are being refused now."""
        return self._tell("is-cut") == "1"

    def counts(self) -> tuple[int, int, int]:
        """Bytes so far from the clients, bytes to them, and connections."""
        up, down, connections = self._tell("counts").split()
        return int(up), int(down), int(connections)

    def close(self) -> None:
        """End the proxy, and with it all connections."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _tell(self, *words: object) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.endswith(b"\n"), "the proxy has ended"
        return line.decode().strip()


class _State:
    """What the wire does now; read by all threads."""

    def __init__(self) -> None:
        self.upstream = 0
        self.delay_s = 0.0
        self.rate = 0.0
        self.cut = False
        self.left_bytes: int | None = None
        self.flowing = threading.Event()
        self.flowing.set()
        self.counts = [0, 0, 0]
        self.lock = threading.Lock()
        self.sockets: set[socket.socket] = set()

    def break_off(self) -> None:
        with self.lock:
            self.cut = True
            sockets = list(self.sockets)
        for one in sockets:
            _reset(one)

    def passed(self, direction: int, size: int) -> bool:
        """Count; False: the wire is to be cut before these bytes."""
        with self.lock:
            if direction == 0 and self.left_bytes is not None:
                self.left_bytes -= size
                if self.left_bytes < 0:
                    self.left_bytes = None
                    return False
            self.counts[direction] += size
        return True


class _Way:
    """One direction of one connection."""

    def __init__(self, state: _State, sender: socket.socket, receiver: socket.socket, direction: int) -> None:
        self._state = state
        self._sender = sender
        self._receiver = receiver
        self._direction = direction
        self._held: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._changed = threading.Condition()
        for work in (self._take, self._give):
            threading.Thread(target=work, daemon=True).start()

    def _take(self) -> None:
        while True:
            try:
                data = self._sender.recv(CHUNK_BYTES)
            except OSError:
                data = b""
            with self._changed:
                self._changed.wait_for(lambda: self._held_bytes < HELD_BYTES)
                self._held.append((time.monotonic() + self._state.delay_s, data))
                self._held_bytes += len(data)
                self._changed.notify_all()
            if not data:
                return

    def _give(self) -> None:
        state = self._state
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._held))
                due_s, data = self._held.popleft()
            wait_s = due_s - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            state.flowing.wait()
            if data and not state.passed(self._direction, len(data)):
                state.break_off()
            try:
                if data:
                    self._receiver.sendall(data)
                else:
                    self._receiver.shutdown(socket.SHUT_WR)
            except OSError:
                _reset(self._sender)
            with self._changed:
                self._held_bytes -= len(data)
                self._changed.notify_all()
            if not data:
                return
            if state.rate:
                time.sleep(len(data) / state.rate)


def _reset(one: socket.socket) -> None:
    """End a connection at once, for both its reader and its peer; what was under way is lost."""
    with contextlib.suppress(OSError):
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket, state: _State) -> None:
    while True:
        client, _ = listener.accept()
        with state.lock:
            state.counts[2] += 1
        if state.cut:
            _reset(client)
            client.close()
            continue
        try:
            server = socket.create_connection(("127.0.0.1", state.upstream), 10)
        except OSError:
            _reset(client)
            client.close()
            continue
        server.settimeout(None)
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with state.lock:
            state.sockets |= {client, server}
        _Way(state, client, server, 0)
        _Way(state, server, client, 1)


def _obey(state: _State, word: str, value: str) -> str:
    if word == "upstream":
        state.upstream = int(value)
    elif word == "delay":
        state.delay_s = float(value)
    elif word == "rate":
        state.rate = float(value)
    elif word == "cut":
        state.break_off()
    elif word == "cut-after":
        with state.lock:
            state.left_bytes = int(value)
    elif word == "stall":
        state.flowing.clear()
    elif word == "heal":
        with state.lock:
            state.cut = False
            state.left_bytes = None
        state.flowing.set()
    elif word == "is-cut":
        return str(int(state.cut))
    elif word == "counts":
        with state.lock:
            return " ".join(map(str, state.counts))
    else:
        return "unknown"
    return "done"


def main() -> None:
    """Serve until the standard input ends."""
    state = _State()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    threading.Thread(target=_serve, args=(listener, state), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    for line in sys.stdin:
        word, _, value = line.strip().partition(" ")
        print(_obey(state, word, value), flush=True)


if __name__ == "__main__":
    main()
