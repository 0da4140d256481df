"""Work as cells of a notebook cause it, for tests of what is told of it."""

from __future__ import annotations

import pytest

import shoal

TIMEOUT = 30.0


@shoal.remote
def double(x):
    return 2 * x


@shoal.remote(max_retries=0)
def fail(what):
    raise ValueError(f"not {what}\nand more")


@shoal.remote
def nested(count):
    return sum(shoal.get([double.remote(number) for number in range(count)]))


@shoal.remote
def stuck(path):
    path.open().read()


@shoal.remote
class Counter:
    def add(self, x):
        return x


def run_cells(tag: str) -> None:
    """Have a cell run ten tasks, a failing one, and one with three nested ones."""
    done = [double.options(cell=tag).remote(number) for number in range(10)]
    failed = fail.options(cell=tag).remote("now")
    assert shoal.get(nested.options(cell=tag).remote(3), timeout=TIMEOUT) == 6
    shoal.get(done, timeout=TIMEOUT)
    with pytest.raises(ValueError, match="not now"):
        shoal.get(failed, timeout=TIMEOUT)
