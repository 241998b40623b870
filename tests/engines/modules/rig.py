"""Modules for tests, compiled where they are C."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from instep.engines.modules.module import Module
from instep.engines.pymodule.module import python_module
from instep.engines.sharedobject import build
from instep.engines.sharedobject.module import shared_object
from instep.model import Call, Told
from instep.spec import ModuleKind, ModuleSpec

HERE = Path(__file__).parent
COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc)")


def compiled(source: Path | str, out: Path) -> Path:
    """A shared object from a file, or from C text."""
    if isinstance(source, str):
        text, source = source, out.with_suffix(".c")
        source.write_text('#include "clsyncapi.h"\n' + text)
    assert COMPILER is not None
    words = [COMPILER, "-Wall", "-Werror", "-shared", "-fPIC", "-I", build.INCLUDE, "-o", str(out), str(source)]
    subprocess.run(words, check=True, timeout=100)
    out.chmod(0o755)
    return out


def written(text: str, out: Path) -> Path:
    """A Python module."""
    out.write_text(text)
    out.chmod(0o644)
    return out


def spec(path: Path, directory: Path, *, takes_lists: bool = False, **more: object) -> ModuleSpec:
    kind = ModuleKind.PYTHON if path.suffix == ".py" else ModuleKind.SHARED_OBJECT
    return ModuleSpec(kind, os.fsencode(path), takes_lists, os.fsencode(directory), **more)  # type: ignore[arg-type]  # passed on


def module(what: ModuleSpec, *, umask: int = 0o022) -> Module:
    make: Callable[..., Module] = python_module if what.kind is ModuleKind.PYTHON else shared_object
    return make(what, umask=umask)


def told(path: str, **more: object) -> Call:
    return Call((Told(os.fsencode(path), 2, False, 2, 2),), **more)  # type: ignore[arg-type]  # passed on


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """What the module's processes inherit."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        yield
