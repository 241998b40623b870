"""The worker process of the native engine: does bulk work that would hold up the loop."""

from __future__ import annotations

import select
import signal
import sys
from collections.abc import Callable

from instep.engines.native.extra import count_below
from instep.engines.native.session import Session, Settings
from instep.engines.native.stretch import Stretch
from instep.engines.native.tally import Tally
from instep.engines.native.tree import walk
from instep.linux.prctl import die_with_parent
from instep.paths import Scope
from instep.rules import Preserve, Rule
from instep.serving import Values, serve

WALK = 0
"""(WALK, [(path, content, fresh), …], entries_max, holds, mounts)"""
BRING = 1
"""(BRING, [(path, scope, content), …], entries_max, holds, mounts)"""
PRUNE = 2
"""(PRUNE, [(path, content, fresh), …], 0, False, mounts): these directories alone, and what the target did not have in
them."""
COUNT = 3
"""(COUNT, [path, …], most, False, ()): the names below these directories of the target, as ``present``."""


def settings_as_tuple(settings: Settings) -> Values:
    """Settings in plain values, for marshal."""
    preserve, rules, *rest = settings  # marshal takes no tuples that are named
    return (tuple(preserve), tuple(tuple(rule) for rule in rules), *rest)


def settings_of(values: Values) -> Settings:
    """The counterpart of ``settings_as_tuple``."""
    preserve, rules, *rest = values
    return Settings(Preserve(*preserve), tuple(Rule(*rule) for rule in rules), *rest)


def work(session: Session, job: Values) -> Tally:
    """Do one job."""
    kind, items, most, holds, session.mounted.mounts = job
    if kind == COUNT:
        return Tally(present=count_below(session, items, most))
    if kind != BRING:
        tally = Tally(holds=holds)
        levels = [(path, bool(content), fresh) for path, content, fresh in items]
        if kind == WALK:
            walk(session, levels, tally, entries_max=most)
        else:
            walk(session, levels, tally, entries_max=sys.maxsize, deep=False)
            tally.compared = tally.directories = 0  # They were counted before.
        return tally
    stretch = Stretch(session, holds=holds)
    for path, scope, content in items:
        stretch.bring(path, Scope(scope), content=content)
    tally = stretch.finish()
    levels, tally.levels = tally.levels, []
    walk(session, levels, tally, entries_max=most)
    return tally


def main() -> None:
    """Serve jobs until stdin ends, or the daemon does: amid a job a worker would go on writing beside the next one."""
    die_with_parent(signal.SIGKILL)
    stdin = select.poll()
    stdin.register(0, select.POLLIN)
    if any(events & select.POLLHUP for _, events in stdin.poll(0)):
        return  # It ended before it could be told to the kernel.
    source, target, *groups = map(int, sys.argv[1:])

    def prepare(greeting: Values) -> Callable[[Values], Values]:
        session = Session(source, target, settings_of(greeting), *groups)
        return lambda job: work(session, job).as_tuple()

    serve(prepare)
