"""Which files may be loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instep.engines.modules.check import check_module
from instep.errors import ModuleRefused


def refused(path: Path) -> tuple[str, int]:
    with pytest.raises(ModuleRefused) as caught:
        check_module(os.fsencode(path))
    return caught.value.code, caught.value.status


@pytest.mark.parametrize("mode", [0o644, 0o755, 0o600])
def test_a_file_that_only_its_owner_can_write(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "m.so"
    file.touch()
    file.chmod(mode)
    check_module(os.fsencode(file))


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o4755, 0o2755, 0o1755])
def test_one_that_others_can_write_or_with_special_bits(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "m.so"
    file.touch()
    file.chmod(mode)
    assert refused(file) == ("module-unsafe", 1)


def test_one_that_is_missing_or_no_file(tmp_path: Path) -> None:
    assert refused(tmp_path / "missing") == ("no-such-module", 2)
    assert refused(tmp_path) == ("module-unsafe", 1)


@pytest.mark.root
def test_one_of_another_user(tmp_path: Path) -> None:
    file = tmp_path / "m.so"
    file.touch(0o644)
    os.chown(file, 12345, 0)
    assert refused(file) == ("module-unsafe", 1)
