"""What was seen on clsync 0.4.5's control socket: requests, and the lines that answer them.

``DUMP`` stands for a directory that can be made. ``None`` for an answer: the connection is closed.
"""

from __future__ import annotations

GREETING = b"0 0 0 :Protocol version is 0.\n"

BOTH: list[tuple[bytes, bytes | None]] = [
    (b"1 0 0", b"1 1 0 :Protocol version is 0.\n"),
    (b"2 1 0 0", b"2 150 1 2 :Acknowledged command: id == 1; num == 2.\n"),
    (b"3 200", b"3 300 0 5 -release :clsync v0.5-release\n"),
    (b"5 202 DUMP", b"5 302  :Ready\n"),
    (
        b"6 202 DUMP",
        b'6 199 sync_dump\x03/ DUMP\x03/ 17 File exists\x03/ :sync_dump(DUMP): Error #17: "File exists".\n',
    ),
    (b"7 999", b"7 160 999 7 :Unknown command.\n"),
    (b"8 1000", b"8 161 8 :Invalid command id. Required: 0 <= cmd_id < 1000.\n"),
    (b"9 150 1 1", b"9 160 150 9 :Unknown command.\n"),
    (b"10 210", b"10 160 210 10 :Unknown command.\n"),
    (b"15 300 1 2 3", b"15 160 300 15 :Unknown command.\n"),
    (
        b"16 0 1 0",
        b"16 162 0 16 :Rejected command: id == 0; num == 16. Invalid arguments: Incorrect protocol id.\n",
    ),
    (b"16 0 0 1", b"16 1 0 :Protocol version is 0.\n"),
    (b"19 0 0 0 :text", b"19 1 0 :Protocol version is 0.\n"),
    (b"21  200", b"21 300 0 5 -release :clsync v0.5-release\n"),
    (b" 21 200", b"21 300 0 5 -release :clsync v0.5-release\n"),
    (b"21 200\r", b"21 300 0 5 -release :clsync v0.5-release\n"),
    (b"021 0200", b"21 300 0 5 -release :clsync v0.5-release\n"),
    (b"1 200 :x", b"1 300 0 5 -release :clsync v0.5-release\n"),
    (
        b"22 202 /nonexistent/a",
        (
            b"22 199 sync_dump\x03/ /nonexistent/a\x03/ 2 No such file or directory\x03/ :sync_dump(/nonexistent/a): "
            b'Error #2: "No such file or directory".\n'
        ),
    ),
    (b"1 250", b"1 350  :Bye.\n"),
]
"""The same with both programs, in one connection."""

CLOSING: list[bytes] = [b"hello", b"", b"x" * 9000]
"""What is answered by the end of the connection."""
