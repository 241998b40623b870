"""The program: the front end, wired to the daemon."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from instep.frontends.instep.main import main as front_end
from instep.spec import MirrorSpec

if TYPE_CHECKING:
    from instep.frontends.instep.progress import ProgressBar


def main(argv: Sequence[str] | None = None) -> int:
    """The ``instep`` command; returns the exit status."""
    return front_end(argv, run=_run)


def _run(spec: MirrorSpec, *, observer: ProgressBar | None, reload: Callable[[MirrorSpec], MirrorSpec] | None) -> int:
    from instep.daemon.run import run_mirror  # noqa: PLC0415  # help and refusals need none of it

    return run_mirror(spec, observer=observer, reload=reload)


if __name__ == "__main__":
    sys.exit(main())
