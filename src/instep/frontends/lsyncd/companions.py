"""Programs that are kept running beside syncs: tunnels, and the ssh connections that others share.

Pure: time is an argument, and what is started or ended is answered as work for others to do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from instep.model import Program

RETRY_MAX_S: Final = 300.0
STABLE_S: Final = 60.0
"""What has run for so long did not fail at once: its next try comes as soon as the first."""
_VARIABLE: Final = re.compile(rb"\^(localhost|localport)|\$\{(localhost|localport)\}")

Values = Mapping[bytes, bytes]
"""What variables in words stand for."""


@dataclass(eq=False, slots=True)
class Companion:
    """One program that is started anew whenever it has ended."""

    words: tuple[bytes, ...]
    ready_s: float
    """It counts as up when it has lived for so long."""
    retry_s: float
    """So long after its end it is started again; longer where it fails again and again."""
    values: Values = field(default_factory=dict)
    """What the variables in its words stand for in this life."""
    number: int | None = None
    """What its run is known by; None: it does not run."""
    since_s: float = 0.0
    next_s: float = 0.0
    failures: int = 0

    def is_up(self, now_s: float) -> bool:
        """Whether it can be made use of."""
        return self.number is not None and now_s >= self.since_s + self.ready_s

    def ended(self, now_s: float) -> None:
        """It does not run any more."""
        self.number = None
        self.failures = 0 if now_s - self.since_s >= STABLE_S else self.failures + 1
        self.next_s = now_s + min(RETRY_MAX_S, self.retry_s * 2.0 ** min(max(0, self.failures - 1), 20))


@dataclass(eq=False, slots=True)
class Tunnel:
    """What syncs reach their target through: one program, or a pool of them."""

    name: bytes
    host: bytes
    companions: Sequence[Companion]
    turn: int = 0

    def is_up(self, now_s: float) -> bool:
        """Whether there is a way to the target."""
        return any(each.is_up(now_s) for each in self.companions)

    def take(self, now_s: float) -> Values:
        """The variables of one that is up, of each in turn."""
        self.turn += 1
        for at in range(len(self.companions)):
            each = self.companions[(self.turn + at) % len(self.companions)]
            if each.is_up(now_s):
                return each.values
        return {}


class Companions:
    """All that are kept running for one configuration."""

    def __init__(self, *, numbers: Iterator[int], free_port: Callable[[], int]) -> None:
        """Begin with none.

        Args:
            numbers: gives each run a number of its own.
            free_port: a port of this machine that nobody listens on.
        """
        self._numbers = numbers
        self._free_port = free_port
        self._all: list[Companion] = []
        self.tunnels: list[Tunnel] = []

    def keep(self, words: Sequence[bytes], *, retry_s: float) -> None:
        """Keep this program running; nobody waits for it."""
        self._all.append(Companion(tuple(words), 0.0, retry_s))

    def tunnel(
        self, words: Sequence[bytes], *, name: bytes, host: bytes, count: int, ready_s: float, retry_s: float
    ) -> Tunnel:
        """Keep so many of this program running, each with a port of its own."""
        made = [Companion(tuple(words), ready_s, retry_s) for _ in range(count)]
        self._all += made
        tunnel = Tunnel(name or b"Tunnel%d" % (len(self.tunnels) + 1), host, made)
        self.tunnels.append(tunnel)
        return tunnel

    def due(self, now_s: float, *, output: bytes | None) -> list[tuple[int, Program]]:
        """Those that are to be started now."""
        started = []
        for each in self._all:
            if each.number is None and each.next_s <= now_s:
                # A port that was free when the last one began may be somebody else's by now.
                host = next((tunnel.host for tunnel in self.tunnels if each in tunnel.companions), b"localhost")
                each.values = {b"localhost": host, b"localport": b"%d" % self._free_port()}
                each.number, each.since_s = next(self._numbers), now_s
                words = tuple(substituted(word, each.values) for word in each.words)
                started.append((each.number, Program(words, output=output)))
        return started

    def ended(self, number: int, now_s: float) -> Companion | None:
        """A run has ended; whose it was, if it was one of these."""
        for each in self._all:
            if each.number == number:
                each.ended(now_s)
                return each
        return None

    @property
    def running(self) -> list[int]:
        """The numbers of those that run."""
        return [each.number for each in self._all if each.number is not None]

    def wake_s(self, now_s: float) -> float | None:
        """When the next one is to be started, or is up."""
        times = [each.next_s if each.number is None else each.since_s + each.ready_s for each in self._all]
        return min((at_s for at_s in times if at_s > now_s), default=None)


def substituted(word: bytes, values: Values) -> bytes:
    """A word with its variables replaced, written ``^localport`` or ``${localport}``; unknown ones stay."""
    return _VARIABLE.sub(lambda found: values.get(found[1] or found[2], found[0]), word)
