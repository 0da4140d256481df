"""Logs when there is no cluster any more, or none that has executors."""

from __future__ import annotations

import time

import pytest
from following import Follower

import shoal

TIMEOUT = 30.0


def say(words: str) -> None:
    print(words)


def test_followers_end_with_the_cluster() -> None:
    shoal.output.set_sink(lambda event: None)
    try:
        with shoal.init(num_cpus=1):
            shoal.get(shoal.remote(say).remote("once"), timeout=TIMEOUT)
            shoal.get(shoal.remote(say).remote("twice"), timeout=TIMEOUT)
            followers = [Follower(None, tail=1), Follower(shoal.nodes()[0])]
            deadline = time.monotonic() + TIMEOUT
            while not all(follower.texts for follower in followers):
                assert time.monotonic() < deadline
                time.sleep(0.02)
    finally:
        shoal.output.set_sink(None)
    for follower in followers:
        follower.join()
    assert [follower.texts for follower in followers] == [["twice"], ["once", "twice"]]


def test_where_there_are_no_executors_there_are_no_logs() -> None:
    with shoal.init(inline=True):
        for ask in (shoal.logs, shoal.stack, lambda: shoal.profile(None)):
            with pytest.raises(shoal.errors.OptionError, match="there are no executors to look at"):
                ask()
