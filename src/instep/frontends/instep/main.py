"""The ``instep`` command: from words on the command line to an exit status."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from instep import __version__
from instep.errors import OperatorError, UsageError
from instep.frontends.instep import options
from instep.frontends.instep.checks import check, check_targets
from instep.frontends.instep.kinds import nearest
from instep.frontends.instep.options import Format, LogFormat, Option, ShowProgress
from instep.frontends.instep.output import escaped, set_up, write_error
from instep.frontends.instep.parse import Arguments, Talk, mirror_spec, split, talk, targets_spec
from instep.frontends.instep.patterns import reload_rules
from instep.inspection import Inspection
from instep.spec import MirrorSpec, VerificationSpec

if TYPE_CHECKING:
    from rich.console import Console

    from instep.frontends.instep.findings import Findings
    from instep.frontends.instep.progress import ProgressBar


class Run(Protocol):
    """Runs a mirror until it ends."""

    def __call__(
        self, spec: MirrorSpec, *, observer: ProgressBar | None, reload: Callable[[MirrorSpec], MirrorSpec] | None
    ) -> int:
        """The exit status."""


class Inspect(Protocol):
    """Finds out what the targets of a mirror can do. Blocks; changes nothing that stays."""

    def __call__(self, spec: MirrorSpec) -> Sequence[Inspection]:
        """One inspection a target, in their order."""


class Verify(Protocol):
    """Compares the targets of a mirror with its source."""

    def __call__(self, spec: VerificationSpec, findings: Findings) -> int:
        """The exit status."""


class Serve(Protocol):
    """Lets whoever speaks on standard input write below one directory, until they have no more to say."""

    def __call__(self, root: bytes) -> int:
        """The exit status."""


@dataclass(frozen=True, slots=True)
class Doors:
    """What the commands ask of the daemon; None where the caller has no use for that command."""

    run: Run
    inspect: Inspect | None = None
    verify: Verify | None = None
    serve: Serve | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One sub-command."""

    name: str
    usage: str
    summary: str
    details: str
    table: tuple[Option, ...]
    do: Callable[[Arguments, Doors], int]


def main(
    argv: Sequence[str] | None = None,
    *,
    run: Run,
    inspect: Inspect | None = None,
    verify: Verify | None = None,
    serve: Serve | None = None,
) -> int:
    """Do what the words say. Messages go to standard error, what was asked for to standard output.

    Args:
        argv: the words after the program's name; None takes the process's own.
        run: what runs a mirror.
        inspect: what looks at targets.
        verify: what compares targets.
        serve: the agent.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(words, Doors(run, inspect, verify, serve))
    except OperatorError as error:
        write_error(error, sys.stderr)
        return error.exit_status


def _dispatch(words: Sequence[str], doors: Doors) -> int:
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
    return command.do(arguments, doors)


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
        _nobody_reads()
    return 0


def _nobody_reads() -> None:
    """Whoever read the output has seen enough; the interpreter must not complain again when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())


# ---- mirror --------------------------------------------------------------------------------------------------------


def _mirror(arguments: Arguments, doors: Doors) -> int:
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
        return doors.run(spec, observer=_observer(words, console), reload=_reload)
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


# ---- check ---------------------------------------------------------------------------------------------------------


def _check(arguments: Arguments, doors: Doors) -> int:
    from instep.frontends.instep.checked import as_json, as_text  # noqa: PLC0415  # a daemon never shows it

    if not arguments.positional:
        raise UsageError("no-target", "no target was given", fix="instep check [OPTION...] TARGET [TARGET...]")
    spec = targets_spec(arguments)
    check_targets(spec)
    # What an engine logs on the way is in the answer.
    handler = set_up(verbosity=-2, as_json=False, stream=sys.stderr, console=None)
    try:
        assert doors.inspect is not None
        inspections = doors.inspect(spec)
    finally:
        logging.getLogger("instep").removeHandler(handler)
    plain = arguments.last("ui.format", Format.TEXT) is Format.TEXT
    _say("\n\n".join(map(as_text, inspections)) if plain else "\n".join(map(as_json, inspections)))
    return max(inspection.exit_status for inspection in inspections)


# ---- verify --------------------------------------------------------------------------------------------------------


def _verify(arguments: Arguments, doors: Doors) -> int:
    from instep.frontends.instep.findings import Findings  # noqa: PLC0415  # only for those who verify

    words = talk(arguments)
    spec = mirror_spec(arguments, usage=_VERIFY_USAGE)
    repair = arguments.has("--repair")
    check(spec if repair else replace(spec, dry_run=True))
    assert doors.verify is not None
    findings = Findings(
        sys.stdout,
        as_json=arguments.last("ui.format", Format.TEXT) is Format.JSON,
        many=len(spec.targets) > 1,
        repair=repair,
    )
    # What goes well is in the findings; on the standard error only what does not.
    handler = set_up(
        verbosity=words.verbosity - 1 if words.verbosity <= 0 else 1,
        as_json=words.log_format is LogFormat.JSON,
        stream=sys.stderr,
        console=None,
    )
    try:
        return doors.verify(VerificationSpec(spec, arguments.has("--checksum"), repair), findings)
    except BrokenPipeError:
        _nobody_reads()
        return 1
    finally:
        handler.flush()
        logging.getLogger("instep").removeHandler(handler)


_VERIFY_USAGE: Final = "verify [OPTION...] SOURCE TARGET [TARGET...]"

# ---- agent ---------------------------------------------------------------------------------------------------------


def _agent(arguments: Arguments, doors: Doors) -> int:
    root = os.fsencode(str(arguments.last("ui.root", "")))
    if arguments.positional:
        raise UsageError("extra-words", "the agent takes options alone", fix="drop what stands after them")
    if not root.startswith(b"/") or not arguments.has("--receive-only"):
        raise UsageError(
            "agent-options",
            "the agent needs an absolute directory, and to be told that it only receives",
            fix="instep agent --root /srv/www --receive-only",
        )
    assert doors.serve is not None
    return doors.serve(root)


COMMANDS: Final = (
    Command(
        name="mirror",
        usage="mirror [OPTION...] SOURCE TARGET [TARGET...]",
        summary="Bring targets in step with a directory, then follow its changes.",
        details=(
            "Brings every TARGET in step with the directory SOURCE, then follows its changes until stopped.\n"
            "A TARGET is a directory (its last component is made if need be), or host:/path, ssh://user@host:port/path,\n"
            "rsync://host/module/path, host::module/path.\n\n"
            "Signals: TERM or INT finish what is pending and end; HUP reads the pattern files again; USR1 logs the\n"
            "state; USR2 compares everything anew; RTMIN+1 confirms deletions that are held."
        ),
        table=options.MIRROR,
        do=_mirror,
    ),
    Command(
        name="check",
        usage="check [OPTION...] TARGET [TARGET...]",
        summary="Try whether targets can be mirrored to, and what they would not keep.",
        details=(
            "Tries each TARGET the way a mirror would use it: connection, programs, rights, clock, space, and\n"
            "what its file system keeps; nothing that it makes there stays. Options are those of the mirror meant.\n\n"
            "Exit status: 0 all is kept, 1 a mirror works and loses something, 2 a mirror cannot work."
        ),
        table=options.CHECK,
        do=_check,
    ),
    Command(
        name="verify",
        usage=_VERIFY_USAGE,
        summary="Compare targets with a directory, and say what differs.",
        details=(
            "Compares every TARGET with the directory SOURCE, at the lowest priority, and changes nothing without\n"
            "--repair. Finds what no event told of: edits at the target, names missing or too many, hard links that\n"
            "are none; with --checksum also other contents behind the same size and time. What differs is looked at\n"
            "again, so that a tree that is being mirrored gives no false alarm. Options are those of the mirror.\n\n"
            "Exit status: 0 nothing differs (any more), 1 something does or could not be compared, 2 refused."
        ),
        table=options.VERIFY,
        do=_verify,
    ),
    Command(
        name="agent",
        usage="agent --root DIR --receive-only",
        summary="Be the far end of a mirror, for one directory: a forced command in authorized_keys.",
        details=(
            "Serves a mirror that runs on another machine and reaches this one by ssh, and writes below DIR alone. It\n"
            "is meant for a key that may do nothing else, by a line in authorized_keys that begins with\n"
            'restrict,command="instep agent --root DIR --receive-only". Without such a key no instep is needed here:\n'
            "the agent comes over the connection."
        ),
        table=options.AGENT,
        do=_agent,
    ),
)
"""One row a command."""
