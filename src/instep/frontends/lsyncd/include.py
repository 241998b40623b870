r"""The list by which rsync is told, in an include file, exactly which names to look at.

Facts (rsync(1)): a pattern is a wildcard pattern only if it holds one of ``* ? [``; only then a backslash escapes. So
a name without them stands as it is, whatever else is in it; in any other these, and backslashes, are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WILD = re.compile(rb"[*?\[]")
_ESCAPED = re.compile(rb"[*?\[\\]")


def include_list(names: Iterable[tuple[bytes, bool]]) -> list[bytes]:
    """The patterns, in order of first appearance: each name, then the directories above it up to ``/``.

    Args:
        names: paths with a slash in front (those of directories with one at the end), and whether everything below a
            directory is meant as well, because it was deleted.
    """
    found: dict[bytes, None] = {}
    walked: set[bytes] = set()
    for path, everything in names:
        if everything and path.endswith(b"/"):
            found[_escaped(path, wild=True) + b"***"] = None
        else:
            found[_escaped(path)] = None
        at = len(path) if everything and path.endswith(b"/") else path.rfind(b"/", 0, len(path) - 1) + 1
        while at > 0:
            above = path[:at]
            if above in walked:
                break  # So are all above it.
            walked.add(above)
            found[_escaped(above)] = None
            at = path.rfind(b"/", 0, at - 1) + 1
    return list(found)


def _escaped(path: bytes, *, wild: bool = False) -> bytes:
    if not wild and _WILD.search(path) is None:
        return path
    return _ESCAPED.sub(rb"\\\g<0>", path)
