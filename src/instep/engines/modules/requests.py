"""What the daemon asks of the process of a module, as bytes."""

from __future__ import annotations

from instep.engines.modules.wire import EVENT, FLAG, NUMBER, RECURSIVE, text
from instep.model import Call
from instep.spec import ModuleSpec

_BITS = 0xFFFFFFFF
"""clsync takes any number, and keeps what fits."""


def setup(spec: ModuleSpec) -> bytes:
    """The first request: what is to be loaded, and what its init is told."""
    out = [
        text(spec.path),
        NUMBER.pack(spec.takes_lists),
        text(spec.label),
        text(spec.watch_dir),
        text(spec.destination_dir),
        text(spec.lists_dir),
        NUMBER.pack(spec.retries & _BITS),
        NUMBER.pack(len(spec.flags)),
    ]
    out += (FLAG.pack(number, value & _BITS) for number, value in spec.flags.items())
    return b"".join(out)


def call(what: Call) -> bytes:
    """A request to call ``sync`` or ``rsync``."""
    out = [NUMBER.pack(len(what.environment))]
    for name, value in what.environment.items():
        out += (text(name), text(value))
    if what.include is not None:
        out += (NUMBER.pack(1), text(what.include), text(what.exclude))
    else:
        out += (NUMBER.pack(0), NUMBER.pack(len(what.events)))
        for path, mask, recursive, old, new in what.events:
            out += (EVENT.pack(mask, RECURSIVE if recursive else 0, old, new, len(path)), path, b"\0")
    return b"".join(out)
