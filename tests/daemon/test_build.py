"""What is refused when engines are chosen."""

from __future__ import annotations

import pytest

from instep.daemon.build import Ground, build_engine
from instep.errors import UsageError
from instep.rules import Rule
from instep.spec import EngineName, MirrorSpec, TargetSpec


@pytest.mark.parametrize(
    "target",
    [
        TargetSpec(b"host:/somewhere"),
        TargetSpec(b"host:/somewhere", EngineName.REMOTE),
        TargetSpec(b"host::module"),
        TargetSpec(b"/somewhere", EngineName.RSYNC),
    ],
)
def test_regular_expressions_are_refused_where_no_engine_knows_them(target: TargetSpec) -> None:
    spec = MirrorSpec(b"/source", (target,), rules=(Rule(False, b"a", "rules:7", "all"),))
    ground = Ground(spec=spec, source_fd=-1)
    with pytest.raises(UsageError) as caught:
        build_engine(ground, target)
    assert caught.value.code == "engine-not-possible"
    assert caught.value.what.startswith("rules:7 is a regular expression")
