"""``shoal.progress`` of work that runs here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import shoal
from shoal.api.progress import CellProgress, progress, watch_work
from shoal.errors import NotInitializedError

CELL = "In[7]#x"


@pytest.fixture
def inline() -> Iterator[None]:
    shoal.output.set_cell_source(lambda: CELL)
    with shoal.init(inline=True):
        yield
    shoal.output.set_cell_source(None)
    watch_work(None)


@shoal.remote
def double(x: int) -> int:
    return 2 * x


@pytest.mark.usefixtures("inline")
def test_inline_work_is_counted() -> None:
    assert shoal.get([double.remote(1), double.remote(2)]) == [2, 4]
    seen = progress().look()
    assert (seen.cell, seen.submitted, seen.finished, seen.pending) == (CELL, 2, 2, 0)


@pytest.mark.usefixtures("inline")
def test_a_watcher_is_told_again_when_it_no_longer_looks() -> None:
    told: list[CellProgress] = []
    watch_work(told.append)
    double.remote(1)
    double.remote(2)
    assert [cell.cell for cell in told] == [CELL]
    assert told[0].unwatch()
    double.remote(3)
    assert len(told) == 2


def test_without_a_cluster_there_is_nothing_to_count() -> None:
    with pytest.raises(NotInitializedError):
        progress()
