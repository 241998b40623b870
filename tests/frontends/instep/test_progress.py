"""The progress bar: drawn by tick alone, gone when done."""

from __future__ import annotations

import io
import logging
import threading

import pytest
from rich.console import Console

from instep.frontends.instep.output import TerminalHandler
from instep.frontends.instep.progress import ProgressBar, figures, in_units, in_words
from instep.logs import fields
from instep.model import Progress


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def screen() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def console(screen: io.StringIO) -> Console:
    return Console(
        file=screen, force_terminal=True, width=120, markup=False, highlight=False, emoji=False, color_system=None
    )


def test_it_draws_when_told_to(screen: io.StringIO, console: Console) -> None:
    clock = Clock()
    bar = ProgressBar(console, clock=clock)
    bar.tick()
    assert screen.getvalue() == ""
    progress = Progress()
    threads = threading.active_count()
    bar.initial_sync_started([("/target[bold]\x1b", progress)])
    assert threading.active_count() == threads
    before = screen.getvalue()
    progress.entries, progress.files, progress.bytes_copied = 250, 40, 5 << 20
    bar.totals(1000, 1 << 30)
    clock.now_s += 10
    assert screen.getvalue() == before
    bar.tick()
    drawn = screen.getvalue()[len(before) :]
    assert "/target[bold]\\x1b" in drawn
    assert "25 %, 250 of 1,000 entries, 40 files copied, 5.00 MiB, 512 KiB/s, 30 s left" in drawn
    bar.initial_sync_done()
    after = screen.getvalue()
    bar.tick()
    bar.closed()
    bar.closed()
    assert screen.getvalue() == after
    assert "\x1b[?25h" in after  # the cursor is given back


def test_log_lines_go_above_it(screen: io.StringIO, console: Console) -> None:
    bar = ProgressBar(console)
    bar.initial_sync_started([("/t", Progress())])
    bar.tick()
    made = logging.makeLogRecord({"msg": "event", "levelname": "INFO", **fields(path=b"[red]" + b"long" * 50 + b"\n")})
    TerminalHandler(console).emit(made)
    bar.closed()
    assert 'event path="[red]' + "long" * 50 + '\\n"' in screen.getvalue()


def test_without_a_total_nothing_is_guessed() -> None:
    assert figures(Progress(entries=7), entries_total=0, past_s=9) == "7 entries, 0 files copied, 0 B"


@pytest.mark.parametrize(("done", "total", "percent"), [(5, 4, "100 %"), (4, 4, "100 %"), (999, 1000, "99 %")])
def test_totals_may_lag(done: int, total: int, percent: str) -> None:
    assert figures(Progress(entries=done), entries_total=total, past_s=0).startswith(percent)


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.98 KiB"), (1024, "1.00 KiB"), (15 * 1024, "15.0 KiB"), (999 << 10, "999 KiB"),
     (5 << 20, "5.00 MiB"), (300 << 30, "300 GiB"), (5000 << 40, "5000 TiB")],
)  # fmt: skip
def test_units(count: int, shown: str) -> None:
    assert in_units(count) == shown


@pytest.mark.parametrize(
    ("span_s", "shown"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (61, "1 min 01 s"), (3720, "1 h 02 min")]
)
def test_words(span_s: float, shown: str) -> None:
    assert in_words(span_s) == shown
