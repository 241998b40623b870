"""Python files as modules. Their code is imported in their own processes only."""

from __future__ import annotations

import os
import sys

from instep.engines.modules.module import Module
from instep.engines.modules.process import SOCKET, Start
from instep.spec import ModuleSpec

_LIBRARY = os.path.abspath(__file__).rpartition("/instep/engines/")[0]
# -P: what lies in the watched directory is not for importing; -B: nothing is written beside the module.
_ARGUMENTS = ("-P", "-B", "-c", "import sys; sys.path.append(sys.argv.pop(1)); from {host} import main; main()")


def python_module(spec: ModuleSpec, *, umask: int) -> Module:
    """A module with the functions of ``api``; nothing is started yet."""
    words = (sys.executable, *_ARGUMENTS, _LIBRARY)
    host = f"{__package__}.host"
    argv = (*(os.fsencode(word.format(host=host) if "{host}" in word else word) for word in words), SOCKET, spec.path)
    return Module(spec, lambda: Start(argv[0], argv, spec.watch_dir, umask))
