"""Before a node's memory is full one process ends, and whoever used it learns which, and why."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import shoal

#: What executors and store of the node may use together: the rest of the machine has nothing to do with it.
LIMIT = 500_000_000
CHUNK = 20_000_000
#: A task that nobody ends stops growing by itself.
MOST = 40


@pytest.fixture(scope="module")
def narrow() -> Iterator[shoal.Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOAL_MEMORY_LIMIT", str(LIMIT))
        with shoal.init(num_cpus=3) as joined:
            yield joined


def grow(most: int = MOST) -> int:
    kept = []
    for _ in range(most):
        kept.append(np.ones(CHUNK, np.uint8))
        time.sleep(0.02)
    return len(kept)


@pytest.fixture
def runs(tmp_path: Path):
    path = tmp_path / "runs"
    path.touch()

    def note() -> int:
        with path.open("a") as file:
            file.write("x")
        return path.stat().st_size

    return note


def test_a_task_that_grows_without_end_is_named_and_nobody_else_is_harmed(narrow):
    @shoal.remote(max_retries=0)
    def hungry():
        return grow()

    @shoal.remote
    class Counter:
        def __init__(self):
            self.count = 0

        def add(self):
            self.count += 1
            return self.count

    @shoal.remote(max_retries=0)
    def small():
        time.sleep(1.0)
        return "done"

    counter = Counter.remote()
    assert shoal.get(counter.add.remote(), timeout=30) == 1
    bystander = small.remote()
    ref = hungry.remote()
    with pytest.raises(shoal.errors.OutOfMemoryError) as caught:
        shoal.get(ref, timeout=60)
    error = caught.value
    assert isinstance(error, MemoryError | shoal.errors.ExecutorCrashedError)
    text = str(error)
    assert text.startswith("`") and "hungry` was ended: the memory that `SHOAL_MEMORY_LIMIT` gives the node" in text
    assert "it used most: " in text and "memory=" in text and "no retries left" in text
    assert error.limit == LIMIT
    assert 0.3 * LIMIT < error.used < 1.5 * LIMIT and error.used <= error.node_used
    assert error.task_id and error.cell is None
    assert shoal.get(bystander, timeout=30) == "done"
    assert shoal.get(counter.add.remote(), timeout=30) == 2, "the same actor"


def test_its_retries_are_used(narrow, runs):
    @shoal.remote(max_retries=2)
    def hungry_at_first():
        return grow() if runs() < 3 else "done"

    assert shoal.get(hungry_at_first.remote(), timeout=60) == "done"
    assert runs() == 4


def test_what_a_task_starts_counts_as_its(narrow):
    code = f"import time; kept = [b'x' * {CHUNK} for _ in range({MOST})]; time.sleep(20)"

    @shoal.remote(max_retries=0)
    def starts_another():
        return subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode

    with pytest.raises(shoal.errors.OutOfMemoryError, match="starts_another"):
        shoal.get(starts_another.remote(), timeout=60)


def test_an_actor_that_grows_says_so_and_may_start_afresh(narrow):
    class Hungry:
        def grow(self):
            return grow()

        def ping(self):
            return "here"

    once = shoal.remote(Hungry).remote()
    with pytest.raises(shoal.errors.ActorDiedError, match=r"nearly full .*\(with `memory=`"):
        shoal.get(once.grow.remote(), timeout=60)
    again = shoal.remote(max_restarts=1)(Hungry).remote()
    with pytest.raises(shoal.errors.ActorUnavailableError, match="nearly full"):
        shoal.get(again.grow.remote(), timeout=60)
    assert shoal.get(again.ping.remote(), timeout=60) == "here"


def test_tasks_that_fit_one_by_one_all_end(narrow):
    @shoal.remote(max_retries=20)
    def fits_alone():
        return grow(12)  # 240 MB: two of them fit, three do not

    assert shoal.get([fits_alone.remote() for _ in range(6)], timeout=110) == [12] * 6


def test_values_in_the_store_are_nobodys_fault(narrow):
    refs = [shoal.put(np.ones(LIMIT // 4, np.uint8)) for _ in range(5)]

    @shoal.remote(max_retries=0)
    def total(array):
        time.sleep(1.0)  # several looks
        return int(array[:10].sum())

    assert shoal.get([total.remote(ref) for ref in refs], timeout=60) == [10] * 5
