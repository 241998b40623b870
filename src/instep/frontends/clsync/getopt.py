"""GNU getopt_long: a command line as options and operands, in the order in which they take effect.

Facts: getopt(3). Options may stand behind operands, unless POSIXLY_CORRECT is set; ``--`` ends them; long names may be
cut short as long as one name remains; optional values have to be glued on.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from instep.frontends.clsync.complaints import Refused, refused
from instep.frontends.instep.kinds import nearest
from instep.frontends.instep.output import escaped


class Takes(enum.Enum):
    """Whether an option has a value."""

    NOTHING = enum.auto()
    OPTIONAL = enum.auto()
    """Glued on: ``-d5``, ``--debug=5``."""
    VALUE = enum.auto()


class Spelled(Protocol):
    """An option as far as its spelling goes."""

    @property
    def name(self) -> str:
        """The long name, without dashes."""

    @property
    def short(self) -> str:
        """One letter, or nothing."""

    @property
    def takes(self) -> Takes:
        """Whether it has a value."""

    @property
    def yields(self) -> bool:
        """A shortened name that fits others as well is not this one."""


SpelledT = TypeVar("SpelledT", bound=Spelled)


@dataclass(frozen=True, slots=True)
class Word(Generic[SpelledT]):
    """An option or an operand."""

    option: SpelledT | None
    """None: an operand."""
    value: bytes | None
    spelled: str
    """As typed, for messages."""


def words(argv: Sequence[bytes], table: Sequence[SpelledT], *, in_order: bool) -> Iterator[Word[SpelledT]]:
    """Sort the words of a command line. Operands come in their order, but when they come among options is not said.

    Args:
        argv: without the program's name.
        table: the options.
        in_order: the first operand ends the options (POSIXLY_CORRECT).

    Raises:
        Refused: an unknown or ambiguous option, or a value missing or too much; once what stands before is taken.
    """
    by_name = {option.name: option for option in table}
    by_letter = {option.short: option for option in table if option.short}
    rest = iter(argv)
    for word in rest:
        if word == b"--":
            yield from (Word(None, operand, "") for operand in rest)
        elif word.startswith(b"--"):
            yield _long(word[2:], by_name, rest)
        elif word.startswith(b"-") and len(word) > 1:
            yield from _letters(word[1:], by_letter, rest)
        else:
            yield Word(None, word, "")
            if in_order:
                yield from (Word(None, operand, "") for operand in rest)


def _long(word: bytes, by_name: Mapping[str, SpelledT], rest: Iterator[bytes]) -> Word[SpelledT]:
    typed, equals, value = word.partition(b"=")
    name = typed.decode(errors="surrogateescape")
    option = by_name.get(name) or _shortened(name, by_name)
    spelled = f"--{option.name}"
    if option.takes is Takes.NOTHING and equals:
        raise refused(f"{spelled} takes no value, but was given {escaped(value)}", f"write {spelled} alone")
    if option.takes is Takes.VALUE and not equals:
        return Word(option, _next(rest, spelled, f"{spelled}=VALUE"), spelled)
    return Word(option, value if equals else None, spelled)


def _shortened(name: str, by_name: Mapping[str, SpelledT]) -> SpelledT:
    fitting = [option for each, option in by_name.items() if each.startswith(name)]
    if len(fitting) > 1:
        fitting = [option for option in fitting if not option.yields] or fitting
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = ", ".join(f"--{option.name}" for option in fitting)
        raise refused(f"--{escaped(name)} is ambiguous: {names}", "write the name in full")
    raise _unknown(f"--{escaped(name)}", nearest(name, list(by_name)))


def _letters(letters: bytes, by_letter: Mapping[str, SpelledT], rest: Iterator[bytes]) -> Iterator[Word[SpelledT]]:
    for at in range(len(letters)):
        letter = letters[at : at + 1].decode("latin-1")
        option = by_letter.get(letter)
        if option is None:
            raise _unknown(f"-{escaped(letters[at : at + 1])}", None)
        spelled = f"-{letter}"
        if option.takes is Takes.NOTHING:
            yield Word(option, None, spelled)
            continue
        glued = letters[at + 1 :]
        if option.takes is Takes.VALUE and not glued:
            yield Word(option, _next(rest, spelled, f"{spelled} VALUE"), spelled)
        else:
            yield Word(option, glued or None, spelled)
        return


def _next(rest: Iterator[bytes], spelled: str, example: str) -> bytes:
    value = next(rest, None)
    if value is None:
        raise refused(f"{spelled} needs a value", f"write {example}")
    return value


def _unknown(spelled: str, near: str | None) -> Refused:
    return refused(f"there is no option {spelled}", f"did you mean --{near}?" if near else "see clsync --help")
