"""The files that a run finds its paths in: made for it, removed after it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence

from instep.logs import fields
from instep.model import ListFile

log = logging.getLogger(__name__)

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def list_files(files: Sequence[ListFile], *, umask: int) -> Iterator[None]:
    """Have these files while the block runs; those that are to be kept stay. Blocks on their file system.

    Args:
        files: none of them exists yet: a name that somebody else put there is never written to.
        umask: what is taken from their mode, 0666.

    Raises:
        OSError: one cannot be made; then none is left.
    """
    made: list[ListFile] = []
    try:
        for each in files:
            fd = os.open(each.path, _FLAGS, 0o666 & ~umask)
            made.append(each)
            with open(fd, "wb") as file:
                file.write(each.content)
    except OSError:
        for each in made:
            _remove(each.path)
        raise
    try:
        yield
    finally:
        for each in made:
            if not each.keep:
                _remove(each.path)


def _remove(path: bytes) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # Whoever it was made for may have done so.
    except OSError as error:
        log.warning(
            "list-not-removed",
            extra=fields(path=path, reason=error.strerror, now="it is left there", fix="remove it by hand"),
        )
