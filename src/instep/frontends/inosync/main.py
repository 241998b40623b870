"""The ``inosync`` command: its options and configuration files, as mirrors of instep."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from instep import __version__
from instep.errors import OperatorError, UsageError
from instep.frontends.inosync.config import Config, load
from instep.frontends.instep.checks import check
from instep.frontends.instep.output import TextFormatter, escaped, write_error
from instep.frontends.instep.patterns import gather
from instep.frontends.rsyncwords import Wish, wish
from instep.frontends.syslog import SyslogHandler
from instep.logs import fields
from instep.spec import EngineName, InitialSync, MaxDelete, MirrorSpec, Pace, RuleSource, TargetSpec

log = logging.getLogger(__name__)

VERSION: Final = "0.2.3"
"""The version whose options and files these are."""
CONFIG: Final = "/etc/inosync/default.py"

USAGE: Final = f"""usage: inosync [OPTION...]

  -c FILE        read the configuration from FILE ({CONFIG})
  -d             go into the background
  -p             pretend: change nothing, only say what would be done
  -v             log every detail
  --version      the version
  -h, --help     this text

Exit status: 0 ended as asked, 1 the configuration cannot be used, 2 the options cannot."""


class Run(Protocol):
    """Runs mirrors until they end."""

    def __call__(self, specs: Sequence[MirrorSpec]) -> int:
        """The exit status."""


Detach = Callable[[int], Callable[[int], None]]
"""Goes on in the background; gives what tells the foreground its exit status, which is the argument if nothing does."""


@dataclass(slots=True)
class _Options:
    config: str = CONFIG
    daemonize: bool = False
    pretend: bool = False
    verbose: bool = False
    answer: str = ""
    """To be printed instead of anything else."""


def main(argv: Sequence[str] | None = None, *, run: Run, detach: Detach) -> int:
    """Do what the words say; the exit status.

    Args:
        argv: the words after the program's name; None takes the process's own.
        run: what runs the mirrors.
        detach: what goes into the background.
    """
    try:
        options = _read(list(sys.argv[1:] if argv is None else argv))
    except UsageError as error:
        write_error(error, sys.stderr)
        return 2
    if options.answer:
        print(options.answer)  # noqa: T201  # what was asked for
        return 0
    try:
        specs = mirrors(load(options.config), pretend=options.pretend)
        for spec in specs:
            check(spec)
    except OperatorError as error:
        write_error(error, sys.stderr)
        return 1
    tell = detach(1) if options.daemonize else None
    _log_to(options, console=tell is None)
    if tell is not None:
        tell(0)
    try:
        return run(specs)
    except OperatorError as error:
        # Not log.exception: it is the operator's to mend, and no defect.
        log.error(error.code, extra=fields(reason=error.what, now=error.now, fix=error.fix))  # noqa: TRY400
        return 1


def _read(words: Sequence[str]) -> _Options:
    options = _Options()
    rest = iter(words)
    for word in rest:
        if word in ("-h", "--help"):
            return replace(options, answer=USAGE)
        if word == "--version":
            return replace(options, answer=f"inosync {VERSION} (instep {__version__})")
        if not word.startswith("-") or word == "-":
            raise UsageError("too-many-arguments", f"too many arguments: {escaped(word)}", fix="see inosync --help")
        _letters(word, rest, options)
    return options


def _letters(word: str, rest: Iterator[str], options: _Options) -> None:
    """``-dv`` is ``-d -v``; what follows a ``c`` is its file."""
    for at, letter in enumerate(word[1:], 1):
        match letter:
            case "d":
                options.daemonize = True
            case "p":
                options.pretend = True
            case "v":
                options.verbose = True
            case "c":
                value = word[at + 1 :] or next(rest, None)
                if value is None:
                    raise UsageError("missing-value", "-c needs a file", fix="inosync -c FILE")
                options.config = value
                return
            case _:
                raise UsageError("unknown-option", f"no such option: {escaped(word)}", fix="see inosync --help")


def _log_to(options: _Options, *, console: bool) -> None:
    import syslog  # noqa: PLC0415  # not on every system

    logger = logging.getLogger("instep")
    for old in list(logger.handlers):
        logger.removeHandler(old)
    system = SyslogHandler("inosync", facility=syslog.LOG_DAEMON, options=syslog.LOG_PID)
    system.setFormatter(TextFormatter(dated=False))
    logger.addHandler(system)
    if console:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(TextFormatter())
        logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if options.verbose else logging.INFO)
    logger.propagate = False


# ---- mirrors -------------------------------------------------------------------------------------------------------


def mirrors(config: Config, *, pretend: bool = False) -> list[MirrorSpec]:
    """One mirror for each watched path, with a target on each node.

    Raises:
        UsageError: an option in ``extra``, or a pattern, that cannot be honoured.
    """
    asked = _extra(config)
    found = []
    for wpath, rpath, excludes in zip(config.wpaths, config.rpaths, config.rexcludes, strict=True):
        sources = (*asked.rules, *(RuleSource(include=False, text=os.fsencode(pattern)) for pattern in excludes))
        source = os.path.abspath(wpath)
        found.append(
            MirrorSpec(
                source=os.fsencode(source),
                targets=tuple(_target(node + rpath, wpath, asked) for node in config.rnodes),
                pace=Pace(quiet_s=config.edelay_s, hold_s=config.edelay_s),
                rule_sources=sources,
                rules=gather(sources),
                preserve=asked.preserve,
                delete=True,
                max_delete=MaxDelete(percent=100),
                initial_sync=InitialSync.FULL,
                delete_excluded=asked.delete_excluded,
                one_file_system=asked.one_file_system,
                dry_run=pretend or asked.dry_run,
                bandwidth_bytes_per_s=asked.bandwidth_bytes_per_s,
                rsync_args=asked.extra,
                rsync_program=b"rsync" if _is_usual(config.rsync) else os.fsencode(config.rsync),
            )
        )
    return found


def _extra(config: Config) -> Wish:
    """What inosync's own options (``-ltrp --delete``), ``extra``, ``rspeed`` and ``logfile`` come to."""
    try:
        words = shlex.split(config.extra)
    except ValueError as error:
        raise UsageError("bad-config", f"extra: {error}", fix="close the quotes") from None
    asked = wish(["-ltrp", *words], origin="extra")
    if config.rspeed:
        # rsync takes the last one, and rspeed comes after extra.
        asked = replace(asked, bandwidth_bytes_per_s=config.rspeed * 1024.0)
    if config.logfile:
        asked = replace(asked, extra=(*asked.extra, b"--log-file=" + os.fsencode(config.logfile)), alters=True)
    if not _is_usual(config.rsync):
        asked = replace(asked, alters=True)
    return asked


def _target(address: str, wpath: str, asked: Wish) -> TargetSpec:
    """As rsync has it: without a slash at its end the directory itself is copied, into the target."""
    name = "" if wpath.endswith("/") else os.path.basename(wpath)
    given = TargetSpec(os.fsencode(address))
    path = os.fsencode(os.path.join(address, name) if name and not address.endswith(":") else address + name)
    if given.is_local:
        return TargetSpec(os.path.abspath(path), EngineName.RSYNC if asked.alters else EngineName.AUTO)
    bare = path.rstrip(b"/")
    return TargetSpec(path if bare.endswith(b":") else bare, EngineName.RSYNC)


def _is_usual(program: str) -> bool:
    usual = shutil.which("rsync")
    return usual is not None and os.path.realpath(program) == os.path.realpath(usual)
