"""Which links to directories rsync would bring over as what they lead to, so that changes behind them count."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from instep.errors import UsageError
from instep.frontends.lsyncd.runtime import Runtime
from instep.frontends.rsyncwords import options
from instep.paths import RelPath
from instep.ports import Following
from instep.spec import TargetSpec

_ALL: Final = frozenset({"-L", "--copy-links", "-k", "--copy-dirlinks"})
_OUTWARD: Final = "--copy-unsafe-links"


def following(config: Any, runtime: Runtime) -> Following | None:
    """What a sync with these keys wants to be followed; None: nothing."""
    wanted = _wanted(config[b"rsync"], runtime)
    if wanted is None:
        return None
    target = config[b"target"]
    is_local = isinstance(target, bytes) and TargetSpec(target).is_local
    return Following(wanted, (os.path.abspath(target),) if is_local else ())


def _wanted(rsync: Any, runtime: Runtime) -> Callable[[RelPath, bytes], bool] | None:
    # Only the built-in kinds have these words; what else a sync of somebody's own has under the name is not known.
    if not runtime.is_table(rsync) or not runtime.is_table(words := rsync[b"_computed"]):
        return None
    try:
        names = {name for name, _ in options((os.fsdecode(word) for word in words.values()), origin="rsync")}
    except UsageError:
        return None  # rsync will say what is wrong with them.
    if names & _ALL:
        return _any_link
    return leads_out if _OUTWARD in names else None


def _any_link(path: RelPath, text: bytes) -> bool:  # noqa: ARG001  # one signature for both
    return True


def leads_out(path: RelPath, text: bytes) -> bool:
    """Whether rsync calls a link unsafe: it is absolute, or climbs above the top of what is transferred."""
    if text.startswith(b"/"):
        return True
    depth = path.count(b"/")
    for name in text.split(b"/"):
        if name == b"..":
            depth -= 1
            if depth < 0:
                return True
        elif name not in (b"", b"."):
            depth += 1
    return False
