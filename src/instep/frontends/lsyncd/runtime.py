"""The Lua state that a configuration runs in.

lupa is imported here, and only when a configuration is read. Texts are bytes on both sides: paths need not be valid
in any encoding.
"""

from __future__ import annotations

import importlib
import importlib.resources
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from instep.errors import ToolMissing

_FLAVOURS: Final = ("lua53", "lua54", "lua52", "luajit21")
"""The best first: 5.3 is what distributions build lsyncd with."""

_ORIGIN: Final = b"instep/"
"""What the names of our own Lua files begin with; those of configurations begin with a slash."""
_SHARED: Final = ("/usr/local/share/lua/5.3", "/usr/share/lua/5.3")
_NATIVE: Final = ("/usr/local/lib/lua/5.3", "/usr/lib/lua/5.3")


class LuaFailure(Exception):
    """A configuration, or one of its functions, went wrong: the message has FILE:LINE in front."""

    def __init__(self, message: bytes, trace: bytes = b"") -> None:
        super().__init__(message)
        self.message = message
        self.trace = trace


class Runtime:
    """One Lua state, with the world of a configuration in it."""

    def __init__(self, primitives: Mapping[str, Callable[..., Any]]) -> None:
        """Make the state.

        Raises:
            ToolMissing: there is no lupa.
        """
        self._lua = _module().LuaRuntime(
            encoding=None, unpack_returned_tuples=True, register_eval=False, register_builtins=False
        )
        self._core = self._lua.table()
        for name, function in primitives.items():
            self._core[name.encode()] = function
        self._lua.execute(_paths())
        self._lua.execute(b"python = nil")
        self._core[b"origin"] = _ORIGIN
        self._run("library.lua")
        self._run("types.lua")
        self._hooks = self._run("prelude.lua")
        self._builtin = self._run("defaults.lua")

    def load(self, text: bytes, name: bytes) -> None:
        """Run a configuration file.

        Raises:
            LuaFailure: it cannot be read as Lua, or went wrong.
        """
        # A first line for the shell is no Lua.
        if text.startswith(b"#"):
            text = b"--" + text
        self._checked(self._hooks[b"load"](text, name))

    def lock(self) -> None:
        """The configuration has been read: global names are final.

        Raises:
            LuaFailure: settings in the old style were wrong.
        """
        self._checked(self._hooks[b"lock"]())

    def call(self, hook: str, *arguments: object) -> Any:
        """Call one of the prelude's hooks; what the configuration's function answered.

        Raises:
            LuaFailure: the function went wrong.
        """
        return self._checked(self._hooks[hook.encode()](*arguments))

    def add(self, sync: Mapping[bytes, object]) -> None:
        """Do what ``sync{ … }`` in a configuration does; the value for an empty key is the template to inherit from.

        Raises:
            LuaFailure: as for a configuration.
        """
        table = self.table(sync)
        template = table[b""]
        table[b""] = None
        table[1] = self._lua.eval(b"default." + template)
        make = self._lua.eval(b"function(given) return function() sync(given) end end")
        self._checked(self._hooks[b"call"](make(table)))

    def settings(self) -> dict[bytes, Any]:
        """What was set by ``settings{ … }``."""
        return dict(self._hooks[b"values"].items())

    def is_builtin(self, one: Any, template: bytes, name: bytes) -> bool:
        """Whether a value is the very one that a template had before any configuration was read."""
        return bool(self._lua.eval(b"rawequal")(one, self._builtin[template][name]))

    def builtin(self, template: bytes, name: bytes) -> Any:
        """What a template had before any configuration was read."""
        return self._builtin[template][name]

    def is_table(self, value: object) -> bool:
        """Whether this is a Lua table."""
        return bool(self._lua.eval(b"type")(value) == b"table")

    def table(self, values: Mapping[Any, object]) -> Any:
        """A Lua table with these keys."""
        table = self._lua.table()
        for key, value in values.items():
            table[key] = self.table(value) if isinstance(value, Mapping) else value
        return table

    def list(self, values: Iterable[object]) -> Any:
        """A Lua table with keys from 1."""
        return self._lua.table(*values)

    def _run(self, name: str) -> Any:
        text = importlib.resources.files("instep.frontends.lsyncd").joinpath("lua", name).read_bytes()
        load = self._lua.eval(b"function(text, name) return load(text, name, 't') end")
        chunk = load(text, b"@" + _ORIGIN + name.encode())
        assert not isinstance(chunk, tuple), chunk
        return chunk(self._core)

    def _checked(self, outcome: Any) -> Any:
        if isinstance(outcome, tuple):
            fine, *rest = outcome
        else:
            fine, rest = outcome, []
        if fine:
            return rest[0] if rest else None
        message, trace = (*rest, b"", b"")[:2]
        raise LuaFailure(message or b"unknown", trace or b"")


def is_true(value: object) -> bool:
    """Whether a value counts as true in Lua: zero and what is empty do."""
    return value is not None and value is not False


def _module() -> Any:
    """One of lupa's flavours; loaded so that Lua modules written in C find Lua in it."""
    flags = sys.getdlopenflags()
    sys.setdlopenflags(os.RTLD_NOW | os.RTLD_GLOBAL)
    try:
        for flavour in _FLAVOURS:
            try:
                return importlib.import_module(f"lupa.{flavour}")
            except ImportError:
                continue
    finally:
        sys.setdlopenflags(flags)
    raise ToolMissing("no-lupa", "the command lsyncd needs the Python package lupa", fix="pip install 'instep[lsyncd]'")


def _paths() -> bytes:
    """Where the system keeps its Lua modules; lupa's own defaults miss some of them."""
    machine = f"/usr/lib/{os.uname().machine}-linux-gnu/lua/5.3"
    shared = ";".join(f"{each}/?.lua;{each}/?/init.lua" for each in _SHARED)
    native = ";".join(f"{each}/?.so" for each in (*_NATIVE, machine))
    return (
        f"package.path = '{shared};./?.lua;./?/init.lua'; package.cpath = '{native};./?.so'\n"
        "local path, cpath = os.getenv('LUA_PATH_5_3') or os.getenv('LUA_PATH'), "
        "os.getenv('LUA_CPATH_5_3') or os.getenv('LUA_CPATH')\n"
        "if path then package.path = path:gsub(';;', ';' .. package.path .. ';') end\n"
        "if cpath then package.cpath = cpath:gsub(';;', ';' .. package.cpath .. ';') end"
    ).encode()
