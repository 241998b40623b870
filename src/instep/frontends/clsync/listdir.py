"""Where list files are: the directory of ``--lists-dir``, or one that is made when the first list is needed.

Facts (observed): a directory that is asked for and missing is made with mode 0700; one that is there must be open to
nobody else; the other is ``clsync-XXXXXX`` in ``TMPDIR`` or /tmp. What was made here is removed at the end.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import tempfile
from typing import Final

from instep.frontends.clsync.complaints import refused
from instep.frontends.clsync.lists import FILE_PREFIX
from instep.logs import fields
from instep.paths import RelPath

log = logging.getLogger(__name__)

_MODE: Final = 0o700


class ListDirectories:
    """The one that is in use, and those that were until the option was changed: all are cleaned up at the end."""

    def __init__(self, path: bytes | None, *, watch_dir: bytes, keep: bool, base: bytes | None = None) -> None:
        """Nothing is done yet.

        Args:
            path: the directory that was asked for, absolute; None: a temporary one.
            watch_dir: the directory that is watched, resolved.
            keep: list files stay, with the directory they are in.
            base: where a temporary one is made, as ``TMPDIR`` says.
        """
        self._watch_dir = watch_dir
        self._keep = keep
        self._base = base
        self._wanted = path
        self._all = [self._new(path)]

    def _new(self, path: bytes | None) -> ListDirectory:
        return ListDirectory(path, watch_dir=self._watch_dir, base=self._base)

    def check(self) -> None:
        """See ``ListDirectory``."""
        self._all[-1].check()

    def change(self, path: bytes | None, *, keep: bool) -> None:
        """Lists are made elsewhere from now on, or are kept.

        Raises:
            Refused: the directory cannot be used; nothing changes.
        """
        if path != self._wanted:
            new = self._new(path)
            new.check()
            self._all.append(new)
            self._wanted = path
        self._keep = keep

    def path(self) -> bytes:
        """As above."""
        return self._all[-1].path()

    def own(self) -> tuple[RelPath, bool] | None:
        """As above."""
        return self._all[-1].own()

    def is_own(self, path: RelPath) -> bool:
        """As above."""
        return any(each.is_own(path) for each in self._all)

    def close(self) -> None:
        """As above."""
        for each in self._all:
            if not self._keep:
                each.close()


class ListDirectory:
    """Gives out the directory, and knows what in a watched directory is of it: that is nobody's change."""

    def __init__(self, path: bytes | None, *, watch_dir: bytes, base: bytes | None = None) -> None:
        """Nothing is done yet.

        Args:
            path: the directory that was asked for, absolute; None: a temporary one.
            watch_dir: the directory that is watched, resolved.
            base: where a temporary one is made, as ``TMPDIR`` says.
        """
        self._path = path
        self._base = base or b"/tmp"
        self._watched = watch_dir.rstrip(b"/") + b"/"
        self._made = False
        self._inside: bytes | None = None
        """The directory as the watched one sees it; None: not in it, or not there yet."""

    def check(self) -> None:
        """Make sure of the directory that was asked for; called as the user who is to write to it.

        Raises:
            Refused: it cannot be used; the exit status is the errno.
        """
        path = self._path
        if path is None:
            return
        try:
            os.mkdir(path, _MODE)
        except FileExistsError:
            self._check_rights(path)
        except OSError as error:
            raise refused(
                f"the list directory '{os.fsdecode(path)}' cannot be made: {error.strerror}",
                "make it, or name another one with --lists-dir",
                status=error.errno or errno.EINVAL,
            ) from error
        else:
            self._made = True
            log.warning("list-directory-made", extra=fields(path=path, now="it is removed at the end"))
        self._place(path)

    def _check_rights(self, path: bytes) -> None:
        name = os.fsdecode(path)
        info = os.stat(path)
        if not stat.S_ISDIR(info.st_mode):
            raise refused(f"the list directory '{name}' is no directory", "name another one", status=errno.ENOTDIR)
        if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise refused(
                f"the list directory '{name}' is open to others (mode {stat.S_IMODE(info.st_mode):04o})",
                f"name one that is for lists alone (it is made if it is not there), or chmod 0700 '{name}'",
                status=errno.EACCES,
            )
        if not os.access(path, os.W_OK | os.X_OK, effective_ids=True):
            raise refused(
                f"the list directory '{name}' cannot be written by user {os.geteuid()}",
                "give it to that user, or name with --uid and --gid the one that it belongs to",
                status=errno.EACCES,
            )

    def path(self) -> bytes:
        """The directory; a temporary one is made now if there is none yet. Blocks for a system call or two.

        Raises:
            OSError: it cannot be made.
        """
        if self._path is None:
            self._path = tempfile.mkdtemp(prefix=b"clsync-", dir=self._base)
            self._made = True
            self._place(self._path)
        return self._path

    def _place(self, path: bytes) -> None:
        real = os.path.realpath(path)
        if (real + b"/").startswith(self._watched):
            self._inside = real[len(self._watched) :]

    def is_own(self, path: RelPath) -> bool:
        """Whether a path in the watched directory is a list file, or the directory that was made for them."""
        inside = self._inside
        if inside is None:
            return False
        if self._made and (path == inside or path.startswith(inside + b"/")):
            return True
        head, _, name = path.rpartition(b"/")
        return head == inside and name.startswith(FILE_PREFIX)

    def own(self) -> tuple[RelPath, bool] | None:
        """What in the watched directory is of our own making: a directory; True: of it only files with ``FILE_PREFIX``.

        None: nothing is. Known once the directory is there.
        """
        inside = self._inside
        return None if inside is None else (RelPath(inside), not self._made)

    def close(self) -> None:
        """Remove what is left of this process's lists, and the directory if it was made here; may be called twice."""
        path, self._path = self._path, None
        if path is None:
            return
        with contextlib.suppress(OSError):
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._sweep(directory)
            finally:
                os.close(directory)
        if self._made:
            try:
                os.rmdir(path)
            except OSError as error:
                log.warning("list-directory-left", extra=fields(path=path, reason=error.strerror))

    def _sweep(self, directory: int) -> None:
        mine = tuple(FILE_PREFIX + kind + b".%d." % os.getpid() for kind in (b"list", b"exclist"))
        with os.scandir(directory) as entries:
            names = [os.fsencode(entry.name) for entry in entries]
        for name in names:
            if name.startswith(mine):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=directory)
