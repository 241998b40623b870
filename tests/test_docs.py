"""What the documents point at is there: pages, modules, tests by their names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[1]
PAGES = sorted([*HERE.glob("*.md"), *HERE.glob("docs/**/*.md")])
SOURCES = [path for top in ("src", "tests", "benchmarks", "scripts", "examples") for path in (HERE / top).rglob("*.*")]
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
TEST = re.compile(r"`([\w/]*test_\w+\.py|…)::(\w+…?)`")
MODULE = re.compile(
    r"`((?:core|linux|monitors|index|engines|frontends|daemon|system|conformance)/[\w/]+\.(?:py|lua|c))"
)


def found(path: str) -> list[Path]:
    """The files that a name may mean: the last parts of their paths."""
    parts = Path(path).parts
    return [source for source in SOURCES if source.parts[-len(parts) :] == parts]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(HERE)))
def test_what_a_page_points_at_is_there(page: Path) -> None:
    text = page.read_text()
    missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    missing += [path for path in MODULE.findall(text) if not found(path)]
    path = ""
    for given, test in TEST.findall(text):
        path = path if given == "…" else given  # that: the same as before
        start = f"def {test.removesuffix('…')}" + ("" if test.endswith("…") else "(")
        if not any(start in file.read_text() for file in found(path)):
            missing.append(f"{path}::{test}")
    assert missing == []


def test_the_pages_name_something() -> None:
    """The patterns would be worth nothing otherwise."""
    text = "".join(page.read_text() for page in PAGES)
    assert min(len(LINK.findall(text)), len(TEST.findall(text)), len(MODULE.findall(text))) > 10
