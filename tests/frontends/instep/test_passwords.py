"""The password file: what is refused before the start."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instep.errors import UsageError
from instep.frontends.instep.passwords import password_file
from instep.spec import MirrorSpec, TargetSpec

SECRET = "swordfish"


def spec(path: Path, target: bytes = b"host::module") -> MirrorSpec:
    return MirrorSpec(b"/s", (TargetSpec(target),), password_file=os.fsencode(path))


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("target", [b"host::module", b"rsync://host/module", b"u@[::1]::module/x"])
def test_a_safe_file_is_taken_for_a_daemon(secret: Path, target: bytes) -> None:
    password_file(spec(secret, target))


@pytest.mark.parametrize("target", [b"/local", b"host:/path", b"ssh://host/a::b", b"host:a::b", b"u@[::1]:/x"])
def test_no_daemon_needs_it(secret: Path, target: bytes) -> None:
    with pytest.raises(UsageError, match="without an rsync daemon") as caught:
        password_file(spec(secret, target))
    assert caught.value.code == "options-clash"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o610])
def test_a_file_that_others_may_read_is_refused(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    with pytest.raises(UsageError, match="others may read") as caught:
        password_file(spec(secret))
    assert caught.value.code == "unsafe-password-file"
    assert SECRET not in str(caught.value)


@pytest.mark.root
def test_a_file_of_another_user_is_refused(secret: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    os.chown(secret, 65534, 65534)
    with pytest.raises(UsageError, match="belongs to another user"):
        password_file(spec(secret))


@pytest.mark.parametrize("content", ["", "\n", "  \n"])
def test_an_empty_file_is_refused(secret: Path, content: str) -> None:
    secret.write_text(content)
    with pytest.raises(UsageError, match="holds no password"):
        password_file(spec(secret))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, words in (("fifo", "holds no password"), ("none", "No such file"), (".", "cannot read|no password")):
        with pytest.raises(UsageError, match=words):
            password_file(spec(tmp_path / name))
