"""The commands that stand in for other tools: each front end, wired to the daemon."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from instep.ports import Observer
from instep.spec import MirrorSpec, ModuleKind

if TYPE_CHECKING:
    from instep.daemon.handlers.bringing import Bringing
    from instep.daemon.handlers.sight import Sight
    from instep.engines.modules.module import Module
    from instep.frontends.clsync.main import Task
    from instep.ports import Place


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


def _run_handler(handler: Observer, mirrors: Sequence[MirrorSpec], *, told: Callable[[int], None]) -> tuple[int, int]:
    from instep.daemon.handlers.observed import Observed  # noqa: PLC0415
    from instep.daemon.handlers.workshop import Workshop  # noqa: PLC0415
    from instep.daemon.mirrors.kept import KeptMirror  # noqa: PLC0415  # as above
    from instep.daemon.run import Habits, run_units  # noqa: PLC0415
    from instep.daemon.supervisor import Unit  # noqa: PLC0415

    def make(umask: int) -> Sequence[Unit]:
        kept = [KeptMirror(spec, umask=umask) for spec in mirrors]
        units: list[Unit] = [*kept]
        if handler.beside(kept) or handler.places or not units:
            units.append(Observed(handler, Workshop(umask=umask, is_our_umask=not mirrors)))
        return units

    # A configuration with functions of its own has no mirrors beside it: what they write gets the user's umask.
    habits = Habits(hangup_ends=True, user_signals=False, hurries=False, told=told, exact_modes=bool(mirrors))
    ended = run_units(make, habits=habits)
    return ended.status, ended.signal


def clsyncctl(argv: Sequence[str] | None = None) -> int:
    """The ``clsyncctl`` command; returns the exit status."""
    from instep.frontends.clsync.ctl import main  # noqa: PLC0415  # as above

    return main(argv)


def clsync(argv: Sequence[str] | None = None) -> int:
    """The ``clsync`` command; returns the exit status."""
    from instep.frontends.clsync.main import main  # noqa: PLC0415  # as above

    return main(argv, run=_run_task, detach=_detach_tied)


def clsync_actionscript(argv: Sequence[str] | None = None) -> int:
    """The ``clsync-actionscript`` command: clsync as it was in 2013; returns the exit status."""
    from instep.frontends.actionscript import read  # noqa: PLC0415  # as above
    from instep.frontends.clsync.main import main  # noqa: PLC0415

    return main(argv, run=_run_task, detach=_detach_tied, reader=read)


def _detach_tied(untold: int) -> Callable[[int], None]:
    from instep.daemon.background import detach  # noqa: PLC0415  # as above

    return detach(untold, keeps_ties=True)


def _run_task(task: Task) -> int:
    from instep.daemon.control import ControlServer  # noqa: PLC0415  # as above
    from instep.daemon.handlers.served import Served  # noqa: PLC0415
    from instep.daemon.handlers.sight import OwnSight  # noqa: PLC0415
    from instep.daemon.handlers.workshop import Workshop  # noqa: PLC0415
    from instep.daemon.run import Habits, run_units  # noqa: PLC0415
    from instep.engines.command.signals import clean_for_programs  # noqa: PLC0415
    from instep.linux.sdnotify import Notifier  # noqa: PLC0415

    clean_for_programs()
    notifier = Notifier.take(os.environ)
    umask = os.umask(0)
    os.umask(umask)
    module = _module_of(task, umask)
    confining = None
    if task.confinement is not None:
        from instep.daemon.confine import Confining  # noqa: PLC0415

        confining = Confining(task.confinement)
        confining.isolate()
    unit: Served | None = None

    def poke() -> None:
        assert unit is not None
        unit.poke()

    with contextlib.ExitStack() as stack:
        server = None
        if task.socket is not None:
            server = ControlServer(task.socket.path, lambda: task.converse(poke))
            stack.callback(server.close)
            server.open(mode=task.socket.mode, owner=task.socket.owner)
        helper = None
        if confining is not None and confining.plan.split is not None:
            from instep.daemon.privileged.client import start_helper  # noqa: PLC0415

            helper = start_helper(confining, task.handler.place, reload=task.reread)
        launcher = None if confining is None else confining.lower()
        task.confined(helper)

        def see(place: Place) -> Sight:
            return OwnSight(place) if helper is None else helper.sight()

        def ready() -> None:
            if helper is not None:
                helper.reload()  # What is watched from now on is decided as here.
            if confining is not None:
                confining.seal()
            notifier.ready("following")

        def make(umask: int) -> Sequence[Served]:
            nonlocal unit
            engine = _engine_of(task, umask)
            workshop = Workshop(umask=umask, launcher=launcher, helper=helper, module=module, engine=engine)
            unit = Served(task.handler, workshop, server=server, see=see, ready=ready)
            return [unit]

        def signalled(number: int) -> None:
            if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                notifier.stopping()
            if number == signal.SIGHUP and helper is not None:
                helper.reload()
            task.handler.signalled(number, time.monotonic())
            poke()

        own = {number: functools.partial(signalled, number) for number in task.signals}
        # What modules write gets the user's umask; an engine gives every mode exactly.
        return run_units(make, habits=Habits(own=own, exact_modes=task.mirror is not None)).status


def _engine_of(task: Task, umask: int) -> Bringing | None:
    if task.mirror is None:
        return None
    from instep.daemon.handlers.bringing import Bringing  # noqa: PLC0415

    return Bringing(task.mirror, umask=umask)


def _module_of(task: Task, umask: int) -> Module | None:
    if task.module is None:
        return None
    if task.module.kind is ModuleKind.PYTHON:
        from instep.engines.pymodule.module import python_module  # noqa: PLC0415

        module = python_module(task.module, umask=umask)
    else:
        from instep.engines.sharedobject.module import shared_object  # noqa: PLC0415

        module = shared_object(task.module, umask=umask)
    module.prepare()  # It may need rights that the process is about to give up.
    return module
