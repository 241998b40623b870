"""inosync's configuration files: Python modules, of 2 or 3, that assign values to names, read without running them.

What a module computes by calling or importing something is refused: a daemon that runs as root has no business
executing what a text editor left behind. Names given earlier may be used, and joined with ``+``, ``*`` and ``%``.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from instep.errors import UsageError
from instep.frontends.inosync.python2 import modern
from instep.frontends.instep.output import escaped

DEFAULT_EVENTS: Final = ("IN_CLOSE_WRITE", "IN_CREATE", "IN_DELETE", "IN_MOVED_FROM", "IN_MOVED_TO")
EVENTS: Final = frozenset(
    {*DEFAULT_EVENTS, "IN_ACCESS", "IN_ATTRIB", "IN_CLOSE_NOWRITE", "IN_DELETE_SELF", "IN_MODIFY", "IN_MOVE_SELF",
     "IN_OPEN", "IN_Q_OVERFLOW", "IN_UNMOUNT", "IN_IGNORED", "IN_ISDIR", "IN_ONLYDIR", "IN_DONT_FOLLOW",
     "IN_MASK_ADD", "IN_ONESHOT", "ALL_EVENTS", "IN_ALL_EVENTS", "IN_CLOSE", "IN_MOVE"}
)  # fmt: skip
FILE_BYTES_MAX: Final = 1 << 20
NUMBER_MAX: Final = 1e15
"""Of KiB a second, or of seconds: nothing overflows below it."""
TEXT_MAX: Final = 1 << 16
"""No text or list grows past this while a file is read: ``"x" * 10 ** 9`` is a mistake (guessed)."""


@dataclass(frozen=True, slots=True)
class Config:
    """What one file says, checked."""

    wpaths: tuple[str, ...]
    """As written, but absolute; a trailing slash means what it means to rsync."""
    rpaths: tuple[str, ...]
    rnodes: tuple[str, ...]
    rexcludes: tuple[tuple[str, ...], ...]
    """For each of ``wpaths``."""
    extra: str
    rspeed: int
    emask: tuple[str, ...]
    edelay_s: float
    logfile: str
    rsync: str


def load(path: str) -> Config:
    """Read and check a file.

    Raises:
        UsageError: it cannot be read, is not made of plain assignments, or says what cannot be.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(FILE_BYTES_MAX)
    except OSError as error:
        raise UsageError(
            "unreadable-config", f"cannot read {escaped(path)}: {error.strerror}", fix="name a file with -c"
        ) from error
    return checked(assignments(text, origin=path), origin=path)


# ---- reading -------------------------------------------------------------------------------------------------------


def assignments(text: bytes, *, origin: str) -> dict[str, object]:
    """The names a file assigns, with their values.

    Raises:
        UsageError: with FILE:LINE, for anything that is not a plain assignment.
    """
    try:
        tree = _parsed(text)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise _refused(
            origin,
            line,
            f"not the syntax of Python: {getattr(error, 'msg', error)}",
            fix="keep only assignments of plain values; print statements and backticks are Python 2's",
        ) from None
    known: dict[str, object] = {}
    for statement in tree.body:
        match statement:
            case ast.Assign(targets=targets, value=value) if all(isinstance(each, ast.Name) for each in targets):
                names = [each.id for each in targets if isinstance(each, ast.Name)]
                known.update(dict.fromkeys(names, _value(value, known, origin)))
            case ast.AugAssign(target=ast.Name(id=name), op=ast.Add(), value=value) if name in known:
                known[name] = _add(known[name], _value(value, known, origin), statement, origin)
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case _:
                raise _refused(origin, statement.lineno, "more than an assignment", fix="write the values out")
    return known


def _parsed(text: bytes) -> ast.Module:
    """The statements; values may be written as in Python 2."""
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.parse(modern(text))


def _value(node: ast.expr, known: Mapping[str, object], origin: str) -> object:
    match node:
        case ast.Constant(value=bytes(value)):
            return os.fsdecode(value)  # what Python 2 calls a text
        case ast.Constant(value=value) if not isinstance(value, complex) and value is not Ellipsis:
            return value
        case ast.Name(id=name) if name in known:
            return known[name]
        case ast.List(elts=each) | ast.Tuple(elts=each):
            return [_value(one, known, origin) for one in each]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            number = _value(operand, known, origin)
            if isinstance(number, int | float):
                return -number
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _add(_value(left, known, origin), _value(right, known, origin), node, origin)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            one, other = _value(left, known, origin), _value(right, known, origin)
            if isinstance(one, int | float) and isinstance(other, int | float):
                return one * other
        case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Mod(), right=right):
            return _filled(text, _value(right, known, origin), node, origin)
        case ast.JoinedStr(values=parts):
            return "".join(str(_value(part, known, origin)) for part in parts)
        case ast.FormattedValue(value=value_node, format_spec=None):
            return _value(value_node, known, origin)
        case _:
            pass
    raise _refused(
        origin,
        node.lineno,
        f"{escaped(ast.unparse(node))} is more than a plain value",
        fix="write the value out: texts, numbers, lists, and names assigned above",
    )


def _add(one: object, other: object, node: ast.AST, origin: str) -> object:
    result: object = None
    match one, other:
        case str(), str():
            result = one + other
        case list(), list():
            result = [*one, *other]
        case int() | float(), int() | float():
            return one + other
    if not isinstance(result, str | list) or len(result) > TEXT_MAX:
        raise _refused(origin, getattr(node, "lineno", 1), "these cannot be joined", fix="write the value out")
    return result


def _filled(text: str, value: object, node: ast.AST, origin: str) -> str:
    values = value if isinstance(value, list) else [value]
    pieces = text.split("%s")
    if len(pieces) != len(values) + 1 or "%" in "".join(pieces).replace("%%", ""):
        raise _refused(origin, getattr(node, "lineno", 1), "only %s is filled in", fix="write the value out")
    filled = pieces[0] + "".join(str(each) + piece for each, piece in zip(values, pieces[1:], strict=True))
    return filled.replace("%%", "%")


def _refused(origin: str, line: int, what: str, *, fix: str) -> UsageError:
    return UsageError("bad-config", f"{escaped(origin)}:{line}: {what}", fix=fix)


# ---- checking ------------------------------------------------------------------------------------------------------


def checked(values: Mapping[str, object], *, origin: str) -> Config:
    """The configuration, with its defaults. Looks at the file system: watched directories and rsync must be there.

    Raises:
        UsageError: something is missing or cannot be.
    """
    reader = _Reader(values, origin)
    wpaths = reader.texts("wpaths") or reader.texts("wpath")
    if not wpaths:
        raise reader.bad("no paths given to watch", fix='wpaths = ["/directory/"]')
    wpaths = tuple(path if os.path.isabs(path) else _absolute(path) for path in wpaths)
    for path in wpaths:
        if not os.path.isdir(path):
            raise reader.bad(f"one of the watch paths does not exist: {escaped(path)}", fix="make it, or drop it")
    # The older form has one path, and nodes that hold the whole address.
    rpaths = reader.texts("rpaths") if "rpaths" in values or "wpath" not in values else ("",) * len(wpaths)
    if len(rpaths) != len(wpaths):
        raise reader.bad(
            "the no. of remote paths must be equal to the number of watched paths",
            fix="give rpaths as many entries as wpaths has",
        )
    rnodes = reader.texts("rnodes")
    if not rnodes:
        raise reader.bad("no remote nodes given", fix='rnodes = ["user@host:"]')
    emask = reader.texts("emask") or DEFAULT_EVENTS
    for event in emask:
        if event not in EVENTS:
            raise reader.bad(f"invalid inotify event: {escaped(event)}", fix="see inotify(7) for their names")
    edelay_s = reader.number("edelay", 10.0)
    if edelay_s < 0:
        raise reader.bad("event delay needs to be greater or equal to 0", fix="edelay = 10")
    rsync = reader.text("rsync", "/usr/bin/rsync")
    if not os.path.isabs(rsync):
        raise reader.bad("rsync path needs to be absolute", fix='rsync = "/usr/bin/rsync"')
    if not os.access(rsync, os.X_OK):
        raise reader.bad(f"rsync binary does not exist: {escaped(rsync)}", fix="install rsync, or say where it is")
    return Config(
        wpaths=wpaths,
        rpaths=rpaths,
        rnodes=rnodes,
        rexcludes=reader.excludes(len(wpaths)),
        extra=reader.text("extra", ""),
        rspeed=max(0, int(reader.number("rspeed", 0))),
        emask=emask,
        edelay_s=edelay_s,
        logfile=reader.text("logfile", ""),
        rsync=rsync,
    )


def _absolute(path: str) -> str:
    return os.path.abspath(path) + ("/" if path.endswith("/") else "")


class _Reader:
    """Values by name, each of the type that is wanted. None counts as not given."""

    def __init__(self, values: Mapping[str, object], origin: str) -> None:
        self._values = values
        self._origin = origin

    def bad(self, what: str, *, fix: str) -> UsageError:
        return UsageError("bad-config", f"{escaped(self._origin)}: {what}", fix=fix)

    def text(self, name: str, default: str) -> str:
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.bad(f"{name} must be a text", fix=f'{name} = "…"')
        self._check_nameable(name, value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._values.get(name)
        if value is None:
            return ()
        return self._texts(name, [value] if isinstance(value, str) else value)

    def _texts(self, name: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.bad(f"{name} must be a list of texts", fix=f'{name} = ["…", "…"]')
        self._check_nameable(name, *value)
        return tuple(value)

    def _check_nameable(self, name: str, *texts: str) -> None:
        """All of them end up in names of files, or as words of rsync's."""
        for text in texts:
            if "\0" in text or any("\ud800" <= char < "\udc80" or "\udcff" < char <= "\udfff" for char in text):
                raise self.bad(f"{name} holds a character that no file's name can have", fix="drop it")

    def number(self, name: str, default: float) -> float:
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < NUMBER_MAX:
            raise self.bad(f"{name} must be a number", fix=f"{name} = {default:g}")
        return value

    def excludes(self, count: int) -> tuple[tuple[str, ...], ...]:
        """One list for all paths, or a list of lists: one for each."""
        value: Any = self._values.get("rexcludes")
        if isinstance(value, Sequence) and value and all(isinstance(each, list) for each in value):
            if len(value) != count:
                raise self.bad(
                    "rexcludes must be one list of patterns, or one list for each of wpaths",
                    fix="give as many lists as wpaths has entries",
                )
            return tuple(self._texts("rexcludes", each) for each in value)
        return (self.texts("rexcludes"),) * count
