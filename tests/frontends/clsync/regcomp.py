"""glibc's own regcomp and regexec."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

import pytest

LIBC = ctypes.CDLL(None)
LIBC.newlocale.restype = LIBC.uselocale.restype = ctypes.c_void_p
LIBC.newlocale.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
LIBC.uselocale.argtypes = LIBC.freelocale.argtypes = (ctypes.c_void_p,)
REG_EXTENDED, REG_NOSUB = 1, 8
LC_ALL_MASK = 0x1FBF

needs_glibc = pytest.mark.skipif(not hasattr(LIBC, "gnu_get_libc_version"), reason="the C library is not glibc")


@contextlib.contextmanager
def c_locale() -> Iterator[None]:
    """For this thread, as in a program that never sets a locale."""
    plain = LIBC.newlocale(LC_ALL_MASK, b"C", None)
    before = LIBC.uselocale(plain)
    try:
        yield
    finally:
        LIBC.uselocale(before)
        LIBC.freelocale(plain)


def real(expression: bytes, texts: list[bytes]) -> int | list[bool]:
    """Where it matches; or regcomp's code."""
    compiled = ctypes.create_string_buffer(256)  # a regex_t has 64 bytes
    with c_locale():
        code = LIBC.regcomp(compiled, expression, REG_EXTENDED | REG_NOSUB)
        if code:
            return int(code)
        found = [LIBC.regexec(compiled, text, 0, None, 0) == 0 for text in texts]
        LIBC.regfree(compiled)
    return found
