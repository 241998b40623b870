"""Modules built for clsync, in C: loaded by a small program that gives them what they expect of clsync."""
