"""What ``shoal.progress`` counts of a cell's work: on real clusters, exactly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import shoal
from shoal.api.progress import progress
from shoal.errors import OptionError

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def cell(request: pytest.FixtureRequest) -> Iterator[str]:
    """The tag of a cell that runs during the test."""
    tag = shoal.output.make_cell_tag("In[7]", request.node.name)
    shoal.output.set_cell_source(lambda: tag)
    yield tag
    shoal.output.set_cell_source(None)


@shoal.remote
def double(x: int) -> int:
    return 2 * x


@shoal.remote
def fail() -> None:
    raise ValueError("on purpose")


@shoal.remote(max_retries=2)
def die_once(path: str) -> str:
    if not os.path.exists(path):
        Path(path).touch()
        os._exit(1)
    return "alive"


@shoal.remote
class Counter:
    def __init__(self) -> None:
        self.n = 0

    def add(self) -> int:
        self.n += 1
        return self.n


def rows(cell: str) -> dict[str, tuple[int, int, int, int]]:
    return {r.name: (r.submitted, r.finished, r.failed, r.cancelled) for r in progress(cell).look().functions}


def test_tasks_and_calls_are_counted_by_function(cell: str) -> None:
    counter = Counter.remote()
    refs = [double.remote(i) for i in range(2_000)] + [counter.add.remote() for _ in range(500)]
    failing = [fail.remote() for _ in range(3)]
    shoal.get(refs)
    shoal.wait(failing, num_returns=3)
    counts = rows(cell)
    assert counts["double"] == (2_000, 2_000, 0, 0)
    assert counts["Counter.add"] == (500, 500, 0, 0)
    assert counts["Counter.__init__"] == (1, 1, 0, 0)
    assert counts["fail"] == (3, 0, 3, 0)
    seen = progress(cell).look()
    assert seen.pending == 0 and seen.running == 0 and seen.seconds > 0 and seen.num_lanes >= 1
    assert progress(cell).failures() == [("fail", "ValueError: on purpose")] * 3
    assert sum(slice_.ended for slice_ in progress(cell).timeline.slices()) == 2_504


def test_a_lost_task_counts_a_retry(cell: str, tmp_path: Path) -> None:
    assert shoal.get(die_once.remote(str(tmp_path / "died"))) == "alive"
    seen = progress(cell).look()
    assert (seen.submitted, seen.finished, seen.failed, seen.retries) == (1, 1, 0, 1)


def test_work_can_be_cancelled_by_cell(cell: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    @shoal.remote
    def wait_at(path: str) -> None:
        Path(path).read_text()

    refs = [wait_at.remote(str(gate)) for _ in range(4)]
    shoal.output.set_cell_source(lambda: "In[8]#other")
    other = double.remote(1)
    progress(cell).cancel()
    shoal.wait(refs, num_returns=4, timeout=20)
    assert rows(cell) == {"wait_at": (4, 0, 0, 4)}
    assert progress(cell).failures() == []
    assert shoal.get(other) == 2


def test_a_cell_is_found_by_its_name(cell: str) -> None:
    shoal.get(double.remote(1))
    assert progress("In[7]").cell == progress().cell == cell
    assert repr(progress()).startswith("In[7]: 1 of 1 done, in ")
    with pytest.raises(OptionError, match="`In\\[99\\]` has not submitted any work"):
        progress("In[99]")
