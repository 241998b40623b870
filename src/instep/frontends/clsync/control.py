"""The control socket's conversation, without the socket: bytes in, bytes out.

Any number of requests may come in one piece, and one request in any number of pieces. What is asked for is done by
``Commands``; what it refuses is answered, and changes nothing.
"""

from __future__ import annotations

import errno
import os
from typing import Final, Protocol

from instep.frontends.clsync.complaints import Refused
from instep.frontends.clsync.protocol import (
    LINE_BYTES_MAX,
    PROTOCOL,
    Id,
    Message,
    Version,
    message,
    parse,
    string,
)

_IDS_END: Final = 1000


class Commands(Protocol):
    """What can be asked for; called in the thread of the conversation."""

    @property
    def version(self) -> Version:
        """What runs."""

    def info(self) -> tuple[bytes, bytes]:
        """The block of the configuration file, and the label."""

    def dump(self, path: bytes) -> None:
        """Write a dump; a relative path begins at the watched directory.

        Raises:
            OSError: it cannot be written.
        """

    def set(self, key: str, value: bytes) -> None:
        """Change one option, named by its long name; an empty value stands for its default.

        Raises:
            Refused: there is no such option, it cannot be changed now, or not to this; nothing is changed.
        """

    def die(self) -> None:
        """End as after SIGTERM, as soon as the caller is done."""


class Session:
    """One connection. The first thing to send is ``greeting``."""

    def __init__(self, commands: Commands) -> None:
        self.greeting: Final = message(0, Id.NEGOTIATE, b"%d" % PROTOCOL, b"Protocol version is %d." % PROTOCOL)
        self._commands = commands
        self._input = bytearray()
        self.ended = False
        """The connection is to be closed when all answers are sent."""

    def feed(self, data: bytes) -> bytes:
        """Take in what came, do what is asked for, and give the answers; does what ``Commands`` does."""
        self._input += data
        answers = []
        while not self.ended:
            line, end, rest = self._input.partition(b"\n")
            if not end:
                # What never ends, nobody wants to have kept.
                self.ended = len(line) > LINE_BYTES_MAX
                break
            self._input = rest
            asked = parse(bytes(line))
            if asked is None:
                self.ended = True
            else:
                answers.append(self._answer(asked))
        if self.ended:
            self._input.clear()
        return b"".join(answers)

    def _answer(self, asked: Message) -> bytes:
        number = asked.number
        match asked.id:
            case Id.NEGOTIATE:
                return self._negotiate(asked)
            case Id.NEGOTIATED:
                text = b"Acknowledged command: id == %d; num == %d." % (asked.id, number)
                return message(number, Id.ACKNOWLEDGED, b"%d %d" % (asked.id, number), text)
            case Id.GET_VERSION:
                version = self._commands.version
                told = f"{version.major} {version.minor} {version.rest}".encode()
                return message(number, Id.VERSION, told, f"clsync v{version}".encode())
            case Id.GET_INFO:
                return self._info(number)
            case Id.DUMP:
                return self._dump(asked)
            case Id.SET:
                return self._set(asked)
            case Id.DIE:
                self.ended = True
                self._commands.die()
                return b""
            case Id.QUIT:
                self.ended = True
                return message(number, Id.BYE, b"", b"Bye.")
            case unknown if 0 <= unknown < _IDS_END:
                return message(number, Id.UNKNOWN, b"%d %d" % (unknown, number), b"Unknown command.")
            case _:
                text = b"Invalid command id. Required: 0 <= cmd_id < %d." % _IDS_END
                return message(number, Id.NO_ID, b"%d" % number, text)

    def _negotiate(self, asked: Message) -> bytes:
        match asked.words():
            case []:
                return _rejected(asked, b"Protocol id is missing.")
            case [protocol, *_] if protocol != b"%d" % PROTOCOL:
                return _rejected(asked, b"Incorrect protocol id.")
            case [_, kind, *_] if kind not in (b"0", b"1"):
                return _rejected(asked, b"Incorrect subprotocol id.")
        # Whoever asks for the binary form is told that it stays with text, as ever.
        return message(asked.number, Id.NEGOTIATED, b"%d" % PROTOCOL, b"Protocol version is %d." % PROTOCOL)

    def _info(self, number: int) -> bytes:
        block, label = self._commands.info()
        # clsync gives out two addresses in its memory here.
        text = b'config_block == "%s"; label == "%s"; flags == 0; flags_set == 0.' % (block, label)
        return message(number, Id.INFO, string(block) + b" " + string(label) + b" 0 0", text)

    def _dump(self, asked: Message) -> bytes:
        found, _ = asked.strings()
        path = found[0] if found else b"" if asked.rest.startswith(b":") else asked.rest.partition(b" :")[0].strip()
        if not path or b"\0" in path:
            return _rejected(asked, b"A path is needed.")
        try:
            self._commands.dump(path)
        except OSError as error:
            code = error.errno or errno.EIO
            return _failed(asked.number, b"sync_dump", path, code, os.strerror(code))
        return message(asked.number, Id.DUMPED, b"", b"Ready")

    def _set(self, asked: Message) -> bytes:
        found, _ = asked.strings()
        if found:
            key, value = found[0], found[1] if len(found) > 1 else b""
        else:
            # To the end of the line: a value may hold anything, a blank and a colon as well.
            key, _, value = asked.rest.lstrip(b" ").partition(b" ")
        if not key:
            return _rejected(asked, b"An option is needed.")
        try:
            self._commands.set(os.fsdecode(key), value)
        except Refused as refused:
            return _failed(asked.number, b"set", key, refused.status, str(refused))
        return message(asked.number, Id.DONE_SET, b"", b"Set")


def _rejected(asked: Message, why: bytes) -> bytes:
    head = b"Rejected command: id == %d; num == %d. Invalid arguments: " % (asked.id, asked.number)
    return message(asked.number, Id.REJECTED, b"%d %d" % (asked.id, asked.number), head + why)


def _failed(number: int, function: bytes, argument: bytes, code: int, why: str) -> bytes:
    reason = os.fsencode(why)
    arguments = b" ".join((string(function), string(argument), string(b"%d " % code + reason)))
    return message(number, Id.FAILED, arguments, b'%s(%s): Error #%d: "%s".' % (function, argument, code, reason))
