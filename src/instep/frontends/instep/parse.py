"""From arguments to a mirror's specification. Reads the pattern files that are named, and nothing else."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from instep.errors import UsageError
from instep.frontends.instep.kinds import nearest
from instep.frontends.instep.options import LogFormat, Option, ShowProgress
from instep.frontends.instep.output import escaped
from instep.frontends.instep.patterns import gather
from instep.rules import Preserve
from instep.spec import EngineName, InitialSync, MirrorSpec, MonitorName, Pace, RuleSource, TargetSpec

_USAGE = "mirror [OPTION...] SOURCE TARGET [TARGET...]"
_HOST_ALONE = re.compile(r"[^/:]+:|ssh://[^/]+(?:/~/?)?")


@dataclass(slots=True)
class Arguments:
    """What was typed, by kind; every value is already checked against its row."""

    given: list[tuple[Option, object]] = field(default_factory=list)
    positional: list[str] = field(default_factory=list)
    help: bool = False

    def last(self, lands: str, default: object) -> object:
        """The value given last."""
        return next((value for option, value in reversed(self.given) if option.lands == lands), default)

    def has(self, name: str) -> bool:
        """Whether an option was given."""
        return any(option.name == name for option, _ in self.given)

    def count(self, name: str) -> int:
        """How often an option was given."""
        return sum(option.name == name for option, _ in self.given)


@dataclass(frozen=True, slots=True)
class Talk:
    """How the command speaks; no part of the mirror."""

    verbosity: int = 0
    """1: everything; -1: warnings, -2: errors."""
    log_format: LogFormat = LogFormat.TEXT
    progress: ShowProgress = ShowProgress.AUTO


def split(argv: Sequence[str], table: Sequence[Option], command: str) -> Arguments:
    """Sort the words of a command line.

    Raises:
        UsageError: an unknown option, a value missing, one too many or out of range.
    """
    by_flag = {flag: option for option in table for flag in option.flags}
    found = Arguments()
    words = iter(argv)
    for word in words:
        if word == "--":
            found.positional += words
        elif word in ("--help", "-h"):
            found.help = True
        elif word.startswith("--"):
            flag, equals, value = word.partition("=")
            option = by_flag.get(flag)
            if option is None:
                raise _unknown(flag, list(by_flag), command)
            if option.is_flag:
                found.given.append((option, _value(option, value) if equals else _of_flag(option)))
                continue
            if not equals:
                following = next(words, None)
                if following is None:
                    raise UsageError(
                        "missing-value",
                        f"{flag} needs a value ({option.kind.metavar})",
                        fix=f"for example: {flag}={_example(option)}",
                    )
                value = following
            found.given.append((option, _value(option, value)))
        elif word.startswith("-") and len(word) > 1:
            for letter in word[1:]:
                if letter == "h":
                    found.help = True
                    continue
                option = by_flag.get("-" + letter)
                if option is None:
                    raise _unknown("-" + letter, list(by_flag), command, word)
                found.given.append((option, _of_flag(option)))
        else:
            found.positional.append(word)
    return found


def mirror_spec(arguments: Arguments, *, usage: str = _USAGE) -> MirrorSpec:
    """The mirror that was asked for; ``usage`` is the command's, for messages.

    Raises:
        UsageError: options that contradict each other, a pattern file that cannot be read, no source or target.
    """
    source, *targets = _places(arguments.positional, usage)
    pace: dict[str, object] = {}
    preserve: dict[str, object] = {}
    plain: dict[str, object] = {}
    sources: list[RuleSource] = []
    rsync_args: list[bytes] = []
    for option, value in arguments.given:
        where, _, name = option.lands.rpartition(".")
        if where == "pace":
            pace[name] = value
        elif where == "preserve":
            preserve[name] = value
        elif name == "rules":
            is_file = option.name.endswith("-from")
            text = os.fsencode(str(value))
            sources.append(
                RuleSource(option.name.startswith("--include"), os.path.abspath(text) if is_file else text, is_file)
            )
        elif name == "rsync_args":
            rsync_args.append(os.fsencode(str(value)))
        elif not where:
            plain[name] = value
    state_dir = plain.pop("state_dir", "auto")
    engine = arguments.last("target.engine", EngineName.AUTO)
    assert isinstance(engine, EngineName)
    spec = MirrorSpec(
        source=_absolute(os.fsencode(source)),
        targets=tuple(TargetSpec(_address(os.fsencode(target)), engine) for target in targets),
        pace=Pace(**_checked(Pace, pace)),
        preserve=Preserve(**_checked(Preserve, preserve)),
        rules=gather(sources),
        rule_sources=tuple(sources),
        rsync_args=tuple(rsync_args),
        state_dir=_state_dir(str(state_dir)),
        state_needed=state_dir not in ("auto", "none"),
        **_checked(MirrorSpec, plain),
    )
    _agree(spec, arguments)
    return spec


def targets_spec(arguments: Arguments) -> MirrorSpec:
    """A mirror to the targets that were named, of which nothing else counts; its source is the root directory."""
    return mirror_spec(replace(arguments, positional=["/", *arguments.positional]))


def talk(arguments: Arguments) -> Talk:
    """How to speak."""
    log_format = arguments.last("ui.log_format", LogFormat.TEXT)
    progress = arguments.last("ui.progress", ShowProgress.AUTO)
    assert isinstance(log_format, LogFormat)
    assert isinstance(progress, ShowProgress)
    verbosity = arguments.count("--verbose") - arguments.count("--quiet")
    return Talk(max(-2, min(1, verbosity)), log_format, progress)


def _checked(of: type, values: dict[str, object]) -> dict[str, Any]:
    """Keyword arguments; a test holds the table's types to the fields'."""
    names = of.__annotations__.keys()
    assert values.keys() <= names, values.keys() - names
    return values


def _places(words: Sequence[str], usage: str) -> Sequence[str]:
    fix = f"instep {usage}"
    if not words:
        raise UsageError("no-source", "neither a source nor a target was given", fix=fix)
    if len(words) == 1:
        raise UsageError("no-target", f"no target was given for {escaped(words[0])}", fix=fix)
    if "" in words:
        raise UsageError("empty-path", "a source or target is empty", fix="write . for the current directory")
    for word in words[1:]:
        if _HOST_ALONE.fullmatch(word):
            # To rsync that is the home directory. Whoever forgot the rest would lose all that is in there.
            raise UsageError(
                "bad-target",
                f"the target {escaped(word)} names a host, and no directory on it",
                fix="write host:/path or ssh://host/path; the home directory there is host:. or ssh://host/~/.",
            )
    return words


def _absolute(path: bytes) -> bytes:
    """Absolute, without trailing slash. The kernel resolves ``..`` where a link may be in front of it."""
    if b".." in path.split(b"/"):
        return os.path.realpath(path)
    absolute = os.path.abspath(path)
    return absolute[1:] if absolute.startswith(b"//") else absolute


def _address(target: bytes) -> bytes:
    spec = TargetSpec(target)
    if spec.is_local:
        return _absolute(target)
    bare = target.rstrip(b"/")
    return target if bare.endswith(b":") else bare  # ``host:/`` is not ``host:``


def _state_dir(word: str) -> bytes:
    """Where state is kept; empty for nowhere. As the XDG base directory specification has it, save for root."""
    if word == "none":
        return b""
    if word != "auto":
        return os.fsencode(word)
    if os.geteuid() == 0:
        return b"/var/lib/instep"
    home = os.environb.get(b"XDG_STATE_HOME", b"")
    if not home.startswith(b"/"):  # "All paths must be absolute", else they are to be ignored.
        home = os.path.expanduser(b"~/.local/state")
    return os.path.abspath(home) + b"/instep" if home.startswith(b"/") else b""


def _agree(spec: MirrorSpec, arguments: Arguments) -> None:
    """Refuse combinations in which an option would silently do nothing."""
    pace = spec.pace
    if pace.quiet_s > pace.hold_s:
        raise UsageError(
            "quiet-over-hold",
            f"--quiet-time ({pace.quiet_s:g} s) is longer than --hold-time ({pace.hold_s:g} s), so it would"
            " never count",
            fix=f"raise the hold time, e.g. --hold-time={pace.quiet_s * 10:g}",
        )
    big = [name for name in ("--big-quiet-time", "--big-hold-time") if arguments.has(name)]
    if big and not arguments.has("--big"):
        raise UsageError("big-missing", f"{big[0]} does nothing without --big", fix="say from which size: --big=1G")
    if pace.big_quiet_s > pace.big_hold_s and arguments.has("--big"):
        raise UsageError(
            "quiet-over-hold",
            f"--big-quiet-time ({pace.big_quiet_s:g} s) is longer than --big-hold-time ({pace.big_hold_s:g} s), "
            "so it would never count",
            fix=f"raise the hold time, e.g. --big-hold-time={pace.big_quiet_s * 10:g}",
        )
    if spec.delete_excluded and not spec.delete:
        raise UsageError("options-clash", "--delete-excluded and --no-delete contradict each other", fix="drop one")
    limits = [name for name in ("--max-delete", "--force-delete") if arguments.has(name)]
    if limits and not spec.delete:
        raise UsageError("options-clash", f"{limits[0]} does nothing with --no-delete", fix="drop one")
    if spec.once and spec.initial_sync is InitialSync.NONE:
        raise UsageError("options-clash", "--once with --initial-sync=none has nothing to do", fix="drop one")
    if spec.verify is not None and (spec.once or spec.dry_run):
        raise UsageError(
            "options-clash",
            f"--verify does nothing with {'--once' if spec.once else '--dry-run'}",
            fix="drop it, or see instep verify",
        )
    if arguments.has("--poll-interval") and spec.monitor not in (MonitorName.AUTO, MonitorName.POLL):
        raise UsageError(
            "options-clash",
            f"--poll-interval does nothing with --monitor={spec.monitor.value}",
            fix="drop it, or take --monitor=poll",
        )
    for arg in spec.rsync_args:
        if not arg.startswith(b"-") or arg in (b"-", b"--"):
            raise UsageError(
                "bad-rsync-arg",
                f"--rsync-arg: {escaped(arg)} is no option, so rsync would take it for a path",
                fix="write an option with its value as one word: --rsync-arg=--timeout=60",
            )


def _value(option: Option, text: str) -> object:
    try:
        return option.kind.parse(text)
    except ValueError as error:
        fix = f"the default is {option.shown_default}"
        if option.is_flag:
            fix = f"write {option.name} alone"
        elif option.repeat:
            fix = f"give a value ({option.kind.metavar}), or drop the option"
        raise UsageError("bad-value", f"{option.name}={escaped(text)}: {error}", fix=fix) from None


def _of_flag(option: Option) -> object:
    value: object = getattr(option.kind, "value", None)
    if not option.is_flag:
        raise UsageError("missing-value", f"{option.flags[0]} needs a value", fix=f"{option.name}={_example(option)}")
    return value


def _example(option: Option) -> str:
    default = option.shown_default.removesuffix(" s")
    return option.kind.metavar if default in ("off", "none") else default


def _unknown(flag: str, flags: list[str], command: str, word: str = "") -> UsageError:
    near = nearest(flag, [each for each in flags if each.startswith("--")]) if flag.startswith("--") else None
    among = f" (in {escaped(word)})" if word and word != flag else ""
    return UsageError(
        "unknown-option",
        f"unknown option {escaped(flag)}{among}",
        fix=f"did you mean {near}?"
        if near
        else f"see instep {command} --help; a path that begins with - goes after --",
    )
