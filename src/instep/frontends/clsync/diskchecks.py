"""What has to be there, and safe to use, before a program starts with its settings: hooks, handler, module, lists."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from instep.frontends.clsync.build import in_path
from instep.frontends.clsync.complaints import Complaint, Note
from instep.frontends.clsync.settings import Settings
from instep.frontends.instep.output import escaped

NOT_SAFE = errno.EPERM
"""Exit status for a module that others could have written."""


def complaints(settings: Settings, *, writer: int) -> list[Complaint]:
    """What is missing or not safe. To be asked as the user who started the program, as hooks and handlers run as him.

    Args:
        settings: what is to be used; with another root directory only what is used before is looked at.
        writer: the user who writes list files.
    """
    found = [*_lists_dir(settings, writer)]
    if settings.mode.calls:
        found += _module(settings.sync_handler)
    elif settings.chroot is None and not _can_wait(settings):
        found += _handler(settings)
    if settings.chroot is None and settings.exit_hook is not None:
        found += _program("exit-hook", settings.exit_hook)
    return found


def notes(settings: Settings) -> list[Note]:
    """What is missing, but may still come."""
    found: list[Complaint] = []
    if settings.chroot is None and not settings.mode.calls and _can_wait(settings):
        found += _handler(settings)
    if settings.chroot is None and settings.pre_exit_hook is not None:
        found += _program("pre-exit-hook", settings.pre_exit_hook)
    return [Note(str(complaint)) for complaint in found]


def changed(before: Settings, after: Settings) -> list[Complaint]:
    """What other settings need and is not there; to be asked while the program runs.

    It may have given up rights by then that handlers and hooks have: what it cannot look at counts as there.
    """
    found: list[Complaint] = []
    if after.chroot is not None:
        return found
    needs_handler = not after.mode.calls and not _survives_failures(after)
    if needs_handler and (after.sync_handler != before.sync_handler or before.mode.calls):
        handler = after.sync_handler
        if b"/" in handler:
            found += _seen("sync-handler", handler)
        elif not any(_may_be_program(os.path.join(place, handler)) for place in after.start.path.split(b":") if place):
            found.append(_in_no_path(handler))
    if after.exit_hook is not None and after.exit_hook != before.exit_hook:
        found += _seen("exit-hook", after.exit_hook)
    return found


def _can_wait(settings: Settings) -> bool:
    """Whether a first run that fails would not end the program."""
    return _survives_failures(settings) or settings.skip_initialsync


def _survives_failures(settings: Settings) -> bool:
    return settings.ignore_failures or settings.retries != 1


def _seen(what: str, path: bytes) -> list[Complaint]:
    """What is wrong with a program for everybody, whoever it is to be run as."""
    return [complaint for complaint in _program(what, path) if not _may_be_program(path)]


def _may_be_program(path: bytes) -> bool:
    """Whether somebody could run it, as far as can be seen."""
    try:
        mode = os.stat(path).st_mode
    except PermissionError:
        return True
    except OSError:
        return False
    return stat.S_ISREG(mode) and mode & (stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH) != 0


def _program(what: str, path: bytes) -> Iterator[Complaint]:
    shown = f"--{what}: {escaped(path)}"
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        yield Complaint(f"{shown}: {error.strerror}", "name a program that is there", error.errno or errno.ENOENT)
        return
    if not stat.S_ISREG(mode):
        yield Complaint(f"{shown} is no file", "name a program", errno.EACCES)
    elif not os.access(path, os.X_OK):
        yield Complaint(f"{shown} cannot be executed", f"chmod +x {escaped(path)}", errno.EACCES)


def _handler(settings: Settings) -> Iterator[Complaint]:
    handler = settings.sync_handler
    if b"/" in handler:
        yield from _program("sync-handler", handler)
    elif in_path(handler, settings.start.path) is None:
        yield _in_no_path(handler)


def _in_no_path(handler: bytes) -> Complaint:
    return Complaint(
        f"--sync-handler: there is no program {escaped(handler)} in PATH or the current directory",
        "install it, or name it with its path",
        errno.ENOENT,
    )


def _module(path: bytes) -> Iterator[Complaint]:
    """Its code runs in this process, so nobody else may have been able to write it."""
    shown = f"--sync-handler: {escaped(path)}"
    try:
        info = os.stat(path)
    except OSError as error:
        yield Complaint(f"{shown}: {error.strerror}", "name a module that is there", error.errno or errno.ENOENT)
        return
    if not stat.S_ISREG(info.st_mode):
        yield Complaint(f"{shown} is no file", "name a module", NOT_SAFE)
    elif info.st_uid not in (0, os.getuid()):
        yield Complaint(
            f"{shown} belongs to user {info.st_uid}", "it has to be root's, or that of who starts the program", NOT_SAFE
        )
    elif info.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX | stat.S_IWGRP | stat.S_IWOTH):
        yield Complaint(
            f"{shown} can be written by others, or has special bits (mode {stat.S_IMODE(info.st_mode):04o})",
            f"chmod 0755 {escaped(path)}",
            NOT_SAFE,
        )


def _lists_dir(settings: Settings, writer: int) -> Iterator[Complaint]:
    """Lists say what is copied where: nobody else may read or replace them. It is made where it is missing."""
    path = settings.lists_dir
    if path is None:
        return
    shown = f"--lists-dir: {escaped(path)}"
    try:
        info = os.stat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        yield Complaint(f"{shown}: {error.strerror}", "name another directory", error.errno or errno.EACCES)
        return
    if not stat.S_ISDIR(info.st_mode):
        yield Complaint(f"{shown} is no directory", "name another one", errno.ENOTDIR)
    elif info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield Complaint(
            f"{shown} can be used by others",
            f"name one that is for lists alone (it is made if it is not there), or chmod 0700 {escaped(path)}",
            errno.EACCES,
        )
    elif writer not in (0, info.st_uid):
        yield Complaint(
            f"{shown} belongs to user {info.st_uid}, and lists are written by user {writer}",
            f"chown {writer} {escaped(path)}, or write --uid={info.st_uid}",
            errno.EACCES,
        )
