"""What rsync prints, taken apart."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instep.engines.rsync.output import Item, complaints, item, unescape


def escaped(name: bytes) -> bytes:
    """As rsync's rwrite() does it with --8-bit-output."""
    out = b""
    for i, byte in enumerate(name):
        reads_as_escape = name[i : i + 2] == b"\\#" and len(name) > i + 4 and name[i + 2 : i + 5].isdigit()
        out += b"\\#%03o" % byte if (byte < 0x20 and byte != 9) or reads_as_escape else name[i : i + 1]
    return out


@given(st.binary(max_size=30))
def test_unescape_undoes_rsyncs_escapes(name: bytes) -> None:
    assert unescape(escaped(name)) == name


LETTERS = st.sampled_from([bytes((b,)) for b in b"\\#0123789\n\r\t\x01\x7f\xff |a./ "])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.lists(LETTERS, min_size=1, max_size=12).map(b"".join), min_size=20, max_size=40))
def test_rsync_itself_round_trips(tmp_path_factory: pytest.TempPathFactory, drawn: set[bytes]) -> None:
    wanted = {n.replace(b"/", b"_") for n in drawn} - {b".", b".."}
    root = tmp_path_factory.mktemp("names")
    for name in wanted:
        os.close(os.open(os.path.join(os.fsencode(root), name), os.O_CREAT | os.O_WRONLY))
    ran = subprocess.run(
        ["rsync", "-nr", "-8", "--out-format=%i|%l|%n", f"{root}/", f"{root}.not/"],
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        check=True,
    )
    items = [one for line in ran.stdout.split(b"\n") if (one := item(line)) is not None]
    assert {one.path for one in items if one.is_content} == wanted


def test_whose_way_could_not_be_made() -> None:
    (one,) = complaints(b'could not make way for new regular file: d/"a": b\\#012\n', [b"/source"])
    assert (one.path, one.errno, one.vanished, one.in_source) == (b'd/"a": b\n', 0, False, False)


def test_an_itemised_line_comes_apart() -> None:
    assert item(b">f.st......|12|d/a b") == Item(b">f.st......", 12, b"d/a b")
    assert item(b".d..t......|40|./") == Item(b".d..t......", 40, b"")
    assert item(b"cd+++++++++|40|d/e/") == Item(b"cd+++++++++", 40, b"d/e")
    assert item(b">f+++++++++|1|a|b") == Item(b">f+++++++++", 1, b"a|b")
    deleted = item(b"*deleting  |0|gone/")
    assert deleted is not None
    assert deleted.deleted
    assert deleted.path == b"gone"


@pytest.mark.parametrize(
    "line", [b"", b"created directory t", b"IO error encountered -- skipping file deletion", b"a|b|c"]
)
def test_other_lines_are_no_items(line: bytes) -> None:
    assert item(line) is None


@pytest.mark.parametrize(
    ("line", "path", "number", "in_source", "vanished"),
    [
        (b'rsync: [receiver] mkstemp "/t/ro/.x.AbC123" failed: Permission denied (13)', b"ro/x", 13, False, False),
        (b'rsync: [generator] recv_generator: mkdir "/t/new" failed: Permission denied (13)', b"new", 13, False, False),
        (b'rsync: [sender] send_files failed to open "/s/d/bad": Permission denied (13)', b"d/bad", 13, True, False),
        (b'rsync: [sender] link_stat "/s/a" failed: No such file or directory (2)', b"a", 2, True, True),
        (b'file has vanished: "/s/d/x"', b"d/x", 0, True, True),
        (b"rsync: [generator] delete_file: unlink(ro/x) failed: Permission denied (13)", b"ro/x", 13, False, False),
        (b'rsync: [receiver] rename "/t/.x.AbC123" -> "x": Is a directory (21)', b"x", 21, False, False),
        (b'rsync: [receiver] mkstemp "/d/.x.AbC123" (in mod) failed: Permission denied (13)', b"d/x", 13, False, False),
        (b'rsync: [generator] failed to set times on "/t/q"u": Operation not permitted (1)', b'q"u', 1, False, False),
        (b'rsync: [generator] failed to set times on "/t/.": Operation not permitted (1)', b"", 1, False, False),
        (b'rsync: [sender] opendir "/s/n\\#012l" failed: Permission denied (13)', b"n\nl", 13, True, False),
    ],
)  # fmt: skip
def test_a_complaint_names_path_and_errno(
    line: bytes, path: bytes, number: int, in_source: bool, vanished: bool
) -> None:
    (one,) = complaints(line + b"\nrsync error: some files (code 23) at main.c(1394)\n", (b"/s", b"/t"))
    assert (one.path, one.errno, one.in_source, one.vanished) == (path, number, in_source, vanished)


def test_a_temporary_name_makes_no_other_reason_of_one() -> None:
    texts = set()
    for hidden in (b"AbC123", b"xyz789"):
        line = b'rsync: [receiver] rename "/t/d/.x.y.%s" -> "d/x.y": File name too long (36)' % hidden
        texts |= {complaint.text for complaint in complaints(line, [b"/t"])}
    assert texts == {'rsync: [receiver] rename "/t/d/.x.y.XXXXXX" -> "d/x.y": File name too long (36)'}


def test_a_complaint_of_another_place_keeps_its_words() -> None:
    (one,) = complaints(b"ssh: Could not resolve hostname x\n", (b"/s",))
    assert one.path is None
    assert "resolve" in one.text
