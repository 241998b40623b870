"""Names that the target has and the source lacks, counted before any of them is deleted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

from instep.engines.native.session import Session, join
from instep.linux.openat import open_directory

Extra = tuple[bytes, int, list[bytes], list[bytes]]
"""What is too much in one directory: (its path, how many that are no directories, some of those, all directories)."""

EXAMPLES = 5


class Survey(NamedTuple):
    """What a walk found."""

    names: int
    """How many, without those below directories."""
    below: list[bytes]
    """The directories among them."""
    sample: tuple[bytes, ...]
    """Some of them, the topmost first."""
    places: list[bytes]
    """The directories they stand in."""


def survey(extra: Sequence[Extra]) -> Survey:
    """Sum up what was found directory by directory."""
    below = [join(path, name) for path, _, _, names in extra for name in names]
    examples = [join(path, name) for path, _, names, directories in extra for name in (*names, *directories[:EXAMPLES])]
    examples.sort(key=lambda path: (path.count(b"/"), path))
    return Survey(
        sum(others for _, others, _, _ in extra) + len(below),
        below,
        tuple(examples[:EXAMPLES]),
        list(dict.fromkeys(path for path, _, _, _ in extra)),
    )


def count_below(session: Session, directories: Sequence[bytes], most: float) -> int:
    """How many names there are below these directories of the target, counted until there are more than ``most``.

    What would not be deleted does not count: what is excluded, and what cannot be opened.
    """
    protected = not session.filters_nothing and not session.settings.delete_excluded
    todo = list(directories)
    count = 0
    while todo:
        path = todo.pop()
        try:
            fd = open_directory(session.target, path)
        except OSError:
            continue
        try:
            with os.scandir(fd) as entries:
                for entry in entries:
                    is_dir = entry.is_dir(follow_symlinks=False)
                    if protected and session.excludes(path, os.fsencode(entry.name), is_dir=is_dir):
                        continue
                    count += 1
                    if count > most:
                        return count
                    if is_dir:
                        todo.append(join(path, entry.name))
        except OSError:
            continue
        finally:
            os.close(fd)
    return count
