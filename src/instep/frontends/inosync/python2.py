"""Numbers and texts as Python 2 writes them, as Python 3 does: ``0644``, ``10L``, ``ur"…"``. The rest stays."""

from __future__ import annotations

import re
from typing import Final

_TEXT: Final = (
    rb"\x22{3}(?:\\.|[^\\])*?\x22{3}|\x27{3}(?:\\.|[^\\])*?\x27{3}"
    rb"|\x22(?:\\.|[^\x22\\\n])*\x22|\x27(?:\\.|[^\x27\\\n])*\x27"
)
_TOKEN: Final = re.compile(
    rb"#[^\n]*|(?P<raw>[uU][rR])?(?:" + _TEXT + rb")"
    rb"|(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?"
    rb"|0(?P<octal>[0-7]+)[lL]?(?!\w)|(?P<long>0[xX][\da-fA-F]+|0[oO][0-7]+|0[bB][01]+|\d+)[lL](?!\w)"
    rb"|\w+",
    re.DOTALL,
)


def modern(text: bytes) -> bytes:
    """The text of a file with its values as Python 3 writes them; lines stay where they are."""
    return _TOKEN.sub(_modern, text)


def _modern(token: re.Match[bytes]) -> bytes:
    if token["raw"] is not None:
        return token[0][1:]
    if token["octal"] is not None:
        return b"0o" + token["octal"]
    return token["long"] or token[0]
