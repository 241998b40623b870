"""What pip installs is what the lock says: exact versions, with the lock's hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())
LOCK = {package["name"]: package for package in tomllib.loads((TOP / "uv.lock").read_text())["package"]}


def pins(name: str) -> dict[str, tuple[str, set[str]]]:
    """Version and hashes by package."""
    text = (TOP / name).read_text().replace("\\\n", " ")
    found: dict[str, tuple[str, set[str]]] = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            match = re.match(r"([a-z0-9-]+)==(\S+)", line)
            assert match, f"not an exact version: {line}"
            found[match[1]] = (match[2], set(re.findall(r"--hash=(\S+)", line)))
    return found


def wanted(requirements: list[object]) -> set[str]:
    """Names without their ranges; groups that include others are followed."""
    names: set[str] = set()
    for requirement in requirements:
        if isinstance(requirement, dict):
            names |= wanted(PROJECT["dependency-groups"][requirement["include-group"]])
        else:
            name = re.match(r"[A-Za-z0-9_.-]+", str(requirement))
            assert name
            names.add(name[0].lower())
    return names


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "requirements-far.txt"])
def test_every_pin_is_the_locks(name: str) -> None:
    for package, (version, hashes) in pins(name).items():
        locked = LOCK[package]
        assert locked["version"] == version, package
        known = {file["hash"] for file in [locked.get("sdist", {}), *locked.get("wheels", [])] if "hash" in file}
        assert hashes == known, package


def test_everything_the_project_names_is_pinned() -> None:
    run = wanted(PROJECT["project"]["dependencies"]) | wanted(PROJECT["dependency-groups"]["build"])
    assert run <= pins("requirements.txt").keys()
    assert run | wanted(PROJECT["dependency-groups"]["dev"]) <= pins("requirements-dev.txt").keys()
    assert wanted(PROJECT["project"]["optional-dependencies"]["far"]) <= pins("requirements-far.txt").keys()


def test_everything_a_pinned_package_needs_is_pinned() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        pinned = pins(name)
        for package in pinned:
            for needed in LOCK[package].get("dependencies", []):
                if "marker" not in needed:
                    assert needed["name"] in pinned, f"{package} needs {needed['name']}"


def test_the_lock_is_of_this_project() -> None:
    metadata = LOCK["instep"]["metadata"]
    locked = {entry["name"] for entry in metadata["requires-dist"]}
    extras = PROJECT["project"]["optional-dependencies"]
    assert locked == wanted(PROJECT["project"]["dependencies"]).union(*(wanted(names) for names in extras.values()))
    groups = {group: {entry["name"] for entry in entries} for group, entries in metadata["requires-dev"].items()}
    assert groups == {group: wanted(entries) for group, entries in PROJECT["dependency-groups"].items()}
