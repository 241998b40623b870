"""What holds for every test."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# What must be green tries the same cases each time; long runs look for new ones. Neither judges how fast the machine is.
settings.register_profile("door", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("search" if os.environ.get("INSTEP_SIZES") == "full" else "door")


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """A front end that runs within the test's process leaves neither its level nor its handlers to the next test."""
    logger = logging.getLogger("instep")
    level, propagate, handlers = logger.level, logger.propagate, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.propagate = propagate
    logger.handlers[:] = handlers


@pytest.fixture(autouse=True)
def own_child_watcher() -> Iterator[None]:
    """The daemon lets Python 3.11 wait for children in its own loop; a test with two loops must not inherit that."""
    yield
    if sys.version_info < (3, 12):
        asyncio.set_child_watcher(asyncio.ThreadedChildWatcher())
