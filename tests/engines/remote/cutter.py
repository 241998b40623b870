"""Run as a program: passes an agent's frames on, and cuts the connection after so many of them.

    cutter.py FRAMES COUNTER COMMAND...

``COUNTER`` is a file that grows by a byte with each start; only the first start is cut.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading


def main() -> None:
    frames, counter = int(sys.argv[1]), sys.argv[2]
    with open(counter, "ab") as file:
        file.write(b"x")
        first = file.tell() == 1
    child = subprocess.Popen(sys.argv[3:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    left = frames if first else sys.maxsize
    lock = threading.Lock()

    def pass_on(take: int, give: int, skip: int) -> None:
        """Frames from one to the other; ``skip`` bytes first that are none."""
        nonlocal left
        with os.fdopen(take, "rb", closefd=False) as reader:
            head = reader.read(skip)
            if skip == 24:
                head += reader.read(int(head[15:23], 16))
            os.write(give, head) if len(head) < 4096 else write_all(give, head)
            while True:
                header = reader.read(9)
                if len(header) < 9:
                    os.close(give)
                    return
                body = reader.read(struct.unpack("<I", header[:4])[0])
                with lock:
                    left -= 1
                    if left < 0:
                        child.kill()
                        os._exit(1)
                write_all(give, header + body)

    upward = threading.Thread(target=pass_on, args=(0, os.dup(child.stdin.fileno()), 24), daemon=True)
    child.stdin.close()
    upward.start()
    pass_on(child.stdout.fileno(), 1, 14)


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


if __name__ == "__main__":
    main()
