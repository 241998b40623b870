"""Whose turn it was last at a target: an index says what its own mirror left there, and nothing of what another did.

Mirrors of one target with other rules, another engine or another source have an index each. Whichever begins to work
there says so first, in a file of the state directory; all others have to look at the target before they believe theirs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os

from instep.daemon.state import StateDirectory, mirror_key
from instep.index.ledger import NotBelieved
from instep.spec import MirrorSpec

SUFFIX = ".turn"


class Turn:
    """Of one mirror at its one target."""

    def __init__(self, spec: MirrorSpec, state: StateDirectory) -> None:
        """``spec``: with this target alone."""
        (target,) = spec.targets
        place = os.path.realpath(target.address) if target.is_local else target.address
        self._path = state.path(hashlib.blake2b(place, digest_size=12).hexdigest() + SUFFIX)
        self._key = mirror_key(spec).encode()

    def was_ours(self) -> bool:
        """Whether no other mirror has begun to work there since we did; False where that is not known. Blocks."""
        try:
            with open(self._path, "rb") as file:
                return file.read() == self._key
        except OSError:
            return False

    def check(self) -> None:
        """See that what our index says of the target is the last that was done there. Blocks.

        Raises:
            NotBelieved: it is not.
        """
        if not self.was_ours():
            raise NotBelieved("a mirror with other options or of another source has worked on the target since")

    def begin(self) -> None:
        """To be called before anything is changed there. Blocks until the disk has it; where it cannot, all forget."""
        if self.was_ours():
            return
        anew = self._path + b".new"
        try:
            with open(anew, "wb") as file:
                file.write(self._key)
                file.flush()
                os.fsync(file.fileno())
            os.replace(anew, self._path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(self._path)  # A full disk lets go of it, and then nobody's turn it was.
        self._settle()

    def _settle(self) -> None:
        """The name has to outlive a power cut too: another's index was closed cleanly, and would be believed."""
        with contextlib.suppress(OSError):
            directory = os.open(os.path.dirname(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
