"""From clsync's settings to a module of functions, for the modes so, rsyncso, py and rsyncpy.

Facts: the numbers of options and values are those that clsync 0.4.5-2 shows to its modules on x86-64, measured with a
module that prints ``ctx->flags``. Options with a short form have its ASCII code.
"""

from __future__ import annotations

from instep.frontends.clsync.settings import Mode, Output, Settings, Threading
from instep.spec import ModuleKind, ModuleSpec

PROCESSES_MAX = 8
"""Calls that may go on at once with threading; more wait. Guessed: each has a process of its own."""

_MODES = {Mode.RSYNCSO: 6, Mode.SO: 7, Mode.RSYNCPY: 6, Mode.PY: 7}
_THREADING = {Threading.OFF: 0, Threading.SAFE: 1, Threading.FULL: 2}
_OUTPUT = {Output.STDERR: 0, Output.STDOUT: 1, Output.SYSLOG: 2}


def module_spec(settings: Settings) -> ModuleSpec:
    """What the engines for modules need to know; ``settings.mode`` is one of those that call."""
    assert settings.mode.calls
    python = settings.mode in {Mode.PY, Mode.RSYNCPY}
    return ModuleSpec(
        kind=ModuleKind.PYTHON if python else ModuleKind.SHARED_OBJECT,
        path=settings.sync_handler,
        takes_lists=settings.mode.has_rsync_lists,
        watch_dir=settings.watch_dir,
        destination_dir=settings.destination_dir,
        label=settings.label,
        lists_dir=settings.lists_dir,
        retries=settings.retries,
        flags=_flags(settings),
        processes=1 if settings.threading is Threading.OFF else PROCESSES_MAX,
    )


def _flags(settings: Settings) -> dict[int, int]:
    """The table that modules read; what is 0 is left out."""
    flags = {
        ord("b"): settings.background,
        ord("d"): settings.debug,
        ord("F"): settings.full_initialsync,
        ord("M"): _MODES[settings.mode],
        ord("p"): _THREADING[settings.threading],
        ord("q"): settings.quiet,
        ord("U"): settings.dont_unlink_lists,
        ord("v"): settings.verbose,
        ord("X"): settings.exclude_mount_points,
        ord("Y"): _OUTPUT[settings.output],
        512: settings.have_recursive_sync,
        514: settings.rsync_prefer_include,
        516: settings.one_file_system,
        518: settings.skip_initialsync,
        519: settings.only_initialsync,
        520: settings.exit_on_no_events,
        521: settings.standby_file is not None,
        522: settings.exit_hook is not None,
        524: settings.pre_exit_hook is not None,
        525: settings.socket is not None,
        528: settings.max_iterations,
        529: settings.ignore_failures,
        542: settings.check_execvp_arguments,
        556: settings.cancel_stat,
        557: settings.exit_on_sync_skipping,
        558: settings.detach_ipc,
        561: settings.sync_on_quit,
    }
    return {number: int(value) for number, value in flags.items() if value}
