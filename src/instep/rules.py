"""The parts of a specification that go down to where each name is handled: what is let through, what is preserved.

Apart from ``spec`` for the sake of worker processes, as ``paths`` is.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Subject = Literal["directories", "others", "all"]
"""Whose paths an expression is searched in."""


class Rule(NamedTuple):
    """One filter rule, in the order given: a pattern in rsync's language, or an expression of Python's ``re``.

    Only the native engine and the index know expressions.
    """

    include: bool
    pattern: bytes
    origin: str = ""
    """Where it stands, for messages: ``--exclude`` or ``FILE:LINE``."""
    searched_in: Subject | None = None
    """Not None: ``pattern`` is an expression, without groups, searched in the whole path of these objects."""


class Preserve(NamedTuple):
    """What is kept besides names, types and contents; all of it as far as the user may."""

    owner: bool = True
    mode: bool = True
    times: bool = True
    xattrs: bool = True
    acls: bool = True
    hard_links: bool = True
    devices: bool = True
    sparse: bool = True
    owner_names: bool = False
    """On other machines owners are those who have the same names there, where there are such; else the same numbers."""
