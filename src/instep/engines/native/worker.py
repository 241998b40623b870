"""The worker process: does bulk work that would hold up the loop.

Started as a bare interpreter with the root descriptors inherited. Frames on stdin and stdout: u32 length, then a value
by marshal: both ends are one program and one interpreter. Ends when stdin does.
"""

from __future__ import annotations

import marshal
import os
import signal
import struct
import sys
from dataclasses import fields
from typing import Any, BinaryIO

from instep.engines.native.session import Session, Settings
from instep.engines.native.stretch import Stretch
from instep.engines.native.tally import Tally
from instep.engines.native.tree import walk
from instep.model import Scope
from instep.spec import Preserve, Rule

LENGTH = struct.Struct("=I")
WALK = 0
"""(WALK, target, [(path, content, fresh), …], entries_max)"""
BRING = 1
"""(BRING, target, [(path, scope, content), …], entries_max)"""


def settings_as_tuple(settings: Settings) -> tuple[Any, ...]:
    """Settings in plain values, for marshal."""
    preserve = settings.preserve
    return (
        tuple(getattr(preserve, each.name) for each in fields(preserve)),
        tuple((rule.include, rule.pattern, rule.origin) for rule in settings.rules),
        *(getattr(settings, each.name) for each in fields(settings)[2:]),
    )


def settings_of(values: tuple[Any, ...]) -> Settings:
    """The counterpart of ``settings_as_tuple``."""
    preserve, rules, *rest = values
    return Settings(Preserve(*preserve), tuple(Rule(*rule) for rule in rules), *rest)


def work(session: Session, job: tuple[int, list[tuple[bytes, int, bool]], int]) -> Tally:
    """Do one job."""
    kind, items, entries_max = job
    if kind == WALK:
        tally = Tally()
        walk(session, [(path, bool(content), fresh) for path, content, fresh in items], tally, entries_max=entries_max)
        return tally
    stretch = Stretch(session)
    for path, scope, content in items:
        stretch.bring(path, Scope(scope), content=content)
    tally = stretch.finish()
    levels, tally.levels = tally.levels, []
    walk(session, levels, tally, entries_max=entries_max)
    return tally


def main() -> None:
    """Serve jobs until stdin ends."""
    # The terminal's Ctrl-C goes to the whole group: only the daemon decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.umask(0)  # Modes are given exactly.
    source, target = int(sys.argv[1]), int(sys.argv[2])
    stdin = os.fdopen(0, "rb", buffering=1 << 18)
    session = Session(source, target, settings_of(_receive(stdin)))
    while True:
        try:
            job = _receive(stdin)
        except EOFError:
            return
        reply = marshal.dumps(work(session, job).as_tuple())
        view = memoryview(LENGTH.pack(len(reply)) + reply)
        try:
            while view:
                view = view[os.write(1, view) :]
        except BrokenPipeError:
            return


def _receive(stream: BinaryIO) -> tuple[Any, ...]:
    read = stream.read
    head = read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    (length,) = LENGTH.unpack(head)
    body = read(length)
    if len(body) < length:
        raise EOFError
    value = marshal.loads(body)  # noqa: S302  # from our own parent, over a pipe
    assert isinstance(value, tuple)
    return value


if __name__ == "__main__":
    main()
