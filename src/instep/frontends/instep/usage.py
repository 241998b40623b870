"""The help texts, made from the option table."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from instep.frontends.instep.options import UNITS, Group, Option

WIDTH = 100
_COLUMN = 26


def options_help(table: Sequence[Option]) -> str:
    """All options by group, each with its unit and default."""
    blocks = []
    for group in Group:
        rows = [option for option in table if option.group is group]
        if rows:
            blocks.append(f"{group.value}:\n" + "\n".join(_row(option) for option in rows))
    blocks.append("\n".join(textwrap.wrap(UNITS, WIDTH)))
    return "\n\n".join(blocks)


def _row(option: Option) -> str:
    indent = "  " if option.flags[0].startswith("--") and len(option.flags) == 1 else ""
    head = "  " + (indent + indent) + ", ".join(option.flags)
    if not option.is_flag:
        head += " " + option.kind.metavar
    text = option.help
    if not (option.is_flag and option.repeat):
        text += f" [default: {option.shown_default}]"
    if option.repeat and not option.is_flag:
        text += " (may be repeated)"
    lines = textwrap.wrap(text, WIDTH - _COLUMN - 2, break_on_hyphens=False)
    pad = " " * (_COLUMN + 2)
    if len(head) <= _COLUMN:
        return f"{head:<{_COLUMN}}  {lines[0]}" + "".join(f"\n{pad}{line}" for line in lines[1:])
    return head + "".join(f"\n{pad}{line}" for line in lines)
