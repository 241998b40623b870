"""The ``clsyncctl`` command: one question to a running ``clsync``, one answer."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NoReturn

from instep.frontends.clsync.client import Client, ClientError, Failed, TimedOut
from instep.frontends.instep.output import escaped

DONE: Final = 0
REFUSED: Final = 1
"""The daemon said no."""
USAGE: Final = 2
NO_DAEMON: Final = 3
NO_ANSWER: Final = 4

TIMEOUT_MAX_S: Final = 86400

VARIABLE: Final = "CLSYNC_SOCKET"

_EPILOG: Final = f"""\
exit status:
  {DONE}  done
  {REFUSED}  the daemon refused, or could not do it
  {USAGE}  wrong usage
  {NO_DAEMON}  nobody listens at the socket
  {NO_ANSWER}  no answer in time
"""

Answer = Mapping[str, object]


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the words say; the exit status.

    Args:
        argv: the words after the program's name; None takes the process's own.
    """
    given = sys.argv[1:] if argv is None else argv
    try:
        words = _parser().parse_args(given)
    except _Usage as error:
        return _fail(_asks_for_json(given), USAGE, f"{error}; fix: see clsyncctl --help")
    except SystemExit as ended:
        return int(ended.code or 0)  # after help
    path: str | None = words.socket
    if not path:
        return _fail(words.json, USAGE, f"no socket is named; fix: give --socket PATH, or set {VARIABLE}")
    command: Callable[[Client, argparse.Namespace], Answer] = words.command
    try:
        with Client(path, timeout_s=words.timeout) as client:
            answer = command(client, words)
    except Failed as error:
        return _fail(words.json, REFUSED, str(error), errno=error.errno)
    except TimedOut as error:
        return _fail(words.json, NO_ANSWER, f"{error}; fix: ask again, or with a longer --timeout")
    except ClientError as error:
        fix = "see that clsync runs with --socket, and that you may write to the socket"
        return _fail(words.json, NO_DAEMON, f"{error}; fix: {fix}")
    if words.json:
        print(json.dumps({"ok": True, **answer}))  # noqa: T201  # what was asked for
    else:
        for name, value in answer.items():
            print(f"{name}: {escaped(str(value))}")  # noqa: T201  # as above
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="clsyncctl",
        description="Talk to a running clsync over its control socket.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "-s",
        "--socket",
        metavar="PATH",
        default=os.environ.get(VARIABLE),
        help=f"the path given to clsync as --socket; without it, what {VARIABLE} holds",
    )
    parser.add_argument("-j", "--json", action="store_true", help="answer with one JSON object, errors too")
    parser.add_argument("-t", "--timeout", metavar="SECONDS", type=_seconds, default=10.0, help="how long to wait (10)")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, what: Callable[[Client, argparse.Namespace], Answer], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(command=what)
        return made

    add("version", _version, "show the version that the daemon says it is")
    add("info", _info, "show which daemon it is: block, label, process")
    dump = add("dump", _dump, "have queues and runs under way written to a new directory")
    dump.add_argument("path", help="a directory that does not exist; relative: in the watched one")
    set_ = add("set", _set, "change an option while the daemon runs")
    set_.add_argument("option", help="its long name, without the dashes")
    set_.add_argument("value", help="the new value; empty: the default")
    add("die", _die, "end the daemon as SIGTERM does")
    return parser


class _Usage(Exception):
    """Words that make no sense."""


class _Parser(argparse.ArgumentParser):
    """Leaves it to others how errors are shown."""

    def error(self, message: str) -> NoReturn:
        raise _Usage(message)


def _asks_for_json(words: Sequence[str]) -> bool:
    """Whether it is to be believed that answers are wanted in JSON, where the words as a whole make no sense."""
    return any(word == "--json" or word.startswith("-j") for word in words)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= TIMEOUT_MAX_S:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, from above 0 to {TIMEOUT_MAX_S}")
    return value


def _version(client: Client, _: argparse.Namespace) -> Answer:
    return {"version": str(client.version())}


def _info(client: Client, _: argparse.Namespace) -> Answer:
    return client.info()._asdict()


def _dump(client: Client, words: argparse.Namespace) -> Answer:
    client.dump(words.path)
    return {"dump": words.path}


def _set(client: Client, words: argparse.Namespace) -> Answer:
    client.set(words.option, words.value)
    return {"option": words.option, "value": words.value}


def _die(client: Client, _: argparse.Namespace) -> Answer:
    client.die()
    return {}


def _fail(as_json: bool, status: int, text: str, *, errno: int = 0) -> int:  # noqa: FBT001  # one of the words
    shown = escaped(text)
    if as_json:
        print(json.dumps({"ok": False, "error": shown, "errno": errno}))  # noqa: T201  # as asked for
    else:
        print(f"clsyncctl: {shown}", file=sys.stderr)  # noqa: T201  # as above
    return status
