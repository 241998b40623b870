"""A test of the test: monitors with a known mistake are found by the random rounds."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from instep.model import Report
from instep.monitors.fanotify import FanotifyMonitor, why_unavailable
from instep.monitors.places import Places
from instep.paths import Scope
from tests.conformance.monitor_model import rounds


class Shallow(FanotifyMonitor):
    """Mutant: a renamed directory is reported as a name, without what is below it."""

    def _take_rename(self, mask: int, keys: dict[int, bytes], names: dict[int, bytes], reports: list[Report]) -> None:
        found: list[Report] = []
        super()._take_rename(mask, keys, names, found)
        reports += [report._replace(scope=Scope.ENTRY, moved_from=None) for report in found]


class Replaying(FanotifyMonitor):
    """Mutant: renames are replayed on the places that are known. The kernel merges events, so that ends elsewhere."""

    def _take_rename(self, mask: int, keys: dict[int, bytes], names: dict[int, bytes], reports: list[Report]) -> None:
        found: list[Report] = []
        super()._take_rename(mask, keys, names, found)
        reports += found
        cache = self._places.cache
        for report in found:
            if not report.is_dir:
                continue
            old = (report.path if report.moved_from is None else report.moved_from) + b"/"
            new = b"" if report.moved_from is None else report.path + b"/"
            for key, place in list(cache.items()):
                if place is False or (place.startswith(old) and not new):
                    del cache[key]
                elif place.startswith(old):
                    cache[key] = new + place[len(old) :]


def keep(*_: object) -> None:
    """Mutant: the places of directories stay known after one of them was renamed."""


@pytest.mark.root
@pytest.mark.parametrize("mutant", ["shallow", "cache kept", "replayed renames"])
def test_the_property_test_finds_mutants(tmp_path: Path, mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = os.fsencode(tmp_path)
    if (reason := why_unavailable(root)) is not None:
        pytest.skip(reason)
    make: type[FanotifyMonitor] = FanotifyMonitor
    if mutant == "shallow":
        make = Shallow
    else:
        monkeypatch.setattr(Places, "forget_unless_outside", keep)
        if mutant == "replayed renames":
            make = Replaying
    logging.disable(logging.CRITICAL)
    try:
        for seed in range(0, 300, 3):
            if rounds(make, root, range(seed, seed + 3)):
                return
    finally:
        logging.disable(logging.NOTSET)
    pytest.fail("300 rounds did not find it")
