"""How every module logs: a constant event name, and fields.

``log.warning("watch-limit-reached", extra=fields(path=..., now=..., fix=...))``. The message is the event's stable
name; what a person reads is made from it by the front end's formatter: text or JSON is a matter of configuration.
"""

from __future__ import annotations


def fields(**values: object) -> dict[str, dict[str, object]]:
    """The ``extra`` argument of a logging call; values may be bytes (paths): the formatter escapes them."""
    return {"fields": values}
