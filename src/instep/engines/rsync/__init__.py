"""The rsync engine: any target rsync can reach, by exact path lists on its standard input."""

from instep.engines.rsync.engine import RsyncEngine, why_unavailable

__all__ = ["RsyncEngine", "why_unavailable"]
