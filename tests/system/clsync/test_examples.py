"""The examples, each run as it stands."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.frontends.lsyncd.daemon import contents
from tests.system.clsync.recipes import Kitchen

EXAMPLES = Path(__file__).parents[3] / "examples/clsync"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("clsync-start-*.sh"))


@pytest.fixture
def kitchen(tmp_path: Path) -> Iterator[Kitchen]:
    kitchen = Kitchen(tmp_path / "kitchen")
    yield kitchen
    kitchen.close()


@pytest.mark.parametrize("script", SCRIPTS)
def test_example(kitchen: Kitchen, script: str) -> None:
    if "so" in script.split("-")[2] and shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    shutil.copytree(EXAMPLES, kitchen.top / "examples")
    source, target = (kitchen.top / "examples/testdir" / name for name in ("from", "to"))
    kitchen.tree(
        examples__testdir__from__a="a", examples__testdir__from__d__b="b", examples__testdir__from__DontSync__x="x"
    )
    target.mkdir()
    process = kitchen.start(f"exec examples/{script} -w0 -t0 -T0", environment={"PYTHON": sys.executable})

    def in_step() -> bool:
        assert process.poll() is None, kitchen.said()
        here = {name: what for name, what in contents(source).items() if not name.startswith("DontSync")}
        return here == contents(target)

    kitchen.wait(in_step, "the initial sync")
    kitchen.tree(
        examples__testdir__from__new="1",
        examples__testdir__from__d__e__deep="2",
        examples__testdir__from__DontSync__y="3",
    )
    (source / "with blank").write_text("4")
    os.symlink("a", source / "link")
    kitchen.wait(in_step, "new objects")
    (source / "a").unlink()
    shutil.rmtree(source / "d")
    (source / "new").write_text("changed")
    kitchen.wait(in_step, "removed and changed objects")
    process.terminate()
    assert process.wait(60) == 0, kitchen.said()
