"""One run as two side by side: a single rsync keeps one and a quarter processors busy (measured).

Each directory belongs to one of them with all that is below it, for a run deletes what it does not know from a
directory that it lists, the temporary files of another too. The directories above are brought over by both, and alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from instep.engines.rsync.plan import Run
from instep.model import Change

CHANGES_MIN = 2000
"""With fewer it is not worth a second rsync's start."""

SHARE_MIN = 0.2
"""What the smaller part has to have of all changes at least."""


def shares(run: Run) -> list[Run]:
    """Two runs that together do the same, or this one where that cannot be."""
    style = run.style
    if style.recurse or style.limited or style.root_only or run.only:
        return [run]
    groups: dict[bytes, list[bytes]] = {}
    total = 0
    for name, changes in run.members.items():
        total += len(changes)
        directory = name.rpartition(b"/")[0]  # of one that is listed with its names: itself
        if directory in groups:
            groups[directory].append(name)
        else:
            groups[directory] = [name]
    if total < CHANGES_MIN or b"" in groups:
        return [run]
    parts: tuple[dict[bytes, Sequence[Change]], ...] = ({}, {})
    sizes = [0, 0]
    top = b""
    at = 0
    for directory in sorted(groups, key=_by_component):
        if not top or not directory.startswith(top):
            top = directory + b"/"
            at = int(sizes[0] * 2 >= total)
        for name in groups[directory]:
            parts[at][name] = changes = run.members[name]
            sizes[at] += len(changes)
    if sizes[1] < SHARE_MIN * total:
        return [run]
    return [replace(run, members=part) for part in parts]


def _by_component(path: bytes) -> bytes:
    """Sorts a directory right before all that is below it."""
    return path.replace(b"/", b"\0")
