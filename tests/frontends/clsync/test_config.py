"""Configuration files: lines, blocks, and what they inherit."""

from __future__ import annotations

import ctypes
import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from instep.frontends.clsync import config
from instep.frontends.clsync.complaints import Refused
from instep.frontends.clsync.config import ConfigError, ConfigFile


def parsed(text: str) -> dict[str, dict[str, str]]:
    blocks = config.parse(text.encode(), "x.conf")
    return {name: {key: line.text.decode() for key, line in block.items()} for name, block in blocks.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# nothing\n\n", {}),
        ("[a]", {"a": {}}),
        ("[a]\nkey=value", {"a": {"key": "value"}}),
        ("[a]\n  key  =  value\n", {"a": {"key": "value"}}),
        ("[a]\nkey = value  \n", {"a": {"key": "value  "}}),
        ("[a]\nkey = value\r\n", {"a": {"key": "value"}}),
        ("[a]\nkey = y # no comment\n", {"a": {"key": "y # no comment"}}),
        ('[a]\n  # a comment\nkey = "q\\n"\n', {"a": {"key": '"q\\n"'}}),
        ("[a]\nkey =\n", {"a": {"key": ""}}),
        ("[a]\nkey = x = y\n", {"a": {"key": "x = y"}}),
        ("[a]\n-- = -a %INCLUDE-LIST%\n--- = b\n", {"a": {"--": "-a %INCLUDE-LIST%", "---": "b"}}),
        ("[a]\nkey = 1\nkey = 2\n", {"a": {"key": "2"}}),
        ("[a]\nx = 1\n[b]\n[a] \ny = 2\n", {"a": {"x": "1", "y": "2"}, "b": {}}),
        ("[a]\nkey[de] = z\n", {"a": {"key[de]": "z"}}),
    ],
)
def test_lines_are_read(text: str, expected: dict[str, dict[str, str]]) -> None:
    assert parsed(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label = x\n[a]\n", "x.conf:1: label = x stands before the first [block]"),
        ("[a]\n\nlabel\n", "x.conf:3: label is neither"),
        ("[a]\n= x\n", "x.conf:2"),
        ("[a]x\n", "x.conf:1"),
        ("[]\n", "x.conf:1"),
        ("[a\n", "x.conf:1"),
    ],
)
def test_a_line_that_cannot_be_understood_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parsed(text)
    assert message in str(error.value)


def glib() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libglib-2.0.so.0")
    except OSError:
        return None
    strings = ctypes.POINTER(ctypes.c_char_p)
    library.g_key_file_new.restype = ctypes.c_void_p
    library.g_key_file_load_from_data.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p,
    ]  # fmt: skip
    library.g_key_file_get_groups.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.g_key_file_get_groups.restype = strings
    library.g_key_file_get_keys.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p]
    library.g_key_file_get_keys.restype = strings
    library.g_key_file_get_value.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
    library.g_key_file_get_value.restype = ctypes.c_char_p
    library.g_key_file_free.argtypes = [ctypes.c_void_p]
    return library


GLIB = glib()


def strings(array: Any) -> list[bytes]:
    """Up to the null pointer."""
    return list(itertools.takewhile(lambda each: each is not None, array))


def read_by_glib(library: ctypes.CDLL, data: bytes) -> dict[str, dict[str, str]] | None:
    """The blocks; None: it cannot be understood. Strings are not freed: they are few."""
    file = library.g_key_file_new()
    try:
        if not library.g_key_file_load_from_data(file, data, len(data), 0, None):
            return None
        return {
            name.decode(): {
                key.decode(): library.g_key_file_get_value(file, name, key, None).decode()
                for key in strings(library.g_key_file_get_keys(file, name, None, None))
            }
            for name in strings(library.g_key_file_get_groups(file, None))
        }
    finally:
        library.g_key_file_free(file)


GLIB_LINES = [
    "[a]", "[b] ", " [a]", "[a b]", "[]", "[a", "[a]x", "[a]]", "[[a]", "k=v", " k = v ", "k\t=\tv", "k = ", "k=", "=v", "k",
    "# c", "  # c", "", "  ", "l = x = y", "-- = a  b", "--- = c", "k=v\r", "[c]\r", "k = [v]", "m = a\\nb", "m;n = o", ";c",
]  # fmt: skip


@pytest.mark.skipif(GLIB is None, reason="there is no GLib")
@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(GLIB_LINES), max_size=6), st.booleans(), st.booleans())
def test_files_are_read_as_by_glib(lines: list[str], begun: bool, ended: bool) -> None:
    text = "\n".join([*(["[a]"] if begun else []), *lines]) + ("\n" if ended else "")
    assume(not text.endswith("\r"))  # GLib takes a last line's for a part of it.
    assert GLIB is not None
    expected = read_by_glib(GLIB, text.encode())
    if expected is None:
        with pytest.raises(ConfigError):
            parsed(text)
    else:
        assert parsed(text) == expected


def test_names_and_values_that_are_no_text_survive() -> None:
    assert config.parse(b"[a]\nlabel=\xff\n", "x")["a"]["label"].text == b"\xff"


def merged(text: str, block: str = "default", parent: str | None = None) -> tuple[dict[str, str], list[str]]:
    warnings: list[str] = []
    file = ConfigFile(b"x.conf", config.parse(text.encode(), "x.conf"))
    lines = config.merged(file, block, parent, warnings.append)
    return {key: f"{line.text.decode()}@{line.depth}" for key, line in lines.items()}, warnings


def test_a_block_goes_before_those_that_it_inherits_from() -> None:
    text = "[default]\na=1\nconfig-block-inherits=b\n[b]\na=2\nb=2\nconfig-block-inherits=c\n[c]\na=3\nb=3\nc=3\n"
    lines, warnings = merged(text)
    assert {key: lines[key] for key in "abc"} == {"a": "1@0", "b": "2@1", "c": "3@2"}
    assert not warnings


def test_a_parent_that_was_named_elsewhere_goes_before_the_blocks_own() -> None:
    text = "[default]\nconfig-block-inherits=b\n[b]\nx=b\n[c]\nx=c\n"
    assert merged(text, parent="c")[0]["x"] == "c@1"


def test_a_circle_ends_and_is_told() -> None:
    lines, warnings = merged("[default]\nconfig-block-inherits=b\n[b]\nx=1\nconfig-block-inherits=default\n")
    assert lines["x"] == "1@1"
    assert warnings == ["x.conf:5: blocks inherit in a circle: default -> b -> default; each counts once"]


def test_a_block_that_is_not_there_is_empty_and_told_where_it_is_inherited() -> None:
    assert merged("[a]\nx=1\n") == ({}, [])
    assert merged("[default]\nconfig-block-inherits=no\n")[1] == ["x.conf:2: there is no block [no] to inherit from"]


def test_files_are_looked_for_at_home_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = tmp_path / "clsync.conf"
    monkeypatch.setattr(config, "_SYSTEM", (b"/nonexistent/x", bytes(system)))
    home = tmp_path / "home"
    home.mkdir()
    warnings: list[str] = []
    assert config.find(bytes(home), warnings.append) is None
    system.write_text("[default]\n")
    found = config.find(bytes(home), warnings.append)
    assert found is not None
    assert found.path == bytes(system)
    (home / ".clsync.conf").write_text("[mine]\n")
    found = config.find(bytes(home), warnings.append)
    assert found is not None
    assert found.path == bytes(home / ".clsync.conf")
    assert not warnings


def test_one_that_cannot_be_understood_is_passed_over_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_SYSTEM", ())
    (tmp_path / ".clsync.conf").write_text("x = 1\n")
    warnings: list[str] = []
    assert config.find(bytes(tmp_path), warnings.append) is None
    assert ".clsync.conf:1" in warnings[0]
    assert "passed over" in warnings[0]


def test_without_a_home_only_the_systems_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_SYSTEM", ())
    assert config.find(None, pytest.fail) is None


def test_one_that_was_named_must_be_usable(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refusal:
        config.named(bytes(tmp_path / "no.conf"))
    assert refusal.value.status == config.UNUSABLE
    assert "no.conf: No such file or directory" in str(refusal.value)
