"""What a visitor runs first (``make demo``): a small tree, changed live, and each change seen to arrive."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from benchmarks.measure import NEVER, differences, holds, wait_until
from benchmarks.peers import INSTEP, DidNotStart, Mirror
from benchmarks.trees import plant

_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Step:
    """One change to the source, and how to see it at the target."""

    title: str
    change: Callable[[], object]
    arrived: Callable[[], bool]


def main() -> int:
    """Exit status 0 when every change arrived and both trees are equal at the end."""
    console = Console()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="instep-demo-", dir=memory) as scratch:
        source, target = f"{scratch}/source", f"{scratch}/target"
        plant(f"{source}/pages", directories=50, files=1000)
        os.mkdir(target)
        _write(f"{source}/readme", b"first\n")
        console.print(f"[bold]instep mirror {source} {target}[/]", highlight=False, soft_wrap=True)
        try:
            with Mirror(INSTEP, source, target) as mirror:
                followed_s = wait_until(lambda: not differences(source, target, most=1), _LIMIT_S)
                console.print(
                    f"1,001 files, equal {followed_s - mirror.started_s:.2f} s after its start. Now live:\n",
                    highlight=False,
                )
                wrong = _play(source, target, console)
        except DidNotStart as error:
            console.print(f"[red]{error}[/]", highlight=False)
            return 1
    if wrong:
        console.print(f"\n[red]Not in step: {', '.join(wrong)}[/]", highlight=False)
        return 1
    console.print(
        "\nBoth trees are equal, and instep has ended.\nNext: README.md, [bold]make test[/], [bold]make bench[/]."
    )
    return 0


def _play(source: str, target: str, console: Console) -> list[str]:
    """Make each change, and wait for it; what did not arrive."""
    table = Table("change", "arrived after", "", box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.no_wrap = True
    table.columns[1].justify = "right"
    wrong: list[str] = []
    for step in _steps(source, target):
        begin_s = time.monotonic()
        step.change()
        changed_s = time.monotonic()
        arrived_s = wait_until(step.arrived, _LIMIT_S, 0.0001)
        if arrived_s == NEVER:
            wrong.append(step.title)
        making_s = changed_s - begin_s
        making = f"[dim](making it: {1e3 * making_s:.0f} ms)[/]" if making_s > 0.005 else ""
        after = "[red]never[/]" if arrived_s == NEVER else f"[green]{1e3 * (arrived_s - begin_s):.2f} ms[/]"
        table.add_row(step.title, after, making)
    console.print(table)
    return wrong or differences(source, target)


def _steps(source: str, target: str) -> Iterator[Step]:
    def there(name: str, content: bytes) -> Callable[[], bool]:
        return lambda: holds(f"{target}/{name}", content)

    note, readme = b"a new file\n", b"second\n"
    yield Step("a file is created", lambda: _write(f"{source}/note", note), there("note", note))
    yield Step("a file is rewritten", lambda: _write(f"{source}/readme", readme), there("readme", readme))
    other = readme.upper()
    yield Step("… again, same size, same second", lambda: _write(f"{source}/readme", other), there("readme", other))
    yield Step(
        "its mode is changed", lambda: os.chmod(f"{source}/readme", 0o600), lambda: _mode(f"{target}/readme") == 0o600
    )
    link = f"{target}/link"
    yield Step("a link is made", lambda: os.symlink("readme", f"{source}/link"), lambda: os.path.islink(link))
    yield Step(
        "a directory of 1,000 files is renamed",
        lambda: os.rename(f"{source}/pages", f"{source}/archive"),
        lambda: os.path.exists(f"{target}/archive/d00049/f00019") and not os.path.exists(f"{target}/pages"),
    )
    yield Step(
        "5,000 files are created",
        lambda: plant(f"{source}/more", directories=100, files=5000),
        lambda: not differences(f"{source}/more", f"{target}/more", content=False, most=1),
    )
    yield Step(
        "all of these are removed",
        lambda: shutil.rmtree(f"{source}/more"),
        lambda: not os.path.exists(f"{target}/more"),
    )


def _write(path: str, content: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(content)


def _mode(path: str) -> int:
    with contextlib.suppress(OSError):
        return os.stat(path).st_mode & 0o7777
    return -1


if __name__ == "__main__":
    sys.exit(main())
