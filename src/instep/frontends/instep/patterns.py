"""Filter rules from options and pattern files, in the order given."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import replace

from instep.core.filters import parse_rule, parse_rule_text
from instep.errors import UsageError
from instep.frontends.instep.output import escaped
from instep.rules import Rule
from instep.spec import MirrorSpec, RuleSource

FILE_BYTES_MAX = 16 << 20
"""A larger pattern file is a mistake (guessed)."""


def gather(sources: Iterable[RuleSource]) -> tuple[Rule, ...]:
    """All rules. Blocks while files are read.

    Raises:
        UsageError: a file that cannot be read, a rule that cannot be honoured.
    """
    rules: list[Rule] = []
    for source in sources:
        option = "--include" if source.include else "--exclude"
        if source.is_file:
            text = _read(source.text, f"{option}-from")
            found = parse_rule_text(text, include_default=source.include, origin=escaped(source.text))
        else:
            found = parse_rule(source.text, include_default=source.include, origin=option)
        if found.clears:
            rules.clear()
        rules += found.rules
    return tuple(rules)


def reload_rules(spec: MirrorSpec) -> MirrorSpec:
    """The same mirror under what stands in its pattern files now.

    Raises:
        UsageError: see ``gather``; the rules from before are still good.
    """
    return replace(spec, rules=gather(spec.rule_sources))


def _read(path: bytes, option: str) -> bytes:
    what = f"{option}: cannot read {escaped(path)}"
    fix = "give a readable file with one pattern a line"
    try:
        # A FIFO nobody writes to must not hang a start or a reload.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with os.fdopen(fd, "rb") as file:
            info = os.fstat(fd)
            if stat.S_ISDIR(info.st_mode):
                raise UsageError("unreadable-patterns", f"{what}: Is a directory", fix=fix)
            if stat.S_ISREG(info.st_mode) is False:
                os.set_blocking(fd, True)
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError("unreadable-patterns", f"{what}: {error.strerror}", fix=fix) from error
    if len(text) > FILE_BYTES_MAX:
        raise UsageError("unreadable-patterns", f"{what}: more than {FILE_BYTES_MAX >> 20} MiB", fix=fix)
    return text
