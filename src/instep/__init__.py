"""instep keeps directory trees in step, live."""

__version__ = "0.1.0"
