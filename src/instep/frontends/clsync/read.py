"""From a command line and configuration files to settings, and to other settings while the program runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from instep.frontends.clsync import arguments, build, checks, config, macros
from instep.frontends.clsync.complaints import Note, Refused, Talk, refused
from instep.frontends.clsync.getopt import words
from instep.frontends.clsync.options import BY_NAME, FORMER_NAMES, OPTIONS, Live, Option
from instep.frontends.clsync.settings import Given, Settings, Start
from instep.frontends.clsync.usage import help_text, version_text
from instep.frontends.instep.kinds import nearest
from instep.frontends.instep.output import escaped


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question of the command line is answered with; nothing else is done."""

    text: str
    status: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """Settings, and what was odd about what they were made from."""

    settings: Settings
    notes: tuple[Note, ...] = ()


def read(argv: Sequence[bytes], environ: Mapping[bytes, bytes], directory: bytes, pid: int) -> Reading | Answer:
    """Understand a command line, and read the configuration file that it leads to.

    Args:
        argv: the words after the program's name.
        environ: the environment: HOME, PATH and POSIXLY_CORRECT count.
        directory: the current directory, absolute.
        pid: the process's number.

    Raises:
        Refused: the settings cannot be used; ``status`` is clsync's exit status.
    """
    start = Start(directory, environ.get(b"PATH", b"/usr/bin:/bin"), environ.get(b"HOME"), pid)
    collected = _Collected(start)
    try:
        if (answer := _command_line(collected, argv, in_order=b"POSIXLY_CORRECT" in environ)) is not None:
            return answer
        found = _config_file(collected)
        if found is not None:
            _block(collected, found)
        return _finished(collected, config_file=None if found is None else found.path)
    except Refused as error:
        raise Refused(error.complaints, notes=collected.notes, talk=collected.talk()) from None


def changed(settings: Settings, name: str, value: bytes) -> Reading:
    """The settings with one option set anew, while the program runs.

    Raises:
        Refused: it cannot be changed now, makes no sense, or does not go with the others; ``settings`` stay.
    """
    option = _option(name)
    if option.answers:
        raise refused(f"{name} is a question for the command line", "ask clsync itself")
    if option.live is Live.REFUSED:
        raise refused(f"{name} cannot be changed while the program runs", "start it anew")
    collected = _Collected(settings.start, dict(settings.given))
    collected.forget(option)
    collected.put(option, value, name)
    if option.live is Live.START:
        collected.warn(f"{name} counts at the start alone; nothing is changed")
        return Reading(settings, tuple(collected.notes))
    return _finished(collected, config_file=_config_path(collected) or settings.config_file, before=settings)


def again(settings: Settings, block: str) -> Reading:
    """The settings with those of a block of the configuration file, which is read again, in front of all others.

    Options that cannot be changed while the program runs stay as they are, with a warning.

    Raises:
        Refused: there is no such file any more, or the block makes no sense; ``settings`` stay.
    """
    if settings.config_file is None:
        raise refused(f"block [{escaped(block)}] cannot be read: there is no configuration file", "start with -H FILE")
    found = config.named(settings.config_file)
    collected = _Collected(settings.start, dict(settings.given))
    if block not in found.blocks:
        collected.warn(f"{escaped(found.path)} has no block [{escaped(block)}]; nothing is changed")
        return Reading(settings, tuple(collected.notes))
    lines = config.merged(found, block, None, collected.warn)
    for option in OPTIONS:
        if (line := lines.get(option.name)) is None:
            continue
        if option.live in (Live.NOW, Live.HUP):
            collected.forget(option)
            continue
        if not _says_the_same(settings, option.name, line):
            collected.warn(f"{line.origin}: {option.name} cannot be changed while the program runs; it stays")
        del lines[option.name]
    _lines(collected, lines)
    collected.given["config-block"] = Given(os.fsencode(block), block, "config-block")
    return _finished(collected, config_file=_config_path(collected) or settings.config_file, before=settings)


def _says_the_same(settings: Settings, name: str, line: config.Line) -> bool:
    if name == "config-block-inherits":
        return True
    one = settings.given.get(name)
    look = partial(arguments.look, given=settings.given, start=settings.start)
    return one is not None and macros.value(line.text, look, lambda _: None) == one.text


@dataclass(slots=True)
class _Collected:
    """Options as they come in."""

    start: Start
    given: dict[str, Given] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    unlabelled: str = ""
    """Where ``%label%`` stood for the default, as no label was set yet."""

    def warn(self, text: str) -> None:
        """Something is odd."""
        self.notes.append(Note(text))

    def talk(self) -> Talk:
        """How messages are to be shown, as far as that is known."""
        meant = {name: one.meant for name in ("output", "verbose", "debug", "quiet") if (one := self.given.get(name))}
        return Talk(**{name: value for name, value in meant.items() if value is not None})  # type: ignore[arg-type]  # a test holds the kinds to it

    def forget(self, option: Option) -> None:
        """What was given for it does not count."""
        self.given.pop(option.name, None)

    def put(self, option: Option, text: bytes | None, origin: str) -> None:
        """One more option.

        Args:
            option: its row.
            text: its value; None: it stands alone.
            origin: where it stands.

        Raises:
            Refused: the value makes no sense.
        """

        def warn(text: str) -> None:
            self.warn(f"{origin}: {text}")

        if text is not None and not option.name.startswith("-"):
            if "label" in macros.names(text) and "label" not in self.given:
                self.unlabelled = self.unlabelled or origin
            text = macros.value(text, self.look, warn)
        if text is not None and b"\0" in text:
            raise refused(f"{origin}: there is a zero byte in {escaped(text)}", "drop it")
        known = self.given.get(option.name)
        before = None if known is None else known.meant
        try:
            if text is None:
                meant = option.kind.alone(before)
                text = str(int(meant)).encode() if isinstance(meant, int) else b""
            else:
                meant = option.kind.read(text, before if option.adds_up else None, warn)
        except ValueError as error:
            shown = "" if text is None else f'"{escaped(text)}": '
            raise refused(f"{origin}: {shown}{error}") from None
        self.given[option.name] = Given(text, meant, origin)

    def look(self, name: str) -> bytes | None:
        """What ``%NAME%`` stands for so far."""
        return arguments.look(name, self.given, self.start)


def _command_line(collected: _Collected, argv: Sequence[bytes], *, in_order: bool) -> Answer | None:
    """Take what it says; an answer, if it asks."""
    operands: list[bytes] = []
    for word in words(argv, OPTIONS, in_order=in_order):
        option = word.option
        if option is None:
            assert word.value is not None
            operands.append(word.value)
        elif option.answers:
            return Answer(help_text() if option.name == "help" else version_text())
        else:
            collected.put(option, word.value, word.spelled)
    if operands and operands != [b""]:
        collected.given["--"] = Given(b"", tuple(operands), "the command line")
    return None


def _config_path(collected: _Collected) -> bytes | None:
    """The configuration file that was named."""
    one = collected.given.get("config-file")
    if one is None or not isinstance(one.meant, bytes) or one.meant == config.NONE:
        return None
    return os.path.join(collected.start.directory, one.meant)


def _config_file(collected: _Collected) -> config.ConfigFile | None:
    """Read the one that was named, or that is found."""
    if (named := _config_path(collected)) is not None:
        return config.named(named)
    one = collected.given.get("config-file")
    if one is not None and one.meant == config.NONE:
        return None
    return config.find(collected.start.home, collected.warn)


def _block(collected: _Collected, found: config.ConfigFile) -> None:
    """Take what the block in question says and the command line does not; the handler's arguments add up."""
    given = collected.given
    block, parent = (
        one.meant if (one := given.get(name)) is not None and isinstance(one.meant, str) else default
        for name, default in (("config-block", "default"), ("config-block-inherits", None))
    )
    assert block is not None
    if "config-block" in given and block not in found.blocks:
        text = f"{escaped(found.path)} has no block [{escaped(block)}]"
        collected.notes.append(Note(text, is_warning=False))
    lines = config.merged(found, block, parent, collected.warn)
    _lines(collected, {name: line for name, line in lines.items() if name not in given or name.startswith("-")})


def _lines(collected: _Collected, lines: Mapping[str, config.Line]) -> None:
    """Take lines, those first that others refer to."""
    waiting: dict[str, config.Line] = {}
    for name, line in lines.items():
        option = BY_NAME.get(name)
        if option is None:
            collected.warn(f"{line.origin}: there is no option {escaped(name)}; {_instead(name)}")
        elif option.answers:
            collected.warn(f"{line.origin}: {name} is a question for the command line; the line is passed over")
        else:
            waiting[name] = line

    def take(name: str) -> None:
        line = waiting.pop(name)
        # What the handler's arguments refer to is looked up once everything is set.
        for other in () if name.startswith("-") else macros.names(line.text):
            if other == "label" != name and other in lines and lines[other].depth >= line.depth:
                collected.warn(
                    f"{line.origin}: {name} refers to %label% of {lines[other].origin}, which clsync would take for"
                    " nolabel here, as it reads the label last; what was meant counts"
                )
            if other in waiting:
                take(other)
        collected.put(BY_NAME[name], line.text, f"{line.origin}: {name}")

    for option in OPTIONS:
        if option.name in waiting:
            take(option.name)


def _instead(name: str) -> str:
    if (now := FORMER_NAMES.get(name)) is not None:
        return f"the line is passed over, as clsync does. Today one writes {now}"
    near = nearest(name, list(BY_NAME))
    return f"the line is passed over (did you mean {near}?)" if near else "the line is passed over"


def _option(name: str) -> Option:
    option = BY_NAME.get(name)
    if option is None:
        near = nearest(name, list(BY_NAME))
        raise refused(f"there is no option {escaped(name)}", f"did you mean {near}?" if near else "see clsync --help")
    return option


def _finished(collected: _Collected, *, config_file: bytes | None, before: Settings | None = None) -> Reading:
    settings = build.settings(collected.given, collected.start, collected.warn, config_file=config_file, before=before)
    if complaints := checks.complaints(settings):
        raise Refused(complaints)
    if before is None:
        if collected.unlabelled and "label" in collected.given:
            collected.warn(f"{collected.unlabelled}: %label% is nolabel there, as the label is only set behind it")
        collected.notes += checks.notes(settings)
    return Reading(settings, tuple(collected.notes))
