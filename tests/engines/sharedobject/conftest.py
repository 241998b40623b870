"""What the tests of modules share."""

from __future__ import annotations

from tests.engines.modules.fixtures import kept_hosts, own_cache

__all__ = ["kept_hosts", "own_cache"]
