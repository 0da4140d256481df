"""What is to follow the last answers of a dead peer follows once, in order, whatever the stream does."""

from __future__ import annotations

import pytest

from shoal.runtime.last_answers import LastAnswers


class World:
    def __init__(self) -> None:
        self.open = {"a"}
        self.timers: list = []
        self.done: list[str] = []
        self.answers = LastAnswers(lambda address: address in self.open, lambda _, call: self.timers.append(call))

    def after(self, address: str, what: str) -> None:
        self.answers.after(address, lambda: self.done.append(what))

    def time_passes(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()


@pytest.fixture
def world() -> World:
    return World()


def test_without_a_stream_there_is_nothing_to_wait_for(world):
    world.after("b", "news")
    assert world.done == ["news"] and not world.timers


def test_the_end_of_the_stream_comes_first_and_that_is_all(world):
    world.after("a", "lost")
    world.after("a", "restarted")
    assert not world.done
    world.answers.ended("a")
    assert world.done == ["lost", "restarted"]
    world.time_passes()
    assert world.done == ["lost", "restarted"], "once"


def test_a_stream_that_does_not_end_is_not_waited_for(world):
    world.after("a", "lost")
    world.time_passes()
    assert world.done == ["lost"]
    world.answers.ended("a")
    assert world.done == ["lost"], "once"


def test_news_of_the_next_stream_to_the_same_address_waits_for_that(world):
    world.after("a", "lost")
    world.answers.ended("a")
    world.after("a", "lost again")
    first, second = world.timers
    first()
    assert world.done == ["lost"]
    second()
    assert world.done == ["lost", "lost again"]
