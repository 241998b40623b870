"""Help and version, made from the table of options."""

from __future__ import annotations

import textwrap

import instep
from instep.frontends.clsync.options import OPTIONS, Group, Option

WIDTH = 100
_COLUMN = 34
SYNOPSIS = "clsync -M MODE -W DIR [-D DIR] [-S PROGRAM] [OPTION...] [--] [ARGUMENT...]"


def help_text() -> str:
    """All options by group, each with its default."""
    blocks = [f"usage: {SYNOPSIS}", _wrapped(_INTRODUCTION)]
    for group in Group:
        rows = [option for option in OPTIONS if option.group is group]
        blocks.append(f"{group.value}:\n" + "\n".join(_row(option) for option in rows))
    return "\n\n".join([*blocks, _wrapped(_CLOSE)])


_INTRODUCTION = (
    "Watches a directory and has a handler bring over what changes: the command line of clsync 0.4.5, on instep. The "
    "ARGUMENTs are the handler's."
)
_CLOSE = (
    "Values in brackets have to be glued on (-d5, --debug=5); a switch alone is on, =0 is off. An empty value is the "
    "default. Times are in seconds, sizes in bytes; numbers may be hexadecimal (0x10) or octal (010). %NAME% in a "
    "value stands for the option of that name, as far as it is set before; %% is a percent sign. See clsync(1)."
)


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, WIDTH, break_on_hyphens=False))


def _row(option: Option) -> str:
    head = f"  {'' if option.short else '    '}{option.usage}"
    text = option.help or option.idle
    if option.default:
        text += f" [default: {option.default}]"
    lines = textwrap.wrap(text, WIDTH - _COLUMN - 2, break_on_hyphens=False)
    pad = " " * (_COLUMN + 2)
    if len(head) <= _COLUMN:
        return f"{head:<{_COLUMN}}  {lines[0]}" + "".join(f"\n{pad}{line}" for line in lines[1:])
    return head + "".join(f"\n{pad}{line}" for line in lines)


def version_text() -> str:
    """Which clsync this stands in for."""
    return f"clsync 0.4.5 (instep {instep.__version__})"
