"""``instep check`` as a person runs it, over a real sshd and a real rsync daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system import rsyncd
from tests.system.sshd import Sshd

Answer = dict[str, object]


def check(*arguments: str | Path, program: tuple[str, ...] = ()) -> tuple[int, list[Answer]]:
    argv = [*program, sys.executable, "-m", "instep", "check", "--format=json", *map(str, arguments)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=110)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def over_ssh(sshd: Sshd, target: str, *arguments: str) -> tuple[int, Answer, dict[str, Answer]]:
    status, (answer,) = check("--ssh", sshd.ssh, *arguments, target)
    assert sshd.said().count("Accepted publickey") <= 6, "a few logins are enough"
    findings = answer["findings"]
    assert isinstance(findings, list)
    return status, answer, {finding["name"]: finding for finding in findings}


def test_a_good_target(sshd: Sshd, tmp_path: Path) -> None:
    target = tmp_path / "target"
    status, answer, found = over_ssh(sshd, f"there:{target}")
    assert status == (1 if answer["not_kept"] else 0)
    assert answer["usable"] is True
    assert answer["engine"]
    assert found["connection"]["verdict"] == "ok"
    assert found["clock"]["value"] == "agrees with ours"
    assert found["python3"]["value"] == ".".join(map(str, sys.version_info[:3]))
    assert found["directory"]["value"] == "is not there yet"
    assert not target.exists(), "it only looks"
    assert os.listdir(sshd.base / "home") == []


def test_a_login_that_prints(sshd: Sshd, tmp_path: Path) -> None:
    (sshd.base / "home/.bashrc").write_text("echo welcome; echo instep-check\n")
    status, answer, _ = over_ssh(sshd, f"ssh://there:{sshd.port}{tmp_path}", "--engine=rsync")
    if sshd.run("true").stdout:
        # rsync itself cannot work through such a login, and says so.
        assert (status, answer["usable"]) == (2, False)
    else:
        assert answer["usable"] is True


def test_no_python_there(sshd: Sshd, tmp_path: Path) -> None:
    sshd.offer_only("rsync", "sh", "id", "mkdir", "rm", "ln", "chown")
    (tmp_path / "kept").write_text("x")
    before = sorted(os.listdir(tmp_path))
    status, answer, found = over_ssh(sshd, f"there:{tmp_path}")
    assert status in (0, 1)
    assert answer["engine"] == "rsync"
    assert found["python3"]["verdict"] == "note"
    assert "rsync" in str(found["rsync"]["value"])
    assert found["directory"]["value"] == "is there"
    assert found["writing"]["verdict"] == "ok"
    assert sorted(os.listdir(tmp_path)) == before


def test_neither_python_nor_rsync_there(sshd: Sshd, tmp_path: Path) -> None:
    sshd.offer_only("sh", "id", "mkdir", "rm")
    status, answer, found = over_ssh(sshd, f"there:{tmp_path}")
    assert (status, answer["usable"], answer["engine"]) == (2, False, None)
    assert found["rsync"]["value"] == "not found"
    assert "rsync" in str(found["engine"]["value"])


def test_a_key_that_runs_one_command(sshd: Sshd, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    # What rrsync(1) does, in few words: nothing but rsync's own server in one directory.
    sshd.force(f'case "$SSH_ORIGINAL_COMMAND" in "rsync --server"*) cd {target} && exec $SSH_ORIGINAL_COMMAND;; esac; '
               "echo only rsync here >&2; exit 1")  # fmt: skip
    status, answer, found = over_ssh(sshd, f"there:{target}", "--engine=rsync")
    assert (status, answer["engine"]) == (0, "rsync")
    assert "only rsync here" in str(found["session"]["value"])


def test_a_host_key_that_changed_and_a_key_that_is_refused(sshd: Sshd) -> None:
    sshd.change_host_key()
    sshd.stop()
    sshd.start()
    status, _, found = over_ssh(sshd, "there:/tmp")
    assert status == 2
    assert "Host key verification failed" in str(found["connection"]["value"])
    sshd.trust()
    sshd.refuse()
    status, _, found = over_ssh(sshd, "there:/tmp")
    assert status == 2
    assert "Permission denied (publickey)" in str(found["connection"]["value"])
    assert "BatchMode" in str(found["connection"]["note"])
    sshd.stop()
    status, (answer,) = check("--ssh", sshd.ssh, "there:/tmp")
    assert status == 2
    assert "Connection refused" in json.dumps(answer)


def test_directories_that_cannot_work(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path, words in ((tmp_path / "no/where", "nor is the one"), (tmp_path / "file", "not a directory")):
        status, _, found = over_ssh(sshd, f"there:{path}")
        assert status == 2
        assert words in str(found["directory"]["value"])


def test_names_from_the_far_side_cannot_act_on_the_terminal(sshd: Sshd, tmp_path: Path) -> None:
    sshd.force("printf 'instep-check 1\\n'; read -r a; "
               "printf '0\\n0\\n0\\n0\\n0\\n'; printf '{\"user\": \"\\\\u001b[31mred\", \"writable\": \"\"}\\n'")  # fmt: skip
    argv = [sys.executable, "-m", "instep", "check", "--ssh", sshd.ssh, f"there:{tmp_path}"]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=110)
    assert "\\x1b[31mred" in done.stdout
    assert "\x1b" not in done.stdout


@pytest.mark.root
def test_an_ordinary_user_over_there_loses_owners(sshd: Sshd, shm: Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs root to become somebody else")
    os.chown(shm, 65534, 65534)
    sshd.force(
        'PATH=/usr/bin:/bin exec setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "$SSH_ORIGINAL_COMMAND"'
    )
    if "python" not in sshd.run("python3 -c 'print(\"python\")'").stdout:
        pytest.skip("needs a python3 that everybody may run")
    status, answer, found = over_ssh(sshd, f"there:{shm}")
    assert status == 1
    lost = answer["not_kept"]
    assert isinstance(lost, list)
    assert {"owners", "devices"} <= set(lost)
    assert "files belong to nobody" in str(found["owners"]["note"])
    status, answer, _ = over_ssh(sshd, f"there:{shm}", "--no-owner", "--no-devices", "--no-xattrs", "--no-acls")
    assert (status, answer["not_kept"]) == (0, [])


def test_local_targets_side_by_side(shm: Path, tmp_path: Path) -> None:
    status, answers = check(shm, tmp_path / "no/where")
    assert status == 2
    assert [answer["usable"] for answer in answers] == [True, False]
    assert answers[0]["engine"] == "native"
    assert os.listdir(shm) == []


def test_an_rsync_daemon(shm: Path, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("swordfish\n")
    password.chmod(0o600)
    with rsyncd.serving(tmp_path / "rsyncd", shm, password="swordfish") as server:
        good, bad = (f"rsync://somebody@127.0.0.1:{server.port}/{name}" for name in ("module", "nosuch"))
        status, answers = check("--password-file", password, good, bad)
        assert status == 2
        assert [answer["usable"] for answer in answers] == [True, False]
        assert (answers[0]["engine"], answers[0]["why"]) == ("rsync", "an rsync daemon")
        assert "nosuch" in json.dumps(answers[1]["findings"])
        status, (answer,) = check(good)
        assert status == 2
        assert "password" in json.dumps(answer["findings"]) or "auth" in json.dumps(answer["findings"])
        assert "swordfish" not in json.dumps(answers)
    assert os.listdir(shm) == []


def test_help_and_refusals() -> None:
    assert check("host:/x", "host:/x")[0] == 2
    assert check()[0] == 2
    argv = [sys.executable, "-m", "instep", "check", "--help"]
    text = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "--format" in text
    assert "--ssh" in text
