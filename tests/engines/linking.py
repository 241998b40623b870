"""What the tests of hard links share."""

from __future__ import annotations

from instep.engines.hardlinks import Links


def searched_until(links: Links, until_s: float) -> None:
    """As if there had been a search, and the pause after it lasted until then; nobody is to come again for what is lost."""
    links._pause._until_s = until_s
    links._put_off_s = 0.0
