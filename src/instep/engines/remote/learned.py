"""What a comparison with the target has shown of the source's directories: the index need not read these again."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from instep.engines.remote import agent
from instep.paths import Learned
from instep.records import encoded, named


def page(path: bytes, began_ns: int, infos: Mapping[str, os.stat_result], *, hard_links: bool) -> Learned | None:
    """What is remembered of a directory once the target is known to hold the same.

    Args:
        path: The directory.
        began_ns: When the reading of it began.
        infos: lstat of its names, in the order in which the file system lists them.
        hard_links: What has several names is looked at once more, after all else.

    Returns:
        None when something in it is in doubt: it may have changed while it was read, or is looked at later.
    """
    pieces: list[bytes] = []
    below: list[bytes] = []
    for text, info in infos.items():
        mode = info.st_mode
        if info.st_ctime_ns >= began_ns or (hard_links and info.st_nlink > 1 and agent.may_be_joined(mode)):
            return None
        name = encoded(text)
        if stat.S_ISDIR(mode):
            below.append(path + b"/" + name if path else name)
        pieces.append(named(name, info))
    return (path, began_ns, b"".join(pieces), below)
