"""What is refused before anything is changed, with the exact words."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from instep.errors import OperatorError
from instep.frontends.instep.checks import check
from instep.frontends.instep.main import main
from instep.rules import Rule
from instep.spec import MirrorSpec, TargetSpec

GOLDEN = Path(__file__).with_name("errors.golden")


def never(*_: object, **__: object) -> int:
    pytest.fail("ran although it had to be refused")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Everything that can be given wrongly."""
    top = tmp_path_factory.mktemp("checks")
    for name in ("src/sub", "beside", "other", "over/src", "patterns.d"):
        (top / name).mkdir(parents=True)
    (top / "file").write_text("x")
    (top / "dangling").symlink_to(top / "nowhere")
    (top / "to-src").symlink_to(top / "src")
    (top / "to-beside").symlink_to(top / "beside")
    (top / "loop").symlink_to(top / "loop")
    (top / "bad-patterns").write_bytes(b"ok\nmerge x\n")
    (top / "empty-rule").write_bytes(b"- \n")
    os.mkfifo(top / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(top, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{here}/socket")
        finally:
            os.close(here)
        yield top


CASES: dict[str, str] = {
    "no command": "",
    "unknown command": "miror src beside",
    "no command but places": "src beside",
    "option before command": "--once mirror src beside",
    "no source": "mirror",
    "no target": "mirror src",
    "empty source": "mirror  beside",
    "unknown option": "mirror --quiettime=3 src beside",
    "unknown option, nothing near": "mirror --zzz src beside",
    "unknown letter": "mirror -xz src beside",
    "value missing": "mirror src beside --hold-time",
    "value of a flag": "mirror --once=yes src beside",
    "bad time": "mirror --quiet-time=5d src beside",
    "time out of range": "mirror --poll-interval=1ms src beside",
    "bad size": "mirror --big=huge src beside",
    "bad rate": "mirror --bwlimit=fast src beside",
    "rate too small": "mirror --bwlimit=100b src beside",
    "bad number": "mirror --workers=0 src beside",
    "bad choice": "mirror --engine=natve src beside",
    "bad choice, nothing near": "mirror --monitor=kqueue src beside",
    "empty pattern": "mirror --exclude= src beside",
    "pattern without end": "mirror --exclude=-_ src beside",
    "rule we do not have": "mirror --exclude=P_x src beside",
    "no pattern file": "mirror --exclude-from=none src beside",
    "pattern file is a directory": "mirror --exclude-from=patterns.d src beside",
    "pattern file is a socket": "mirror --include-from=socket src beside",
    "rule in a file": "mirror --exclude-from=bad-patterns src beside",
    "empty rule in a file": "mirror --include-from=empty-rule src beside",
    "quiet over hold": "mirror --quiet-time=30 src beside",
    "big quiet over hold": "mirror --big=1G --big-quiet-time=5m src beside",
    "big missing": "mirror --big-hold-time=5m src beside",
    "bad limit": "mirror --max-delete=half src beside",
    "bad state directory": "mirror --state-dir= src beside",
    "delete clash": "mirror --no-delete --delete-excluded src beside",
    "limit of nothing": "mirror --no-delete --max-delete=5 src beside",
    "nothing to do": "mirror --once --initial-sync=none src beside",
    "rounds that never come": "mirror --once --verify=every=1h src beside",
    "rounds without a time": "mirror --verify=6h src beside",
    "verify without a target": "verify src",
    "verify with a mirror's option": "verify --once src beside",
    "poll clash": "mirror --monitor=inotify --poll-interval=3 src beside",
    "rsync argument": "mirror --rsync-arg=remote: src beside",
    "no such source": "mirror none beside",
    "source is a file": "mirror file beside",
    "source is a dangling link": "mirror dangling beside",
    "source is a loop": "mirror loop beside",
    "source through a file": "mirror file/x beside",
    "same directory": "mirror src src",
    "same directory through a link": "mirror src to-src",
    "same directory, dots": "mirror src src/sub/..",
    "target inside": "mirror src src/sub",
    "target inside, not there yet": "mirror src src/sub/new",
    "target inside through a link": "mirror src to-src/sub",
    "target inside, source a link": "mirror to-src src/sub",
    "source inside": "mirror over/src over",
    "target is a file": "mirror src file",
    "target through a file": "mirror src file/x",
    "target is a dangling link": "mirror src dangling",
    "target is a loop": "mirror src loop",
    "target's parent missing": "mirror src none/new",
    "duplicate": "mirror src beside other beside/",
    "duplicate through a link": "mirror src beside to-beside",
    "duplicate, not there yet": "mirror src new to-beside/../new",
    "duplicate remote": "mirror src host:/a host:/a/",
    "nested targets": "mirror src beside beside/new",
    "nested targets, other order": "mirror src beside/new beside",
    "nested targets, not there yet": "mirror src beside/new/x beside/new",
    "native for a host": "mirror --engine=native src host:/a",
    "no directory on the host": "mirror src me@host:",
    "no directory in the address": "mirror src ssh://me@host:22",
    "no module": "mirror src host::",
    "no module in the address": "mirror src rsync://host/",
    "host that is an option": "mirror -- src -oProxyCommand=x:/a",
    "control bytes": "mirror src\x1b[31m\n beside",
    "not text": "mirror src\udcff beside",
}  # fmt: skip


def test_every_refusal_has_its_words(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """INSTEP_GOLDEN=write rewrites the file; read the difference before committing it."""
    monkeypatch.chdir(place)
    before = tree(place)
    pages = []
    for title, words in CASES.items():
        argv = [word.replace("_", " ") for word in words.split(" ")] if words else []
        assert main(argv, run=never) == 2, title
        shown = capsys.readouterr()
        assert shown.out == ""
        lines = shown.err.replace(str(place), "/TOP").rstrip("\n").split("\n")
        assert lines[0].startswith("error["), title
        assert [line[:6] for line in lines[1:]] == ["  now:", "  fix:"], title
        pages.append(f"## {title}\n$ instep {words.encode('unicode_escape').decode()}\n" + "\n".join(lines) + "\n")
    assert tree(place) == before
    text = "\n".join(pages)
    if os.environ.get("INSTEP_GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def tree(top: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.lstat().st_ino) for path in top.rglob("*"))


def spec(source: Path, *targets: str | Path, **more: object) -> MirrorSpec:
    return MirrorSpec(os.fsencode(source), tuple(TargetSpec(os.fsencode(target)) for target in targets), **more)  # type: ignore[arg-type]


def code_of(call: Callable[[], None]) -> str:
    try:
        call()
    except OperatorError as error:
        return error.code
    return "fine"


def test_what_is_right_is_let_through(place: Path) -> None:
    check(spec(place / "src", place / "beside", place / "other"))
    check(spec(place / "src", place / "new"))
    check(spec(place / "src", place / "src2"))
    check(spec(place / "to-src", place / "to-beside"))
    check(spec(place / "src", "host:/src", "rsync://host/module", place / "beside"))
    assert not (place / "new").exists()


def test_a_target_inside_is_let_through_where_the_rules_never_look(place: Path) -> None:
    left_out = {"rules": (Rule(include=False, pattern=b"/sub/"),)}
    check(spec(place / "src", place / "src/sub", **left_out))
    check(spec(place / "src", place / "src/sub/new", **left_out))
    assert code_of(lambda: check(spec(place / "src", place / "src/new", **left_out))) == "target-inside-source"
    assert (
        code_of(lambda: check(spec(place / "src", place / "src/sub", delete_excluded=True, **left_out)))
        == "target-inside-source"
    )


def test_no_rsync(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(spec(place / "src", "host:/x"))
    monkeypatch.setenv("PATH", str(place))
    assert code_of(lambda: check(spec(place / "src", "host::x"))) == "no-rsync"
    check(spec(place / "src", place / "beside"))


AS_NOBODY = """
import contextlib, io, json, sys
from instep.frontends.instep.main import main
answers = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        status = main(words, run=lambda *a, **k: 0)
    answers.append((status, said.getvalue()))
print(json.dumps(answers))
"""


def as_nobody(*commands: Sequence[str], cwd: Path) -> list[tuple[int, str]]:
    """Of each command the exit status, and what it says on standard error.

    Raises:
        subprocess.CalledProcessError: nobody else may run this Python, or a command raised what it should not.
    """
    words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable, "-c", AS_NOBODY]
    done = subprocess.run([*words, json.dumps(commands)], cwd=cwd, capture_output=True, text=True, check=True)
    return [(status, said) for status, said in json.loads(done.stdout)]


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_rights_are_checked(place: Path) -> None:
    for parent in (place, *place.parents):
        if parent.stat().st_uid == 0 and parent.stat().st_mode & 0o005 != 0o005:
            if place.is_relative_to("/tmp") and parent != Path("/tmp"):
                parent.chmod(0o755)
            else:
                pytest.skip(f"nobody else may enter {parent}")
    try:
        as_nobody(["--version"], cwd=place)
    except subprocess.CalledProcessError:
        pytest.skip("nobody else may run this Python")
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    cases = {
        ("closed", "beside"): "unreadable-source",
        ("src", "other"): "target-not-writable",
        ("src", "newly"): "target-not-writable",
        ("closed/below", "beside"): "unreadable-source",
        ("src", "closed/below"): "target-unusable",
    }
    *refused, dry = as_nobody(
        *(["mirror", *words] for words in cases), ["mirror", "--dry-run", "src", "other"], cwd=place
    )
    for (status, said), code in zip(refused, cases.values(), strict=True):
        assert status == 2
        assert f"error[{code}]" in said, said
        assert "Permission denied" in said
    assert dry[0] == 0


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[Path, Path], None]]:
    done: list[Path] = []

    def bind(what: Path, where: Path) -> None:
        if subprocess.run(["mount", "--bind", what, where], check=False, capture_output=True).returncode:
            pytest.skip("may not mount here")
        done.append(where)

    yield bind
    for where in reversed(done):
        subprocess.run(["umount", "-l", where], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="needs root to mount")
def test_bind_mounts_are_seen_through(tmp_path: Path, mounted: Callable[[Path, Path], None]) -> None:
    for name in ("src/sub/deep", "bound", "bound below", "apart/in", "src/hole", "elsewhere/in"):
        (tmp_path / name).mkdir(parents=True)
    source = tmp_path / "src"
    mounted(source, tmp_path / "bound")
    mounted(source / "sub", tmp_path / "bound below")
    mounted(tmp_path / "elsewhere", source / "hole")
    assert code_of(lambda: check(spec(source, tmp_path / "bound"))) == "same-directory"
    assert code_of(lambda: check(spec(source, tmp_path / "bound" / "sub"))) == "target-inside-source"
    assert code_of(lambda: check(spec(source, tmp_path / "bound" / "new"))) == "target-inside-source"
    assert code_of(lambda: check(spec(source, tmp_path / "bound below"))) == "target-inside-source"
    assert code_of(lambda: check(spec(source, tmp_path / "bound below" / "deep"))) == "target-inside-source"
    assert code_of(lambda: check(spec(tmp_path / "bound below", source))) == "source-inside-target"
    # What is mounted within the source is a part of it.
    assert code_of(lambda: check(spec(source, tmp_path / "elsewhere" / "in"))) == "target-inside-source"
    assert code_of(lambda: check(spec(source, tmp_path / "apart"))) == "fine"
