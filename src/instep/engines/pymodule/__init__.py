"""Modules in Python."""
