"""How far a cell is, in a sentence."""

from __future__ import annotations

import pytest

from shoal.observe.cell_progress import FunctionProgress, Progress
from shoal.observe.progress_words import describe, describe_left, describe_seconds


def progress(
    submitted: int, running: int, finished: int, failed: int, cancelled: int = 0, retries: int = 0
) -> Progress:
    row = FunctionProgress(
        "f", submitted, running, finished, failed, cancelled, retries, 10.0 * finished, 100.0 * finished, 10.0
    )
    return Progress("In[3]#x", (row,), 40.0, 3)


def test_what_goes_on() -> None:
    said = describe(progress(40, 3, 11, 1))
    assert said.startswith("In[3]: 11 of 40 done, 3 running, 1 failed, about ") and said.endswith(" left.")


def test_what_is_over() -> None:
    assert describe(progress(3, 0, 1, 1, 1, 2)) == "In[3]: 1 of 3 done, 1 failed, 1 cancelled, 2 retries, in 40.0 s."


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (None, "no estimate yet"),
        ((0.1, 0.5), "about a second left"),
        ((0.2, 4.1), "up to 5 seconds left"),
        ((4.2, 5.0), "about 4 to 5 seconds left"),
        ((5.0, 5.0), "about 5 seconds left"),
        ((21.0, 34.0), "about 20 to 35 seconds left"),
        ((130.0, 230.0), "about 2 to 4 minutes left"),
        ((7_200.0, 9_000.0), "about 2 to 3 hours left"),
    ],
)
def test_estimates_are_rounded_to_what_they_can_promise(left: tuple[float, float] | None, said: str) -> None:
    assert describe_left(left) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.344, "0.34 s"), (12.34, "12.3 s"), (250, "4 min 10 s"), (10_930, "3 h 2 min")]
)
def test_lengths(seconds: float, said: str) -> None:
    assert describe_seconds(seconds) == said
