"""Searching for an expression in a time that only grows with the length of the text.

Python's ``re`` tries one way after the other, which takes for ever where there are many: an expression like ``(.*/)*x``
and a deep directory are enough. Here all ways are followed at once: a state is the set of places in the expression that
may have been reached, and what a byte leads to from there is worked out the first time it is needed.
"""

from __future__ import annotations

from instep.frontends.clsync.expressions import WORD, Chain, Choice, Node, OneOf, Place, Repeat

STEPS_MAX = 1_000
"""Of one expression; what is repeated up to so many times has that many."""
STATES_MAX = 500
"""Remembered ones; past it they are forgotten, all at once. Each takes some kilobytes at most (guessed)."""


class TooLarge(Exception):
    """The expression has too many steps, or something in it refers to what was matched before."""


class Automaton:
    """Says whether an expression matches somewhere in a text."""

    def __init__(self, node: Node) -> None:
        """Take the expression apart.

        Raises:
            TooLarge: there is no automaton for it.
        """
        self._steps: list[_Step] = [_Step()]  # the first of them is the end
        self._begin = self._step(node, 0)
        self._states: dict[tuple[frozenset[int], bool | None], _State] = {}
        self._start = self._state(frozenset(), None)

    def search(self, text: bytes) -> bool:
        """Whether it matches anywhere."""
        state = self._start
        for byte in text:
            following = state.after.get(byte)
            if following is None:
                following = state.after[byte] = self._after(state, byte)
            if following.matched:
                return True
            state = following
        if state.matches_at_end is None:
            state.matches_at_end = 0 in self._reached(state, None)
        return state.matches_at_end

    # ---- taking it apart -------------------------------------------------------------------------------------------

    def _add(self, step: _Step) -> int:
        if len(self._steps) >= STEPS_MAX:
            raise TooLarge
        self._steps.append(step)
        return len(self._steps) - 1

    def _step(self, node: Node, then: int) -> int:
        """The step that the expression begins with, if ``then`` is the one behind it."""
        match node:
            case OneOf(members):
                return self._add(_Step(members=members, ways=[then]))
            case Place():
                return self._add(_Step(place=node, ways=[then]))
            case Chain(parts):
                for part in reversed(parts):
                    then = self._step(part, then)
                return then
            case Choice(branches):
                return self._add(_Step(ways=[self._step(branch, then) for branch in branches]))
            case Repeat(body, least, most):
                if most is None:
                    again = _Step(ways=[then])
                    then = self._add(again)
                    again.ways.append(self._step(body, then))
                else:
                    behind = then
                    for _ in range(most - least):
                        then = self._add(_Step(ways=[self._step(body, then), behind]))
                for _ in range(least):
                    then = self._step(body, then)
                return then
            case _:
                raise TooLarge

    # ---- following it ----------------------------------------------------------------------------------------------

    def _state(self, steps: frozenset[int], before: bool | None) -> _State:  # noqa: FBT001  # it has three values
        key = (steps, before)
        state = self._states.get(key)
        if state is None:
            if len(self._states) >= STATES_MAX:
                self._states.clear()
                self._start = self._state(frozenset(), None)
            state = self._states[key] = _State(steps, before)
        return state

    def _after(self, state: _State, byte: int) -> _State:
        reached = self._reached(state, byte in WORD)
        if 0 in reached:
            return _MATCHED
        steps = self._steps
        following = frozenset(steps[at].ways[0] for at in reached if byte in (steps[at].members or ()))
        return self._state(following, byte in WORD)

    def _reached(self, state: _State, after: bool | None) -> set[int]:  # noqa: FBT001  # as above
        """The steps that are reached without another byte; a search may begin anywhere.

        Args:
            state: the steps that were reached by the last byte, and whether that is of a word; None: there is none.
            after: whether the next one is.
        """
        reached: set[int] = set()
        todo = [self._begin, *state.steps]
        while todo:
            at = todo.pop()
            if at not in reached:
                reached.add(at)
                step = self._steps[at]
                if step.members is None and (step.place is None or _holds(step.place, state.before, after)):
                    todo += step.ways
        return reached


class _Step:
    """A byte to be matched, a condition, or a choice of ways."""

    __slots__ = ("members", "place", "ways")

    def __init__(
        self, *, members: frozenset[int] | None = None, place: Place | None = None, ways: list[int] | None = None
    ) -> None:
        self.members = members
        self.place = place
        self.ways = ways or []


class _State:
    """Where a search may have come to, after a byte that is of a word, or not, or that is none."""

    __slots__ = ("after", "before", "matched", "matches_at_end", "steps")

    def __init__(self, steps: frozenset[int], before: bool | None, *, matched: bool = False) -> None:  # noqa: FBT001
        self.steps = steps
        self.before = before
        self.matched = matched
        self.after: dict[int, _State] = {}
        self.matches_at_end: bool | None = None


_MATCHED = _State(frozenset(), None, matched=True)


def _holds(place: Place, before: bool | None, after: bool | None) -> bool:  # noqa: FBT001  # they have three values
    match place:
        case Place.START:
            return before is None
        case Place.END:
            return after is None
        case Place.WORD_START:
            return bool(after and not before)
        case Place.WORD_END:
            return bool(before and not after)
        case Place.EDGE:
            return bool(before) != bool(after)
        case Place.NO_EDGE:
            return bool(before) == bool(after)
