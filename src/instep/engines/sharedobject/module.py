"""Shared objects as modules."""

from __future__ import annotations

from instep.engines.modules.module import Module
from instep.engines.modules.process import SOCKET, Start
from instep.engines.sharedobject.build import open_host
from instep.spec import ModuleSpec


def shared_object(spec: ModuleSpec, *, umask: int) -> Module:
    """A module with clsync's binary interface; nothing is started yet. Its program needs /proc when it is started."""

    def prepare() -> Start:
        host = open_host()  # for life: the module may have to be started again when we cannot make it any more
        argv = (b"clsync-module", SOCKET, b"%d" % host, spec.path)
        return Start(b"/proc/self/fd/%d" % host, argv, spec.watch_dir, umask, (host,))

    return Module(spec, prepare)
