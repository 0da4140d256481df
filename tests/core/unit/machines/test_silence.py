"""When a peer that says nothing is suspected, and when it is given up."""

from __future__ import annotations

from shoal.machines.silence import Silence


def look(silence: Silence, heard: dict[str, float], now: float) -> tuple[list[str], list[str], list[str]]:
    return silence.look(heard.items(), now)


def test_a_silent_peer_is_suspected_once_then_given_up() -> None:
    silence = Silence(60)
    assert silence.interval == 10
    heard = {"a": 0.0, "b": 0.0}
    verdicts = []
    for now in range(10, 80, 10):
        heard["b"] = now - 1
        verdicts.append(look(silence, heard, now))
    nothing = ([], [], [])
    assert verdicts == [nothing] * 3 + [(["a"], [], [])] + [nothing] * 2 + [([], [], ["a"])]


def test_a_suspected_peer_that_is_heard_again_is_as_good_as_before() -> None:
    silence = Silence(60)
    for now in (10, 20, 30):
        look(silence, {"a": 0.0}, now)
    assert look(silence, {"a": 0.0}, 40) == (["a"], [], [])
    assert look(silence, {"a": 45.0}, 50) == ([], ["a"], [])
    assert look(silence, {"a": 45.0}, 60) == ([], [], [])


def test_who_was_held_up_itself_suspects_nobody() -> None:
    silence = Silence(60)
    look(silence, {"a": 0.0}, 10)
    assert look(silence, {"a": 5.0}, 500) == ([], [], [])
    assert look(silence, {"a": 501.0}, 510) == ([], [], [])


def test_a_peer_that_has_gone_is_forgotten() -> None:
    silence = Silence(60)
    for now in (10, 20, 30):
        look(silence, {"a": 0.0}, now)
    look(silence, {"a": 0.0}, 40)
    look(silence, {}, 50)
    assert look(silence, {"a": 59.0}, 60) == ([], [], []), "another of the same name was never suspected"
