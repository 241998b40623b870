"""The worker process of the index: reads the source, with the stores at hand."""

from __future__ import annotations

import sys
from collections.abc import Callable

from instep.core.filters import Filter
from instep.index.scan import Scanner
from instep.index.store import BrokenIndex, Store
from instep.rules import Rule
from instep.serving import Values, serve

COMPARE = 0
"""(COMPARE, (number of the comparison, path of a store, …), [directory, …], entries_max) -> Findings, or (reason,)"""
SURVEY = 1
"""(SURVEY, (directory to be left apart, …), [(directory, began), …], entries_max) -> Survey"""


def greeting(rules: tuple[Rule, ...], *, one_file_system: bool, margin_ns: int) -> Values:
    """What a worker is told first; see ``Scanner``."""
    return (tuple(tuple(rule) for rule in rules), one_file_system, margin_ns)


class _Work:
    """The open stores are kept from job to job: one comparison is many jobs."""

    def __init__(self, source: int, told: Values) -> None:
        rules, one_file_system, margin_ns = told
        filters = Filter([Rule(*rule) for rule in rules])
        self._scanner = Scanner(source, filters, one_file_system=one_file_system, margin_ns=margin_ns)
        self._comparison: Values = ()
        self._stores: list[Store] = []

    def __call__(self, job: Values) -> Values:
        kind, what, levels, entries_max = job
        if kind == SURVEY:
            survey = self._scanner.survey(levels, entries_max=entries_max, apart=frozenset(what))
            return (survey.directories, survey.entries, survey.levels)
        try:
            self._open(what)
            found = self._scanner.compare(self._stores, levels, entries_max=entries_max)
        except BrokenIndex as error:
            return (str(error),)
        return (found.reports, found.gone, found.gone_entries, found.entries, found.levels)

    def _open(self, comparison: Values) -> None:
        if comparison == self._comparison:
            return
        for store in self._stores:
            store.close()
        self._comparison, self._stores = (), []
        for path in comparison[1:]:
            self._stores.append(Store(path, read_only=True))
        self._comparison = comparison


def main() -> None:
    """Serve jobs until stdin ends."""
    source = int(sys.argv[1])

    def prepare(told: Values) -> Callable[[Values], Values]:
        return _Work(source, told)

    serve(prepare)
