"""Whether a batch has ACLs or extended attributes at all: looking for them takes a fifth of what rsync does.

rsync asks six times for each file, we ask once. It may do without ``-A`` and ``-X`` where they could change nothing:

- A regular file whose content travels is a new file at the target. It has none if it has none in the source, and the
  directory there hands none down.
- A directory stays what it is, so both sides are looked at, with all that are above: rsync brings those over as well.
- Anything else, a symbolic link say, may stay as well, and is rare: then rsync looks.

What gets its first attribute after it was looked at here is reported after that, and comes again in another batch.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from instep.linux.openat import open_directory

CHANGES_MIN = 1000
"""With fewer it is not worth the looking: rsync's start alone takes as long."""

FILES_MIN = 8
"""So many changes for each directory: looking at that, on both sides, takes some 20 us, as rsync does for a file."""


class Plain:
    """What is known of one batch. Used by one thread at a time; the descriptors are the caller's."""

    def __init__(self, source: int, target: int) -> None:
        self.holds = True
        """Nothing that was seen has any."""
        self._roots = (source, target)
        self._seen: set[bytes] = set()

    def see_directories(self, directories: Collection[bytes], *, names: int) -> None:
        """The directories that so many names are in: these, and all that are above."""
        if names < FILES_MIN * len(directories):
            self.holds = False
        for directory in directories:
            self.see_directory(directory)

    def see_directory(self, directory: bytes) -> None:
        """This directory and all that are above, on both sides; the target may lack it."""
        while self.holds and directory not in self._seen:
            self._seen.add(directory)
            self.holds = all(_is_plain_directory(root, directory) for root in self._roots)
            directory = directory.rpartition(b"/")[0]

    def see_files(self, place: bytes, names: Iterable[bytes]) -> None:
        """Names in the source; ``place``: their directory, through /proc, with a slash at its end."""
        listxattr = os.listxattr
        try:
            for name in names:
                if listxattr(place + name, follow_symlinks=False):
                    self.holds = False
                    return
        except OSError:
            self.holds = False  # ENOENT: it may come back as something else; ENOTSUP: others here may have some


def _is_plain_directory(root: int, directory: bytes) -> bool:
    try:
        fd = open_directory(root, directory)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        return not os.listxattr(fd)
    except OSError:
        return False
    finally:
        os.close(fd)
