"""The engine over a real ssh to a real sshd."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.errors import TargetAway, TargetError
from tests.engines.remote.rig import Rig, write
from tests.system.sshd import Sshd, serving, why_unavailable

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=why_unavailable() or "")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with serving(tmp_path / "sshd") as server:
        yield server


def rig_over(server: Sshd, base: Path, target: str) -> Rig:
    return Rig(
        os.fsencode(base),
        command=None,
        target=target.encode(),
        ssh_words=list(map(os.fsencode, shlex.split(server.ssh))),
    )


@pytest.mark.parametrize("form", ["there:{}", "ssh://there:{port}{}"])
def test_a_tree_is_brought_over(server: Sshd, tmp_path: Path, form: str) -> None:
    with rig_over(server, tmp_path, form.format(tmp_path / "dst", port=server.port)) as rig:
        os.mkdir(rig.s(b"d"))
        for i in range(300):
            write(rig.s(b"d/f%d" % i), b"%d" % i)
        write(rig.s(b"large"), os.urandom(9_000_000))
        rig.clean(rig.tree())
        write(rig.s(b"d/f1"), b"changed")
        rig.clean(rig.bring(b"d/f1"))


def test_noise_of_a_login_shell_is_passed_over(server: Sshd, tmp_path: Path) -> None:
    server.force('echo Welcome to this machine; eval "$SSH_ORIGINAL_COMMAND"')
    with rig_over(server, tmp_path, f"there:{tmp_path}/dst") as rig:
        write(rig.s(b"a"), b"a")
        rig.clean(rig.tree())


def test_a_refused_key_is_fatal_with_ssh_s_own_words(server: Sshd, tmp_path: Path) -> None:
    server.refuse()
    with pytest.raises(TargetError, match="Permission denied"), rig_over(server, tmp_path, f"there:{tmp_path}/dst"):
        pass


def test_a_host_that_is_down_is_away(server: Sshd, tmp_path: Path) -> None:
    server.stop()
    with pytest.raises(TargetAway, match="refused"), rig_over(server, tmp_path, f"there:{tmp_path}/dst"):
        pass
