"""Wiring: from a specification to a process that runs."""

from __future__ import annotations

import sys

if not sys.modules.keys() & {"asyncio", "ssl"}:
    # asyncio loads ssl where there is one, which takes a tenth of a start (measured), for connections we never make.
    sys.modules["ssl"] = None  # type: ignore[assignment]  # as on a Python that was built without it
    import asyncio  # noqa: F401

    del sys.modules["ssl"]  # Whoever wants it can have it.
