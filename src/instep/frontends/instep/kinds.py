"""Kinds of option values: how each is read from the command line, checked for its range, and shown in help.

Plain classes: as dataclasses they would take a tenth of the time that the program takes to start (measured).
"""

from __future__ import annotations

import enum
import math
import os
import re
from typing import Final, Protocol

from instep.spec import MaxDelete, Rounds

_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)", re.ASCII)
_TIME_UNITS_S = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "h": 3600.0}
_SIZE_POWERS = {"": 0, "b": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}


class Kind(Protocol):
    """What one option takes."""

    @property
    def metavar(self) -> str:
        """The placeholder in help."""

    def parse(self, text: str) -> object:
        """The value.

        Raises:
            ValueError: with words for what is expected.
        """

    def show(self, value: object) -> str:
        """A value as one would type it."""


class Seconds:
    """A time span: a number of seconds, or with a unit."""

    metavar: str = "SECONDS"

    def __init__(self, *, least: float = 0.0, most: float = 365 * 86400.0) -> None:
        self.least: Final = least
        self.most: Final = most

    def parse(self, text: str) -> float:
        """The span in seconds."""
        found = _NUMBER.fullmatch(text)
        unit_s = _TIME_UNITS_S.get(found[2].lower()) if found else None
        if found is None or unit_s is None:
            raise ValueError("expected a time such as 2, 0.5, 500ms, 3m or 1h")
        value_s = float(found[1]) * unit_s
        if not self.least <= value_s <= self.most:
            raise ValueError(f"expected a time from {self.show(self.least)} to {self.show(self.most)}")
        return value_s

    def show(self, value: object) -> str:
        """With its unit: seconds, or hours where that is a whole number of them."""
        assert isinstance(value, int | float)
        return f"{value // 3600:g} h" if value and value % 3600 == 0 else f"{value:g} s"


class Size:
    """A number of bytes; suffixes are powers of 1024, or of 1000 when they end in B (``MB``), as rsync has it."""

    metavar: str = "SIZE"

    def parse(self, text: str) -> float:
        """The size in bytes; infinity for ``off``."""
        return math.inf if text == "off" else _size(text, plain=1)

    def show(self, value: object) -> str:
        """``off``, or the number in the largest unit that leaves no rest."""
        return _show_size(value)


class Rate:
    """Bytes a second in rsync's notation: a plain number is KiB, 0 is no limit."""

    metavar: str = "RATE"

    def parse(self, text: str) -> float:
        """The rate in bytes a second; infinity for no limit."""
        value = math.inf if text == "off" else _size(text, plain=1024, zero=True)
        if 0 < value < 512:
            raise ValueError("expected a rate of at least 512 bytes a second, or 0 for no limit")
        return value or math.inf

    def show(self, value: object) -> str:
        """As a size."""
        return _show_size(value)


class Every:
    """How often something is done, and how: ``every=6h,checksum``; ``off``: never."""

    metavar: str = "every=TIME[,checksum]"

    def parse(self, text: str) -> Rounds | None:
        """The rounds; None for ``off``."""
        if text == "off":
            return None
        first, *rest = text.split(",")
        key, equals, span = first.partition("=")
        if key != "every" or not equals or rest not in ([], ["checksum"]):
            raise ValueError("expected off, every=TIME or every=TIME,checksum, e.g. every=6h")
        return Rounds(Seconds(least=0.1).parse(span), checksum=bool(rest))

    def show(self, value: object) -> str:
        """As typed."""
        if not isinstance(value, Rounds):
            return "off"
        return f"every={Seconds().show(value.every_s).replace(' ', '')}" + (",checksum" if value.checksum else "")


class Whole:
    """A whole number."""

    metavar: str = "N"

    def __init__(self, least: int, most: int) -> None:
        self.least: Final = least
        self.most: Final = most

    def parse(self, text: str) -> int:
        """The number."""
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not self.least <= int(text) <= self.most:
            raise ValueError(f"expected a whole number from {self.least} to {self.most}")
        return int(text)

    def show(self, value: object) -> str:
        """Digits."""
        return str(value)


class Deletable:
    """A number of names, a share of the target, or both: then the larger of the two counts."""

    metavar: str = "N|P%"

    def parse(self, text: str) -> MaxDelete:
        """The limit; off for ``none``."""
        if text == "none":
            return MaxDelete(100, math.inf)
        found = re.fullmatch(r"(?:(\d{1,3}(?:\.\d*)?)%)?(?:(?:^|,)(\d{1,12}))?", text, re.ASCII)
        if not text or found is None or float(found[1] or 0) > 100:
            raise ValueError("expected a number of names, a percentage, both (50%,1000: the larger counts) or none")
        return MaxDelete(float(found[1] or 0), float(found[2] or 0))

    def show(self, value: object) -> str:
        """As typed."""
        assert isinstance(value, MaxDelete)
        if value.is_off:
            return "none"
        if not value.percent:
            return f"{value.least:.0f}"
        return f"{value.percent:g}%" + (f",{value.least:.0f}" if value.least else "")


class Choice:
    """One of the values of an enumeration."""

    def __init__(self, choices: type[enum.Enum]) -> None:
        self.choices: Final = choices
        self.metavar: Final = "|".join(str(choice.value) for choice in choices)

    def parse(self, text: str) -> enum.Enum:
        """The member with that value."""
        try:
            return self.choices(text)
        except ValueError:
            names = [str(choice.value) for choice in self.choices]
            near = nearest(text, names)
            hint = f"; did you mean {near}?" if near else ""
            raise ValueError(f"expected one of {', '.join(names)}{hint}") from None

    def show(self, value: object) -> str:
        """The value."""
        assert isinstance(value, enum.Enum)
        return str(value.value)


class Words:
    """Free text: a pattern, a file, an argument."""

    def __init__(self, metavar: str) -> None:
        self.metavar: Final = metavar

    def parse(self, text: str) -> str:
        """The text; it may be empty only where nothing is made of it."""
        if not text:
            raise ValueError("it is empty")
        return text

    def show(self, value: object) -> str:
        """Nothing given is said so."""
        return str(value) if value else "none"


class Directory:
    """A directory that may have to be made; ``auto`` and ``none`` stand for themselves (``./auto`` is a directory)."""

    metavar: str = "DIR"

    def parse(self, text: str) -> str:
        """``auto``, ``none``, or the absolute path."""
        if not text:
            raise ValueError("expected a directory, auto or none")
        return text if text in ("auto", "none") else os.path.abspath(text)

    def show(self, value: object) -> str:
        """As typed."""
        return str(value)


class File:
    """A file that is there; ``none`` stands for no file (``./none`` is one)."""

    metavar: str = "FILE"

    def parse(self, text: str) -> bytes:
        """The absolute path; empty for ``none``."""
        if not text:
            raise ValueError("expected a file, or none")
        return b"" if text == "none" else os.path.abspath(os.fsencode(text))

    def show(self, value: object) -> str:
        """As typed."""
        return os.fsdecode(value) if isinstance(value, bytes) and value else "none"


class Program:
    """A program with arguments, cut into words as a shell would, but run without one."""

    metavar: str = "COMMAND"

    def parse(self, text: str) -> tuple[bytes, ...]:
        """The words."""
        import shlex  # noqa: PLC0415  # 4 ms that only those pay who ask for it

        try:
            words = shlex.split(text)
        except ValueError as error:
            raise ValueError(f"expected a program with its arguments, as for a shell: {error}") from None
        if not words or not words[0]:
            raise ValueError("expected a program with its arguments, as for a shell")
        return tuple(os.fsencode(word) for word in words)

    def show(self, value: object) -> str:
        """As typed, with quotes where they are needed."""
        import shlex  # noqa: PLC0415  # as above

        assert isinstance(value, tuple)
        return shlex.join(os.fsdecode(word) for word in value)


class Flag:
    """An option without a value, which stands for this one."""

    metavar: str = ""

    def __init__(self, *, value: object = True) -> None:
        self.value: Final = value

    def parse(self, text: str) -> object:
        """Flags take none."""
        raise ValueError("it takes no value" if text else "it takes no value, not even an empty one")

    def show(self, value: object) -> str:
        """Whether the flag's effect is on."""
        return "on" if value == self.value else "off"


def nearest(text: str, names: list[str]) -> str | None:
    """The name that was probably meant."""
    for name in sorted(names, key=len):
        if len(text) > 3 and name.startswith(text):
            return name
    import difflib  # noqa: PLC0415  # only needed on the way out

    close = difflib.get_close_matches(text, names, n=1, cutoff=0.6)
    return close[0] if close else None


def _size(text: str, *, plain: int, zero: bool = False) -> float:
    found = _NUMBER.fullmatch(text)
    if found:
        suffix = found[2].lower()
        letter, kind = suffix[:1], suffix[1:]
        if letter in _SIZE_POWERS and kind in ("", "ib", "b") and (letter not in ("", "b") or not kind):
            base = 1000 if kind == "b" else 1024
            value = float(found[1]) * (base ** _SIZE_POWERS[letter] if suffix else plain)
            if (value >= 1 or (zero and value == 0)) and value < 2**63:
                return float(round(value))
    what = (
        "rate such as 500 (KiB a second), 1.5M or 0 for no limit" if zero else "size such as 4096, 64K, 1.5M, 2G or 1T"
    )
    raise ValueError(f"expected a {what}")


def _show_size(value: object) -> str:
    assert isinstance(value, int | float)
    if math.isinf(value):
        return "off"
    for power in (4, 3, 2, 1):
        if value >= 1024**power and value % 1024**power == 0:
            return f"{int(value // 1024**power)}{'KMGT'[power - 1]}"
    return str(int(value))
