"""What has to be there, and safe, before a start."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from instep.frontends.clsync import diskchecks
from instep.frontends.clsync.settings import Mode, Settings, Start

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files to another user")


def settings(directory: Path, **changes: object) -> Settings:
    handler = directory / "handler"
    handler.touch()
    handler.chmod(0o755)
    plain = Settings(
        watch_dir=bytes(directory), mode=Mode.SHELL, sync_handler=bytes(handler), arguments=(), initial_arguments=None,
        default_arguments=True, start=Start(path=bytes(directory / "bin")),
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]  # fields


def statuses(what: Settings, *, writer: int = 0) -> list[int]:
    return [complaint.status for complaint in diskchecks.complaints(what, writer=writer)]


def made(path: Path, mode: int) -> bytes:
    path.parent.mkdir(exist_ok=True)
    path.touch()
    path.chmod(mode)
    return bytes(path)


def test_what_is_in_order_is_taken(tmp_path: Path) -> None:
    hook = made(tmp_path / "hook", 0o700)
    usual = settings(tmp_path, exit_hook=hook, pre_exit_hook=hook, lists_dir=bytes(tmp_path / "missing"))
    assert statuses(usual) == []
    assert diskchecks.notes(usual) == []


def test_an_exit_hook_has_to_be_a_program(tmp_path: Path) -> None:
    assert statuses(settings(tmp_path, exit_hook=bytes(tmp_path / "missing"))) == [2]
    assert statuses(settings(tmp_path, exit_hook=made(tmp_path / "hook", 0o644))) == [13]
    assert statuses(settings(tmp_path, exit_hook=bytes(tmp_path))) == [13]


def test_a_pre_exit_hook_may_still_come(tmp_path: Path) -> None:
    early = settings(tmp_path, pre_exit_hook=bytes(tmp_path / "missing"))
    assert statuses(early) == []
    assert "--pre-exit-hook" in diskchecks.notes(early)[0].text


def test_a_handler_has_to_be_a_program(tmp_path: Path) -> None:
    assert statuses(settings(tmp_path, sync_handler=bytes(tmp_path / "missing"))) == [2]
    assert statuses(settings(tmp_path, sync_handler=made(tmp_path / "plain", 0o644))) == [13]
    assert statuses(settings(tmp_path, sync_handler=b"tool")) == [2]
    made(tmp_path / "bin" / "tool", 0o644)
    assert statuses(settings(tmp_path, sync_handler=b"tool")) == [2]
    made(tmp_path / "bin" / "tool", 0o755)
    assert statuses(settings(tmp_path, sync_handler=b"tool")) == []


@pytest.mark.parametrize("patience", [{"ignore_failures": True}, {"retries": 0}, {"skip_initialsync": True}], ids=str)
def test_a_handler_may_still_come_where_a_failed_run_is_no_end(tmp_path: Path, patience: dict[str, object]) -> None:
    early = settings(tmp_path, sync_handler=bytes(tmp_path / "missing"), **patience)
    assert statuses(early) == []
    assert "--sync-handler" in diskchecks.notes(early)[0].text


def test_in_another_root_directory_nothing_is_known(tmp_path: Path) -> None:
    inside = settings(
        tmp_path, chroot=b"/c", sync_handler=b"/missing", exit_hook=b"/missing", pre_exit_hook=b"/missing"
    )
    assert statuses(inside) == []
    assert diskchecks.notes(inside) == []


@pytest.mark.parametrize("mode", [Mode.SO, Mode.RSYNCSO, Mode.PY, Mode.RSYNCPY])
def test_a_module_must_not_be_anybodys(tmp_path: Path, mode: Mode) -> None:
    def of(permissions: int) -> list[int]:
        return statuses(settings(tmp_path, mode=mode, sync_handler=made(tmp_path / "m", permissions)))

    assert of(0o755) == []
    assert of(0o400) == []
    assert of(0o775) == [1]
    assert of(0o757) == [1]
    assert of(0o4755) == [1]
    assert statuses(settings(tmp_path, mode=mode, sync_handler=bytes(tmp_path))) == [1]
    assert statuses(settings(tmp_path, mode=mode, sync_handler=bytes(tmp_path / "missing"))) == [2]


@needs_root
def test_a_module_of_another_user_is_not_loaded(tmp_path: Path) -> None:
    module = made(tmp_path / "m.so", 0o755)
    os.chown(module, 1234, 0)
    assert statuses(settings(tmp_path, mode=Mode.SO, sync_handler=module)) == [1]


def test_lists_are_made_where_nobody_else_gets(tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir(mode=0o700)
    what = settings(tmp_path, lists_dir=bytes(lists))
    assert statuses(what, writer=os.geteuid()) == []
    for mode in (0o755, 0o750, 0o701):
        lists.chmod(mode)
        assert statuses(what, writer=os.geteuid()) == [13]
    assert statuses(settings(tmp_path, lists_dir=made(tmp_path / "file", 0o600))) == [20]


def test_lists_are_made_where_their_writer_can(tmp_path: Path) -> None:
    lists = tmp_path / "lists"
    lists.mkdir(mode=0o700)
    what = settings(tmp_path, lists_dir=bytes(lists))
    assert statuses(what, writer=os.geteuid() + 1) == [13]
    assert statuses(what, writer=0) == []
