"""``%NAME%`` in option values and in the handler's arguments, as far as it can be replaced before anything is run.

Facts: the manual page of clsync 0.4.5 and its observed behaviour, save that a percent sign that is part of no macro
stays where it is (clsync drops the rest of the value, or dies).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from instep.frontends.clsync.templates import NAMES
from instep.frontends.instep.kinds import nearest
from instep.frontends.instep.output import escaped

_MACRO: Final = re.compile(rb"%(?:([A-Za-z][A-Za-z0-9-]*)?%)?")
_RSYNC_ARGS: Final = b"%RSYNC-ARGS%"

Look = Callable[[str], bytes | None]
"""The text that a name stands for; None: none is set."""
Warn = Callable[[str], None]


def value(text: bytes, look: Look, warn: Warn) -> bytes:
    """An option's value with its macros replaced.

    A value that consists of nothing but names that stand for nothing is left as it is; elsewhere they vanish.
    """
    if b"%" not in text:
        return text
    stood = False

    def replacement(found: re.Match[bytes]) -> bytes:
        nonlocal stood
        name = found[1]
        if name is None:
            return b"%"
        text_of = look(name.decode())
        if text_of is None:
            warn(f"{escaped(text)}: {escaped(found[0])} stands for nothing that is set")
            return b""
        stood = True
        return text_of

    replaced = _MACRO.sub(replacement, text)
    return replaced if replaced or stood else text


def argument(text: bytes, look: Look, warn: Warn) -> bytes:
    """An argument of the handler as a template: only names in upper case are left, and ``%%`` is a percent sign."""
    if b"%" not in text:
        return text
    stood = False

    def replacement(found: re.Match[bytes]) -> bytes:
        nonlocal stood
        name = found[1]
        if name is None:
            return b"%%"
        text_of = look(name.decode())
        if text_of is not None:
            stood = True
            return text_of.replace(b"%", b"%%")
        if name[:1].isupper():
            stood = True
            if name not in NAMES:
                near = nearest(name.decode(), [each.decode() for each in NAMES])
                meant = f" (did you mean %{near}%?)" if near else ""
                warn(f"the handler's argument {escaped(text)}: {escaped(found[0])} stands for nothing{meant}")
            return found[0]
        warn(f"the handler's argument {escaped(text)}: {escaped(found[0])} stands for nothing that is set")
        return b""

    template = _MACRO.sub(replacement, text)
    return template if template or stood else text.replace(b"%", b"%%")


def names(template: bytes) -> Iterator[str]:
    """The names of the macros in a text."""
    return (found[1].decode() for found in _MACRO.finditer(template) if found[1])


def with_rsync_args(arguments: Iterable[bytes], rsync_args: Iterable[bytes], warn: Warn) -> Iterator[bytes]:
    """``%RSYNC-ARGS%`` as the several words that it stands for; within a word it stands for nothing."""
    words = tuple(rsync_args)
    for text in arguments:
        if text == _RSYNC_ARGS:
            yield from words
        elif _RSYNC_ARGS in text:
            warn(f"the handler's argument {escaped(text)}: %RSYNC-ARGS% only stands for its words where it is alone")
            yield text.replace(_RSYNC_ARGS, b"")
        else:
            yield text


def split(text: bytes) -> list[bytes]:
    r"""The words of a line of arguments: blanks and tabs separate, quotes group, ``\"`` within quotes is a quote.

    Raises:
        ValueError: a quote that is not closed.
    """
    words: list[bytes] = []
    word: bytearray | None = None
    quote = 0
    at = 0
    while at < len(text):
        byte = text[at]
        at += 1
        if quote:
            assert word is not None
            if byte == ord("\\") and text[at : at + 1] == bytes((quote,)):
                word.append(quote)
                at += 1
            elif byte == quote:
                quote = 0
            else:
                word.append(byte)
        elif byte in b" \t":
            if word is not None:
                words.append(bytes(word))
                word = None
        else:
            word = bytearray() if word is None else word
            if byte in b"'\"":
                quote = byte
            else:
                word.append(byte)
    if quote:
        raise ValueError(f"a {chr(quote)} is not closed")
    return words if word is None else [*words, bytes(word)]
