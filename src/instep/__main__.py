"""The program: the front end, wired to the daemon."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from instep.frontends.instep.main import main as front_end
from instep.inspection import Inspection
from instep.spec import MirrorSpec, VerificationSpec

if TYPE_CHECKING:
    from instep.frontends.instep.findings import Findings
    from instep.frontends.instep.progress import ProgressBar


def main(argv: Sequence[str] | None = None) -> int:
    """The ``instep`` command; returns the exit status."""
    return front_end(argv, run=_run, inspect=_inspect, verify=_verify, serve=_serve)


def _run(spec: MirrorSpec, *, observer: ProgressBar | None, reload: Callable[[MirrorSpec], MirrorSpec] | None) -> int:
    from instep.daemon.run import run_mirror  # noqa: PLC0415  # help and refusals need none of it

    return run_mirror(spec, observer=observer, reload=reload)


def _inspect(spec: MirrorSpec) -> Sequence[Inspection]:
    from instep.daemon.check import inspect_targets  # noqa: PLC0415  # as above

    return inspect_targets(spec)


def _verify(spec: VerificationSpec, findings: Findings) -> int:
    from instep.daemon.verification import run_verification  # noqa: PLC0415  # as above

    return run_verification(spec, findings)


def _serve(root: bytes) -> int:
    from instep.engines.remote import agent  # noqa: PLC0415  # as above

    return agent.main(root)


if __name__ == "__main__":
    sys.exit(main())
