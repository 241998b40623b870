"""The handler's arguments as templates: ``%NAME%`` in upper case stands for what differs from run to run.

Facts (observed): ``%INCLUDE-LIST%`` is as many arguments as there are paths, and nothing where it is only part of one.
A name without a value stays as it is where it is the whole argument, and is nothing elsewhere. What is filled in is not
looked at again, whatever signs are in it; clsync does that, and so mangles names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

INCLUDE_LIST: Final = b"INCLUDE-LIST"
INCLUDE_PATH: Final = b"INCLUDE-LIST-PATH"
EXCLUDE_PATH: Final = b"EXCLUDE-LIST-PATH"
EVENT_MASK: Final = b"EVENT-MASK"
TYPE: Final = b"TYPE"
NAMES: Final = (INCLUDE_LIST, INCLUDE_PATH, EXCLUDE_PATH, EVENT_MASK, TYPE)
"""Those that can have a value."""

_MACRO = re.compile(rb"%([A-Z][A-Za-z0-9-]*)?%")


class Arguments:
    """The arguments of one handler; ``%%`` is a percent sign."""

    def __init__(self, templates: Sequence[bytes]) -> None:
        # Text and names in turn, text first and last.
        self._arguments = [_MACRO.split(template) for template in templates]
        names = {name for parts in self._arguments for name in parts[1::2]}
        self.has_paths = INCLUDE_LIST in names
        """The paths are to be told as arguments, or in part of one, which comes to nothing."""
        self.has_include_path = INCLUDE_PATH in names
        self.has_exclude_path = EXCLUDE_PATH in names

    def __len__(self) -> int:
        return len(self._arguments)

    @property
    def tells_paths(self) -> bool:
        """There is a place for the paths of a whole run."""
        return self.has_paths or self.has_include_path or self.has_exclude_path

    def filled(self, values: Mapping[bytes, bytes], paths: Sequence[bytes]) -> list[bytes]:
        """The arguments of one run."""
        out: list[bytes] = []
        for parts in self._arguments:
            is_alone = len(parts) == 3 and not parts[0] and not parts[2]
            name = parts[1] if is_alone else None
            if name is None:
                out.append(_joined(parts, values))
            elif name == INCLUDE_LIST:
                out += paths
            else:
                out.append(values.get(name, b"%" + name + b"%"))
        return out


def _joined(parts: Sequence[bytes | None], values: Mapping[bytes, bytes]) -> bytes:
    """Text and names in turn; no name at all is a percent sign."""
    out = [parts[0] or b""]
    for name, text in zip(parts[1::2], parts[2::2], strict=True):
        out.append(b"%" if name is None else values.get(name, b""))
        out.append(text or b"")
    return b"".join(out)
