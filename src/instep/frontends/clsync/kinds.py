"""Kinds of option values: how each is read, and which values make no sense."""

from __future__ import annotations

import enum
import grp
import os
import pwd
import re
import signal
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from instep.frontends.instep.kinds import nearest
from instep.frontends.instep.output import escaped

Warn = Callable[[str], None]

_NUMBER: Final = re.compile(rb"[ \t\n\v\f\r]*(\+?)(?:0[xX]([0-9a-fA-F]+)|(0[0-7]*)|([1-9][0-9]*))?[ \t\n\v\f\r]*")
YEARS_S: Final = 100 * 366 * 86400
_INT: Final = 2**31 - 1
_OFF_T: Final = 2**63 - 1


class Kind(Protocol):
    """What one option takes."""

    @property
    def metavar(self) -> str:
        """The placeholder in help."""

    def read(self, text: bytes, before: object, warn: Warn) -> object:
        """What a value says; None: the default.

        Args:
            text: the value.
            before: what was given before it, for kinds that add up; None: nothing.
            warn: told what is left out.

        Raises:
            ValueError: with words for what is expected.
        """

    def alone(self, before: object) -> object:
        """What the option says without a value, where it may be without one."""


class _Valued:
    """A kind whose options always have a value."""

    def alone(self, before: object) -> object:
        """Never asked for, save where the value is optional and yet needed."""
        del before
        raise ValueError("expected a value, glued on: --NAME=VALUE")


def number(text: bytes, most: int = _INT) -> int:
    """As strtol(3) with base 0, all of the text: ``010`` is 8, ``0x10`` is 16, nothing is 0.

    Raises:
        ValueError: it is no number, negative or too large.
    """
    found = _NUMBER.fullmatch(text)
    if found is None:
        expected = "expected 0 or more" if re.fullmatch(rb"\s*-\s*\d+\s*", text) else "expected a whole number"
        raise ValueError(expected)
    if found[2]:
        value = int(found[2], 16)
    elif found[3]:
        value = int(found[3], 8)
    else:
        value = int(found[4] or b"0") if len(found[4] or b"") < 30 else most + 1
    if value > most:
        raise ValueError(f"expected at most {most}")
    return value


class Number(_Valued):
    """A whole number that is not negative."""

    def __init__(self, metavar: str = "NUMBER", *, most: int = _INT) -> None:
        self.metavar: str = metavar
        self._most = most

    def read(self, text: bytes, before: object, warn: Warn) -> int:
        """The number."""
        del before, warn
        return number(text, self._most)


class Switch:
    """On or off, as a number: 0 is off."""

    metavar: str = "0|1"

    def read(self, text: bytes, before: object, warn: Warn) -> bool:
        """Whether it is on."""
        del before, warn
        try:
            return number(text) != 0
        except ValueError as error:
            raise ValueError(f"{error}: 1 for on, 0 for off") from None

    def alone(self, before: object) -> bool:
        """On."""
        del before
        return True


class Count:
    """A number that grows by one each time the option stands without a value."""

    metavar: str = "LEVEL"

    def __init__(self, start: int) -> None:
        self._start = start

    def read(self, text: bytes, before: object, warn: Warn) -> int:
        """The number."""
        del before, warn
        return number(text)

    def alone(self, before: object) -> int:
        """One more."""
        return (before if isinstance(before, int) else self._start) + 1


class Text(_Valued):
    """Any text."""

    def __init__(self, metavar: str, *, empty_counts: bool = False) -> None:
        self.metavar: str = metavar
        self._empty_counts = empty_counts

    def read(self, text: bytes, before: object, warn: Warn) -> bytes | None:
        """The text; nothing is the default."""
        del before, warn
        return text if text or self._empty_counts else None


class Name(_Valued):
    """A text that is a name within a configuration file."""

    metavar: str = "BLOCK"

    def read(self, text: bytes, before: object, warn: Warn) -> str | None:
        """The name; nothing is the default."""
        del before, warn
        return os.fsdecode(text) or None


class Path(_Valued):
    """A path, as it is given; what it is relative to is a matter of the option."""

    def __init__(self, metavar: str = "FILE") -> None:
        self.metavar: str = metavar

    def read(self, text: bytes, before: object, warn: Warn) -> bytes | None:
        """The path; nothing is the default."""
        del before, warn
        return text or None


class Below(_Valued):
    """A relative path that leads nowhere else."""

    metavar: str = "NAME"

    def read(self, text: bytes, before: object, warn: Warn) -> bytes | None:
        """The path; nothing is the default."""
        del before, warn
        if text and not {b"", b".", b".."}.isdisjoint(text.split(b"/")):
            raise ValueError("expected names with slashes between, and neither . nor .. among them")
        return text or None


class Paths(_Valued):
    """Several paths with commas between; an empty one forgets those before it."""

    metavar: str = "PATH[,PATH...]"

    def read(self, text: bytes, before: object, warn: Warn) -> tuple[bytes, ...]:
        """The paths."""
        del before, warn
        found: list[bytes] = []
        for path in text.split(b","):
            if path:
                found.append(path)
            else:
                found.clear()
        return tuple(found)


class Choice(_Valued):
    """One of several words; what stands behind a comma does not count, as in getsubopt(3)."""

    def __init__(
        self,
        words: Mapping[str, object],
        *,
        also: Mapping[str, object] | None = None,
        empty: bool = True,
        metavar: str = "",
    ) -> None:
        self._words = words
        self._all: Mapping[str, object] = {**words, **(also or {})}
        self._empty = empty
        self.metavar: str = metavar or "|".join(words)

    @classmethod
    def of(
        cls,
        words: type[enum.Enum],
        *,
        also: Mapping[str, object] | None = None,
        empty: bool = True,
        metavar: str = "",
    ) -> Choice:
        """The values of an enumeration."""
        return cls({str(each.value): each for each in words}, also=also, empty=empty, metavar=metavar)

    def read(self, text: bytes, before: object, warn: Warn) -> object:
        """What the word stands for; nothing is the default, where there is one."""
        del before, warn
        word = os.fsdecode(text.partition(b",")[0])
        if word in self._all:
            return self._all[word]
        if not word and self._empty:
            return None
        near = nearest(word, list(self._words))
        raise ValueError(f"expected one of: {', '.join(self._words)}" + (f" (did you mean {near}?)" if near else ""))


class User(_Valued):
    """A user, by name or number."""

    metavar: str = "USER"

    def read(self, text: bytes, before: object, warn: Warn) -> int:
        """Its number."""
        del before, warn
        return _id(text, lambda name: pwd.getpwnam(name).pw_uid, "user")


class UserGroup(_Valued):
    """A group, by name or number."""

    metavar: str = "GROUP"

    def read(self, text: bytes, before: object, warn: Warn) -> int:
        """Its number."""
        del before, warn
        return _id(text, lambda name: grp.getgrnam(name).gr_gid, "group")


def _id(text: bytes, look: Callable[[str], int], what: str) -> int:
    try:
        return look(os.fsdecode(text))
    except (KeyError, ValueError):
        pass
    if not text.strip():
        raise ValueError(f"expected a {what}, by name or number")
    try:
        return number(text, 2**32 - 2)
    except ValueError:
        raise ValueError(f"there is no {what} of this name") from None


class Owner(_Valued):
    """A user and a group; without a group that of the user."""

    metavar: str = "USER[:GROUP]"

    def read(self, text: bytes, before: object, warn: Warn) -> tuple[int, int] | None:
        """Their numbers."""
        del before
        if not text:
            return None
        user, colon, group = text.partition(b":")
        uid = User().read(user, None, warn)
        if colon:
            return uid, UserGroup().read(group, None, warn)
        try:
            return uid, pwd.getpwuid(uid).pw_gid
        except KeyError:
            raise ValueError("this user has no group of its own; write USER:GROUP") from None


class Permissions(_Valued):
    """An octal number."""

    metavar: str = "OCTAL"

    def read(self, text: bytes, before: object, warn: Warn) -> int | None:
        """The permissions."""
        del before, warn
        if not text:
            return None
        if not re.fullmatch(rb"[0-7]{1,5}", text) or int(text, 8) > 0o7777:
            raise ValueError("expected an octal number, e.g. 0660")
        return int(text, 8)


class ExitCodes(_Valued):
    """Exit codes with commas between; 0 forgets those before it, and repeated options add up."""

    metavar: str = "CODE[,CODE...]"

    def read(self, text: bytes, before: object, warn: Warn) -> frozenset[int]:
        """The codes, 0 among them."""
        del warn
        codes = set(before) if isinstance(before, frozenset) else {0}
        for word in text.split(b","):
            code = number(word, 256) % 256  # 256 is 0 to clsync as well.
            if code:
                codes.add(code)
            else:
                codes = {0}
        return frozenset(codes)


class Signals(_Valued):
    """Signals and the blocks that are read when they come; 0 forgets those before it, and repeated options add up."""

    metavar: str = "SIGNAL:BLOCK[,...]"

    def read(self, text: bytes, before: object, warn: Warn) -> Mapping[int, str]:
        """From signals to blocks."""
        del warn
        blocks: dict[int, str] = dict(before) if isinstance(before, dict) else {}
        for word in filter(None, text.split(b",")):
            digits, colon, block = word.partition(b":")
            sign = number(digits, 512)
            if not sign:
                blocks.clear()
                continue
            if not colon or not block:
                raise ValueError(f"{escaped(word)}: expected SIGNAL:BLOCK, e.g. 10:night")
            if sign in (signal.SIGKILL, signal.SIGSTOP) or sign not in signal.valid_signals():
                raise ValueError(f"signal {sign} cannot be waited for")
            blocks[sign] = os.fsdecode(block)
        return blocks


class Words(_Valued):
    """Words of a fixed set with commas between; others are left out, with a warning."""

    def __init__(self, known: frozenset[str], *, star: frozenset[str] = frozenset(), adds_up: bool = False) -> None:
        self._known = known
        self._star = star
        self._adds_up = adds_up
        self.metavar: str = "WORD[,WORD...]"

    def read(self, text: bytes, before: object, warn: Warn) -> frozenset[str] | None:
        """The words."""
        found: set[str] = set(before) if self._adds_up and isinstance(before, frozenset) else set()
        for raw in filter(None, text.split(b",")):
            word = os.fsdecode(raw)
            if word == "*" and self._star:
                found |= self._star
            elif word in self._known:
                found.add(word)
            else:
                warn(f"{escaped(raw)} is none of {', '.join(sorted(self._known))}; it is left out")
        return frozenset(found) or None


class Capabilities(_Valued):
    """Capabilities of capabilities(7) with commas between."""

    metavar: str = "CAP_NAME[,...]"

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known

    def read(self, text: bytes, before: object, warn: Warn) -> frozenset[str]:
        """The names; nothing is none of them."""
        del before, warn
        names = frozenset(os.fsdecode(word) for word in text.split(b",") if word)
        for name in sorted(names - self._known):
            near = nearest(name, sorted(self._known))
            raise ValueError(f"there is no capability {escaped(name)}" + (f" (did you mean {near}?)" if near else ""))
        return names


class Arguments(_Valued):
    """Arguments of the handler in one line."""

    metavar: str = "ARGUMENTS"

    def __init__(self, split: Callable[[bytes], list[bytes]]) -> None:
        self._split = split

    def read(self, text: bytes, before: object, warn: Warn) -> tuple[bytes, ...]:
        """The arguments; repeated options add up."""
        del warn
        return (*(before if isinstance(before, tuple) else ()), *self._split(text))


SECONDS: Final = Number("SECONDS", most=YEARS_S)
BYTES: Final = Number("BYTES", most=_OFF_T)
