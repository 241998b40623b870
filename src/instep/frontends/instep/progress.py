"""A progress bar for the first comparison, drawn when told to and never by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from instep.frontends.instep.output import escaped
from instep.model import Progress

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

SETTLE_S = 2.0
"""No guess of the time left before this long has passed (guessed)."""


class ProgressBar:
    """Shows, for each target, how far the comparison is. ``tick`` draws; ``totals`` may be called by any thread."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._targets: Sequence[tuple[str, Progress]] = ()
        self._started_s = 0.0
        self._entries: int = 0
        self._live: Live | None = None

    def initial_sync_started(self, progresses: Sequence[tuple[str, Progress]]) -> None:
        """It begins; the progress objects grow from now on."""
        from rich.live import Live  # noqa: PLC0415  # rich costs more than all the rest: only for those who look

        self._targets = tuple((escaped(name), progress) for name, progress in progresses)
        self._started_s = self._clock()
        # Without redirection, and without a thread: the loop says when, and log lines go through the same console.
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start()

    def totals(self, entries: int, bytes_total: int) -> None:
        """How much there is in the source, as far as counted."""
        del bytes_total  # Most of it need not be copied, so it says nothing about the time left.
        self._entries = entries

    def tick(self) -> None:
        """Draw anew."""
        if self._live is not None:
            self._live.update(self._draw(), refresh=True)

    def initial_sync_done(self) -> None:
        """It is over: the bar goes away."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()

    def closed(self) -> None:
        """The mirror ends, whether or not it was done."""
        self.initial_sync_done()

    def _draw(self) -> Group:
        from rich.console import Group  # noqa: PLC0415  # as above
        from rich.progress_bar import ProgressBar as Bar  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        past_s = self._clock() - self._started_s
        table = Table.grid(padding=(0, 1))
        for name, progress in self._targets:
            known = max(self._entries, 1)
            table.add_row(
                Text(name, overflow="ellipsis", no_wrap=True, style="bold"),
                Bar(total=known, completed=min(progress.entries, known), width=24, pulse=not self._entries),
                Text(figures(progress, entries_total=self._entries, past_s=past_s), no_wrap=True),
            )
        return Group(table)


def figures(progress: Progress, *, entries_total: int, past_s: float) -> str:
    """Percentage, entries, files copied, bytes, rate and time left, as far as they can be told."""
    done = progress.entries
    parts = []
    if entries_total:
        parts.append(f"{min(100, done * 100 // entries_total)} %")
    parts.append(f"{done:,} of {max(done, entries_total):,} entries" if entries_total else f"{done:,} entries")
    parts.append(f"{progress.files:,} files copied")
    parts.append(in_units(progress.bytes_copied))
    if past_s > 0 and progress.bytes_copied:
        parts.append(f"{in_units(progress.bytes_copied / past_s)}/s")
    if entries_total and 0 < done < entries_total and past_s >= SETTLE_S:
        parts.append(f"{in_words((entries_total - done) * past_s / done)} left")
    return ", ".join(parts)


def in_units(count: float) -> str:
    """A number of bytes, to three digits."""
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if count < 1000:
            break
        count /= 1024
        unit = larger
    digits = 0 if unit == "B" or count >= 100 else 1 if count >= 10 else 2
    return f"{count:.{digits}f} {unit}"


def in_words(span_s: float) -> str:
    """A time span, to its two largest units."""
    minutes, seconds = divmod(round(span_s), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
