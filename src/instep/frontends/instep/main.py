"""The ``instep`` command: from words on the command line to an exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from instep import __version__
from instep.errors import OperatorError, UsageError
from instep.frontends.instep import options
from instep.frontends.instep.checks import check
from instep.frontends.instep.kinds import nearest
from instep.frontends.instep.options import LogFormat, Option, ShowProgress
from instep.frontends.instep.output import escaped, set_up, write_error
from instep.frontends.instep.parse import Arguments, Talk, mirror_spec, split, talk
from instep.frontends.instep.patterns import reload_rules
from instep.spec import MirrorSpec

if TYPE_CHECKING:
    from rich.console import Console

    from instep.frontends.instep.progress import ProgressBar


class Run(Protocol):
    """Runs a mirror until it ends."""

    def __call__(
        self, spec: MirrorSpec, *, observer: ProgressBar | None, reload: Callable[[MirrorSpec], MirrorSpec] | None
    ) -> int:
        """The exit status."""


@dataclass(frozen=True, slots=True)
class Command:
    """One sub-command."""

    name: str
    usage: str
    summary: str
    details: str
    table: tuple[Option, ...]
    do: Callable[[Arguments, Run], int]


def main(argv: Sequence[str] | None = None, *, run: Run) -> int:
    """Do what the words say. Messages go to standard error, what was asked for to standard output.

    Args:
        argv: the words after the program's name; None takes the process's own.
        run: what runs a mirror.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words, run)
    except OperatorError as error:
        write_error(error, sys.stderr)
        return error.exit_status


def _dispatch(words: Sequence[str], run: Run) -> int:
    if not words:
        raise UsageError("no-command", "no command was given", fix="see instep --help")
    first = words[0]
    if first in ("--help", "-h", "help"):
        return _say(_overview())
    if first in ("--version", "-V"):
        return _say(f"instep {__version__}")
    command = next((command for command in COMMANDS if command.name == first), None)
    if command is None:
        raise _unknown(first)
    arguments = split(words[1:], command.table, command.name)
    if arguments.help:
        return _say(_command_help(command))
    return command.do(arguments, run)


def _unknown(word: str) -> UsageError:
    near = nearest(word, [command.name for command in COMMANDS])
    if word.startswith("-"):
        return UsageError(
            "no-command", f"{escaped(word)} comes before any command", fix="instep mirror [OPTION...] SOURCE TARGET"
        )
    return UsageError(
        "unknown-command",
        f"there is no command {escaped(word)}",
        fix=f"did you mean {near}?" if near else "instep mirror SOURCE TARGET, or see instep --help",
    )


def _overview() -> str:
    width = max(len(command.name) for command in COMMANDS)
    rows = "\n".join(f"  {command.name:<{width}}  {command.summary}" for command in COMMANDS)
    return (
        "instep keeps directory trees in step, live.\n\n"
        "usage: instep COMMAND [OPTION...] ...\n\n"
        f"Commands:\n{rows}\n\n"
        "Options:\n"
        "  -h, --help     this text; after a command, its options\n"
        "  -V, --version  the version\n\n"
        "Exit status: 0 all is well, 1 something was left undone, 2 refused: nothing was changed."
    )


def _command_help(command: Command) -> str:
    from instep.frontends.instep.usage import options_help  # noqa: PLC0415  # a daemon never shows it

    return f"usage: instep {command.usage}\n\n{command.details}\n\n{options_help(command.table)}"


def _say(text: str) -> int:
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read it has seen enough; the interpreter must not complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
    return 0


# ---- mirror --------------------------------------------------------------------------------------------------------


def _mirror(arguments: Arguments, run: Run) -> int:
    words = talk(arguments)
    spec = mirror_spec(arguments)
    check(spec)
    console = _console(words)
    handler = set_up(
        verbosity=words.verbosity,
        as_json=words.log_format is LogFormat.JSON,
        stream=sys.stderr,
        console=console,
    )
    try:
        return run(spec, observer=_observer(words, console), reload=_reload)
    finally:
        handler.flush()
        logging.getLogger("instep").removeHandler(handler)


def _reload(spec: MirrorSpec) -> MirrorSpec:
    """The mirror under its pattern files as they are now; refused if the targets would not be safe under them."""
    again = reload_rules(spec)
    if again.rules != spec.rules:
        check(again)
    return again


def _console(words: Talk) -> Console | None:
    """What draws colours and a progress bar; None where nothing is to be drawn, and rich is not even loaded."""
    wanted = words.progress is ShowProgress.ALWAYS
    if words.log_format is LogFormat.JSON and not wanted:
        return None
    if not wanted and (not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb"):
        return None
    from rich.console import Console  # noqa: PLC0415  # 100 ms that no daemon has to pay

    return Console(stderr=True, force_terminal=True if wanted else None, markup=False, highlight=False, emoji=False)


def _observer(words: Talk, console: Console | None) -> ProgressBar | None:
    if console is None or words.progress is ShowProgress.NEVER:
        return None
    from instep.frontends.instep.progress import ProgressBar  # noqa: PLC0415  # as above

    return ProgressBar(console)


COMMANDS: Final = (
    Command(
        name="mirror",
        usage="mirror [OPTION...] SOURCE TARGET [TARGET...]",
        summary="Bring targets in step with a directory, then follow its changes.",
        details=(
            "Brings every TARGET in step with the directory SOURCE, then follows its changes until stopped.\n"
            "A TARGET is a directory (its last component is made if need be), or what rsync takes: host:/path,\n"
            "rsync://host/module/path, host::module/path.\n\n"
            "Signals: TERM or INT finish what is pending and end; HUP reads the pattern files again; USR1 logs the\n"
            "state; USR2 compares everything anew."
        ),
        table=options.MIRROR,
        do=_mirror,
    ),
)
"""One row a command."""
