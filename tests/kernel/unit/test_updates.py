"""When changing output is drawn."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from shoal_kernel.updates import INTERVAL, RATE, Updater

TIMEOUT = 20.0


class Output:
    """Notes how and when it is drawn; ``saved`` is set when it is drawn in the form that lasts."""

    def __init__(self, nbytes: int = 0) -> None:
        self.nbytes = nbytes
        self.draws: list[tuple[float, bool]] = []
        self.drawn, self.saved = threading.Semaphore(0), threading.Event()

    def draw(self, saved: bool) -> int:
        self.draws.append((time.monotonic(), saved))
        self.drawn.release()
        if saved:
            self.saved.set()
        return self.nbytes


@pytest.fixture
def updater() -> Iterator[Updater]:
    updater = Updater(threading.RLock())
    yield updater
    updater.stop()


def test_a_change_is_drawn_and_then_what_lasts(updater: Updater) -> None:
    output = Output()
    updater.touch(output)
    assert output.saved.wait(TIMEOUT)
    assert [saved for _, saved in output.draws] == [False, True]


@pytest.mark.parametrize(("nbytes", "seconds"), [(0, INTERVAL), (RATE // 2, 0.5)])
def test_updates_keep_their_distance(updater: Updater, nbytes: int, seconds: float) -> None:
    output = Output(nbytes)
    for _ in range(3):
        updater.touch(output)
        updater.touch(output)
        assert output.drawn.acquire(timeout=TIMEOUT)
    times = [moment for moment, _ in output.draws]
    assert all(later - earlier >= seconds for earlier, later in itertools.pairwise(times))


def test_what_fails_to_draw_stops_nothing_else(updater: Updater, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Output):
        def draw(self, saved: bool) -> int:
            raise ValueError("no")

    broken, output = Broken(), Output()
    with caplog.at_level(logging.ERROR, "shoal"):
        updater.touch(broken)
        updater.touch(output)
        assert output.saved.wait(TIMEOUT)
    assert "cannot be drawn" in caplog.text


def test_the_end_draws_what_is_due(updater: Updater) -> None:
    output = Output()
    updater.touch(output)
    assert output.drawn.acquire(timeout=TIMEOUT)
    updater.touch(output)
    updater.stop()
    assert output.draws[-1][1]
    updater.touch(output)
    assert not [thread for thread in threading.enumerate() if thread.name == "shoal-output"]
