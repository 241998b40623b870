"""The examination itself, on this machine's file systems."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from instep.engines.probe import far

ROOT = os.geteuid() == 0


@pytest.fixture
def mounted(tmp_path: Path) -> object:
    if not ROOT:
        pytest.skip("mounting needs root")
    places: list[Path] = []

    def mount(*arguments: str, device: str = "none") -> Path:
        place = tmp_path / f"mount{len(places)}"
        place.mkdir()
        if subprocess.run(["mount", *arguments, device, place], check=False, capture_output=True).returncode:
            pytest.skip(f"cannot mount {arguments}")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_directory_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("x")
    facts = far.examine(str(tmp_path))
    assert facts["directory"] == "there"
    assert facts["writable"] == ""
    assert tuple(facts["abilities"]) == far.ABILITIES
    assert os.listdir(tmp_path) == ["kept"]
    assert facts["free_bytes"] <= facts["size_bytes"]
    for each in ("renames", "times", "case", "hard links", "symbolic links", "long names"):
        assert facts["abilities"][each] == "", each
    assert (facts["abilities"]["owners"] == "") is ROOT


def test_places_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("nowhere")
    wanted = {
        "new": "missing",
        "no/where": "nowhere",
        "file": "no directory",
        "file/x": "no directory",
        "link": "dangling",
    }
    found = {name: far.examine(str(tmp_path / name))["directory"] for name in wanted}
    assert found == wanted
    assert sorted(os.listdir(tmp_path)) == ["file", "link"]


def test_a_read_only_file_system(mounted: Callable[..., Path]) -> None:
    facts = far.examine(str(mounted("-t", "tmpfs", "-o", "ro")))
    assert facts["read_only"]
    assert "Read-only" in facts["writable"]
    assert facts["file_system"] == "tmpfs"


def test_a_full_file_system(mounted: Callable[..., Path]) -> None:
    place = mounted("-t", "tmpfs", "-o", "size=64k,nr_inodes=3")
    (place / "one").touch()
    (place / "two").touch()
    assert "No space" in far.examine(str(place))["writable"]


def test_a_file_system_that_keeps_whole_seconds(mounted: Callable[..., Path], tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(2 << 20)
    program = shutil.which("mkfs.ext2", path="/sbin:/usr/sbin")
    # Inodes of 128 bytes have no room for nanoseconds, nor for times after 2038.
    if (
        program is None
        or subprocess.run([program, "-q", "-I", "128", image], check=False, capture_output=True).returncode
    ):
        pytest.skip("needs mkfs.ext2")
    place = mounted("-o", "loop", device=str(image))
    facts = far.examine(str(place))
    assert facts["abilities"]["times"] == "times are kept in seconds"
    assert facts["abilities"]["late times"]
    assert facts["file_system"].startswith("ext")
    assert os.listdir(place) == ["lost+found"]


def test_an_ordinary_user_keeps_less() -> None:
    python = "/usr/bin/python3"
    if not ROOT or not os.path.exists(python):
        pytest.skip("needs root to become somebody else, and a python3 that everybody may run")
    with tempfile.TemporaryDirectory(prefix="instep-test-", dir="/dev/shm") as place:
        os.chown(place, 65534, 65534)
        source = Path(far.__file__).read_text() + f"\nprint(json.dumps(examine({place!r})['abilities']))"
        argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python, "-I", "-S", "-"]
        done = subprocess.run(argv, input=source, capture_output=True, text=True, check=True)
        assert os.listdir(place) == []
    abilities = json.loads(done.stdout)
    lost = {name for name, words in abilities.items() if words}
    assert {"owners", "groups", "devices", "trusted xattrs"} <= lost
    assert not lost & {"renames", "modes", "times", "hard links", "case"}


def test_it_runs_on_old_pythons_and_alone() -> None:
    source = Path(far.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 6))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names} | {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }
    assert imported <= set(sys.stdlib_module_names)
    assert not any(isinstance(node, ast.NamedExpr) for node in ast.walk(tree))
