"""Programs that are kept running: when they are started again, and which of them is made use of."""

from __future__ import annotations

import itertools

from instep.frontends.lsyncd.companions import RETRY_MAX_S, STABLE_S, Companions, substituted


def companions() -> Companions:
    ports = itertools.count(9000)
    return Companions(numbers=itertools.count(), free_port=lambda: next(ports))


def test_what_fails_at_once_is_tried_ever_more_rarely() -> None:
    kept = companions()
    kept.keep([b"ssh"], retry_s=10)
    pauses = []
    now_s = 0.0
    for _ in range(8):
        ((number, program),) = kept.due(now_s, output=None)
        assert program.argv == (b"ssh",)
        assert kept.due(now_s + 1, output=None) == [], "it runs"
        assert kept.ended(number, now_s + 1) is not None
        assert kept.due(now_s + 1, output=None) == []
        next_s = kept.wake_s(now_s + 1)
        assert next_s is not None
        pauses.append(next_s - now_s - 1)
        now_s = next_s
    assert pauses == [10, 20, 40, 80, 160, RETRY_MAX_S, RETRY_MAX_S, RETRY_MAX_S]
    ((number, _),) = kept.due(now_s, output=None)
    kept.ended(number, now_s + STABLE_S)
    assert kept.wake_s(now_s + STABLE_S) == now_s + STABLE_S + 10, "what has run for a while did not fail at once"
    assert kept.ended(number, now_s) is None


def test_tunnels_of_a_pool_take_turns_once_they_are_up() -> None:
    kept = companions()
    words = [b"ssh", b"-L${localport}:h:1", b"^unknown"]
    tunnel = kept.tunnel(words, name=b"", host=b"h", count=2, ready_s=5, retry_s=1)
    first, second = kept.due(0, output=b"/log")
    assert (tunnel.name, first[1].output, kept.running) == (b"Tunnel1", b"/log", [first[0], second[0]])
    assert [program.argv for _, program in (first, second)] == [
        (b"ssh", b"-L9000:h:1", b"^unknown"),
        (b"ssh", b"-L9001:h:1", b"^unknown"),
    ]
    assert (tunnel.is_up(4.9), tunnel.take(4.9), kept.wake_s(4.9)) == (False, {}, 5)
    assert {tunnel.take(5)[b"localport"] for _ in range(2)} == {b"9000", b"9001"}
    kept.ended(first[0], 6)
    assert {tunnel.take(6)[b"localport"] for _ in range(3)} == {b"9001"}
    ((_, again),) = kept.due(7, output=None)
    assert again.argv[1] == b"-L9002:h:1", "a new life, a new port"
    assert tunnel.take(7) == {b"localport": b"9001", b"localhost": b"h"}


def test_variables() -> None:
    values = {b"localport": b"7", b"localhost": b"me"}
    assert substituted(b"rsync://^localhost:^localport/m^x", values) == b"rsync://me:7/m^x"
    assert substituted(b"^localport", {}) == b"^localport"
