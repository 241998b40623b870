"""Modules with functions that act on changes, run in processes of their own: a crash in one is a failed call."""
