"""The commands that stand in for other tools: each front end, wired to the daemon."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from instep.ports import Handler
from instep.spec import MirrorSpec


def inosync(argv: Sequence[str] | None = None) -> int:
    """The ``inosync`` command; returns the exit status."""
    from instep.frontends.inosync.main import main  # noqa: PLC0415  # each command loads only its own

    return main(argv, run=_run_mirrors, detach=_detach)


def _run_mirrors(specs: Sequence[MirrorSpec]) -> int:
    from instep.daemon.run import run_mirrors  # noqa: PLC0415  # help and refusals need none of it

    ended = run_mirrors(specs)
    return 128 + ended.signal if ended.hurried else ended.status


def _detach(untold: int) -> Callable[[int], None]:
    from instep.daemon.background import detach  # noqa: PLC0415  # as above

    return detach(untold)


def lsyncd(argv: Sequence[str] | None = None) -> int:
    """The ``lsyncd`` command; returns the exit status."""
    from instep.frontends.lsyncd.main import main  # noqa: PLC0415  # as above

    return main(argv, run=_run_handler, detach=_detach)


def _run_handler(handler: Handler, mirrors: Sequence[MirrorSpec], *, told: Callable[[int], None]) -> tuple[int, int]:
    from instep.daemon.handled import Handled  # noqa: PLC0415  # as above
    from instep.daemon.run import Habits, run_units  # noqa: PLC0415
    from instep.daemon.supervisor import KeptMirror, Unit  # noqa: PLC0415
    from instep.daemon.workshop import Workshop  # noqa: PLC0415

    def make(umask: int) -> Sequence[Unit]:
        units: list[Unit] = [KeptMirror(spec, umask=umask) for spec in mirrors]
        if handler.places or not units:
            units.append(Handled(handler, Workshop(umask=umask)))
        return units

    # A configuration with functions of its own has no mirrors beside it: what they write gets the user's umask.
    habits = Habits(hangup_ends=True, user_signals=False, hurries=False, told=told, exact_modes=bool(mirrors))
    ended = run_units(make, habits=habits)
    return ended.status, ended.signal


def clsyncctl(argv: Sequence[str] | None = None) -> int:
    """The ``clsyncctl`` command; returns the exit status."""
    from instep.frontends.clsync.ctl import main  # noqa: PLC0415  # as above

    return main(argv)
