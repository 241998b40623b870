"""The engine over ssh to a real sshd, with a real rsync daemon."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.errors import TargetAway
from instep.model import Outcome
from tests.engines.rsync.places import Place, assert_done, batch, entry, names, run, tree
from tests.system import rsyncd
from tests.system.rsyncd import RsyncDaemon
from tests.system.sshd import Sshd, serving, why_unavailable

PASSWORD = "swordfish"


@pytest.fixture
def daemon(place: Place) -> Iterator[RsyncDaemon]:
    place.target.mkdir()
    root = "uid = 0\ngid = 0\n" if os.geteuid() == 0 else ""
    secrets = place.base / "rsyncd.secrets"
    secrets.write_text(f"somebody:{PASSWORD}\n")
    secrets.chmod(0o600)
    modules = (
        f"[mod]\npath = {place.target}\nread only = no\nuse chroot = {'yes' if root else 'no'}\nmunge symlinks = no\n{root}"
        f"[closed]\npath = {place.target}\nread only = no\nuse chroot = no\nauth users = somebody\n"
        f"secrets file = {secrets}\n{root}"
        f"[nodelete]\npath = {place.target}\nread only = no\nuse chroot = no\nrefuse options = delete\n{root}"
    )
    with rsyncd.serving(place.base / "rsyncd", place.target, more=modules) as server:
        yield server


def test_a_daemon_is_brought_in_step(place: Place, daemon: RsyncDaemon) -> None:
    for i in range(3):
        (place.source / f"d{i}").mkdir()
        (place.source / f"d{i}/f").write_text(str(i))
    engine = place.engine(target=b"rsync://127.0.0.1:%d/mod" % daemon.port)
    assert_done(place.sync(engine, tree()))
    place.assert_equal()
    shutil.rmtree(place.source / "d0")
    (place.source / "d1/f").write_text("9")
    (place.source / "d2/new").write_text("n")
    outcome = place.sync(engine, entry(b"d0/f"), entry(b"d1/f"), names(b"d2"))
    assert_done(outcome)
    assert outcome.files == 2
    place.assert_equal()


def test_a_daemon_that_is_down_is_away_and_works_again(place: Place, daemon: RsyncDaemon) -> None:
    (place.source / "f").write_text("x")
    engine = place.engine(target=b"rsync://127.0.0.1:%d/mod" % daemon.port)
    run(engine.open())
    daemon.stop()
    outcome = run(engine.sync(batch(entry(b"f"))))
    assert outcome.away is not None
    assert "refused" in outcome.away
    with pytest.raises(TargetAway, match="cannot connect"):
        run(engine.open())
    daemon.start()
    assert_done(place.sync(engine, entry(b"f")))
    place.assert_equal()


def test_an_unknown_module_is_away_with_clear_words(place: Place, daemon: RsyncDaemon) -> None:
    with pytest.raises(TargetAway, match=r"does not serve this module.*nosuch"):
        run(place.engine(target=b"rsync://127.0.0.1:%d/nosuch" % daemon.port).open())


def test_a_module_without_deletion_works_where_none_is_asked_for(place: Place, daemon: RsyncDaemon) -> None:
    from instep.errors import TargetError

    (place.source / "f").write_text("x")
    address = b"rsync://127.0.0.1:%d/nodelete" % daemon.port
    with pytest.raises(TargetError, match="delete"):
        run(place.engine(target=address).open())
    assert_done(place.sync(place.engine(target=address, delete=False), entry(b"f"), tree()))
    place.assert_equal()


def test_a_daemon_that_wants_a_password(place: Place, daemon: RsyncDaemon) -> None:
    (place.source / "f").write_text("x")
    address = b"rsync://somebody@127.0.0.1:%d/closed" % daemon.port
    right, wrong = place.base / "right", place.base / "wrong"
    for path, text in ((right, f"{PASSWORD}\n"), (wrong, "something else\n")):
        path.write_text(text)
        path.chmod(0o600)
    for password_file in (b"", os.fsencode(wrong)):
        with pytest.raises(TargetAway, match=r"auth failed|password"):
            run(place.engine(target=address, password_file=password_file).open())
    engine = place.engine(target=address, password_file=os.fsencode(right))
    assert_done(place.sync(engine, entry(b"f")))
    place.assert_equal()


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    if (missing := why_unavailable()) is not None:
        pytest.skip(missing)
    monkeypatch.delenv("RSYNC_RSH", raising=False)
    with serving(tmp_path / "sshd") as server:
        # The engine runs plain ``ssh``; this one reads the server's configuration instead of the user's.
        monkeypatch.setenv("PATH", f"{server.programs}:{os.environ['PATH']}")
        yield server


def test_ssh_is_brought_in_step_over_one_connection(place: Place, sshd: Sshd) -> None:
    (place.source / "d").mkdir()
    for i in range(12):
        (place.source / f"d/{i}").write_text(str(i))
    engine = place.engine(target=b"there:" + os.fsencode(place.target))

    async def work() -> list[Outcome]:
        await engine.open()
        outcomes = [await engine.sync(batch(tree()))]
        place.assert_equal()
        (place.source / "d/0").unlink()
        (place.source / "d/1").write_text("new")
        outcomes += await asyncio.gather(*(engine.sync(batch(entry(b"d/%d" % i))) for i in range(4)))
        assert engine._master is not None
        socket_directory = engine._master._directory
        assert socket_directory is not None
        assert os.stat(socket_directory).st_mode & 0o7777 == 0o700
        assert b"s" in os.listdir(socket_directory)
        await engine.close()
        with pytest.raises(FileNotFoundError):
            os.listdir(socket_directory)
        return outcomes

    for outcome in run(work()):
        assert_done(outcome)
    place.assert_equal()
    assert sshd.logins() == 1


def test_an_odd_remote_path_is_not_read_by_a_shell(place: Place, sshd: Sshd) -> None:
    place.target = place.base / "t $(touch pwned) '*"
    (place.source / "f").write_text("x")
    assert_done(place.sync(place.engine(target=b"there:" + os.fsencode(place.target)), entry(b"f")))
    place.assert_equal()


def test_ssh_that_is_down_is_away_and_works_again(place: Place, sshd: Sshd) -> None:
    (place.source / "f").write_text("x")
    engine = place.engine(target=b"there:" + os.fsencode(place.target))
    sshd.stop()
    with pytest.raises(TargetAway, match="refused"):
        run(engine.open())
    sshd.start()
    assert_done(place.sync(engine, entry(b"f")))
    place.assert_equal()


def test_no_rsync_over_there_is_away(place: Place, sshd: Sshd) -> None:
    engine = place.engine(target=b"there:" + os.fsencode(place.target), extra_args=[b"--rsync-path=/no/such"])
    with pytest.raises(TargetAway):
        place.sync(engine)


def test_a_missing_directory_over_there_is_away(place: Place, sshd: Sshd) -> None:
    (place.source / "f").write_text("x")
    outcome = place.sync(place.engine(target=b"there:" + os.fsencode(place.base) + b"/no/where"), entry(b"f"))
    assert outcome.away is not None
    assert "No such file" in outcome.away
