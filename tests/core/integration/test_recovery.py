"""Values whose node is gone are made again; those that cannot be say why."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from distributed import LocalCluster
from distributed.security import Security

import shoal
from shoal.api import session

NBYTES = 400_000


@pytest.fixture
def nodes() -> Iterator[object]:
    """Two nodes, and a function that kills the one where an object lies; Dask starts another in its place."""
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            security=Security.temporary(),
            dashboard_address=":0",
            protocol="tls://",
        ) as dask_cluster,
        shoal.init(dask_cluster, timeout=30),
    ):

        def kill_node_of(ref: shoal.ObjectRef) -> None:
            shoal.wait([ref], timeout=30)
            payload = session._session.owner.table.get(ref.id).payload
            assert payload[0] == "s", "a value in a store"
            directory = Path(payload[2]).parent.parent
            deadline = time.monotonic() + 15
            (worker,) = [w for w in dask_cluster.workers.values() if w.worker_address == payload[1]]
            while worker.pid is None:  # its nanny has not noticed that it is up
                assert time.monotonic() < deadline
                time.sleep(0.02)
            os.kill(worker.pid, signal.SIGKILL)
            while directory.exists():
                assert time.monotonic() < deadline, "the template removes the store"
                time.sleep(0.02)

        yield kill_node_of


@pytest.fixture
def runs(tmp_path: Path):
    """Return a function that notes that a task ran, and one that counts."""
    path = tmp_path / "runs"
    path.touch()

    def note(what: str) -> None:
        with open(path, "a") as file:
            file.write(what + "\n")

    return note, lambda what: path.read_text().split().count(what)


def test_a_lost_value_is_made_again(nodes, runs):
    note, count = runs

    @shoal.remote
    def make(value):
        note("make")
        return np.full(NBYTES, value, np.uint8)

    ref = make.remote(7)
    nodes(ref)
    assert set(np.unique(shoal.get(ref, timeout=60))) == {7}
    assert count("make") == 2


def test_so_is_what_it_was_made_from_though_nobody_holds_that_any_more(nodes, runs, wait_until):
    note, count = runs

    @shoal.remote
    def make(value):
        note("make")
        return np.full(NBYTES, value, np.uint8)

    @shoal.remote
    def double(array):
        note("double")
        return array * 2

    ref = double.remote(double.remote(make.remote(3)))
    nodes(ref)
    assert shoal.get(ref, timeout=60)[0] == 12
    assert count("double") >= 3
    wait_until(lambda: session._session.owner.num_objects() == 1, "release of what was made in between")


def test_so_are_values_that_its_arguments_had_refs_to(nodes, runs, wait_until):
    note, count = runs

    @shoal.remote
    def make(value):
        note("make")
        return np.full(NBYTES, value, np.uint8)

    @shoal.remote
    def small(value):
        return value

    @shoal.remote
    def total(refs, box):
        note("total")
        parts = shoal.get([*refs, *shoal.get(box["more"])])
        return np.full(NBYTES, sum(int(np.max(part)) for part in parts), np.uint8)

    box = {"more": shoal.put([make.remote(1), small.remote(2)])}
    ref = total.remote([make.remote(3), small.remote(4)], box)
    nodes(ref)
    del box
    wait_until(lambda: session._session.owner.num_objects() == 1, "release of all but the result")
    assert shoal.get(ref, timeout=60)[0] == 10
    assert (count("total"), count("make")) == (2, 4)
    wait_until(lambda: session._session.owner.num_objects() == 1, "release of what was made in between")


def test_a_task_whose_argument_is_lost_waits_for_it(nodes, runs):
    note, count = runs

    @shoal.remote
    def make(value):
        note("make")
        return np.full(NBYTES, value, np.uint8)

    @shoal.remote(max_retries=0)
    def first(array):
        note("first")
        return int(array[0])

    @shoal.remote(max_restarts=-1, max_task_retries=-1)
    class Reader:
        def first(self, array):
            return int(array[0])

    ref = make.remote(9)
    nodes(ref)
    assert shoal.get([first.remote(ref), Reader.remote().first.remote(ref)], timeout=60) == [9, 9]
    assert count("first") == 1, "it began once"


def test_a_call_whose_argument_is_lost_before_it_can_leave_waits_for_it(nodes, tmp_path, runs, wait_until):
    note, count = runs
    lives, made = tmp_path / "lives", tmp_path / "made"

    @shoal.remote
    def make():
        note("make")
        while count("make") > 1 and not made.exists():
            time.sleep(0.01)
        return np.full(NBYTES, 9, np.uint8)

    @shoal.remote(max_restarts=-1, max_task_retries=-1)
    class Reader:
        def __init__(self):
            while not lives.exists():
                time.sleep(0.01)

        def first(self, array):
            note("first")
            return int(array[0])

    ref = make.remote()
    shoal.wait([ref], timeout=30)
    first = Reader.remote().first.remote(ref)  # has all it needs, but for an actor that lives
    nodes(ref)
    with pytest.raises(TimeoutError):
        shoal.get(ref, timeout=1.0)
    wait_until(lambda: count("make") == 2, "the value is being made again")
    lives.touch()
    assert shoal.wait([first], timeout=1.0) == ([], [first])
    made.touch()
    assert shoal.get(first, timeout=60) == 9
    assert count("first") == 1


def test_an_actor_starts_afresh_with_arguments_that_are_made_again(nodes, runs):
    note, count = runs

    @shoal.remote
    def make():
        note("make")
        return np.full(NBYTES, 9, np.uint8)

    @shoal.remote(max_restarts=-1, max_task_retries=-1)
    class Reader:
        def __init__(self, array):
            self.array = array

        def first(self):
            return int(self.array[0])

    ref = make.remote()
    reader = Reader.remote(ref)
    assert shoal.get(reader.first.remote(), timeout=60) == 9
    nodes(ref)
    del ref
    shoal.kill(reader, no_restart=False)
    assert shoal.get(reader.first.remote(), timeout=60) == 9
    assert count("make") == 2
    shoal.kill(reader, no_restart=False)
    assert shoal.get(reader.first.remote(), timeout=60) == 9
    assert count("make") == 2, "the value is there"


def test_a_borrower_asks_the_owner(nodes):
    @shoal.remote
    def make(value):
        return np.full(NBYTES, value, np.uint8)

    @shoal.remote
    def open_it(box):
        return int(shoal.get(box[0])[0])

    ref = make.remote(5)
    nodes(ref)
    assert shoal.get(open_it.remote([ref]), timeout=60) == 5


def test_several_returns_and_generators_are_made_again(nodes, runs):
    note, count = runs

    @shoal.remote(num_returns=2)
    def pair():
        note("pair")
        return np.full(NBYTES, 1, np.uint8), np.full(NBYTES, 2, np.uint8)

    @shoal.remote(num_returns="streaming", max_pending=1)
    def stream():
        note("stream")
        for value in range(4):
            yield np.full(NBYTES, value, np.uint8)

    one, two = pair.remote()
    nodes(one)
    assert [shoal.get(ref, timeout=60)[0] for ref in (one, two)] == [1, 2]
    assert count("pair") == 2
    refs = list(stream.remote())
    nodes(refs[2])
    assert [shoal.get(ref, timeout=60)[0] for ref in refs] == [0, 1, 2, 3]
    assert count("stream") == 2


def test_what_cannot_be_made_again_says_why(nodes):
    big = np.ones(NBYTES, np.uint8)

    @shoal.remote(max_retries=0)
    def once():
        return big + 1

    @shoal.remote
    def of_large(array):
        return array + 1

    @shoal.remote
    class Maker:
        def make(self):
            return big + 2

    for make, why in (
        (once.remote, "max_retries=0"),
        (lambda: of_large.remote(big), "large arguments"),
        (lambda: Maker.remote().make.remote(), "made by an actor"),
    ):
        ref = make()
        nodes(ref)
        with pytest.raises(shoal.errors.ObjectLostError, match=f"cannot be made again: .*{why}"):
            shoal.get(ref, timeout=60)
        with pytest.raises(shoal.errors.ObjectLostError, match=why):
            shoal.get(of_large.remote(ref), timeout=60)


def test_what_was_put_on_a_node_that_is_gone_says_so(nodes):
    ref = shoal.put(np.ones(NBYTES, np.uint8))

    @shoal.remote
    def total(array):
        return int(array.sum())

    result = total.remote(ref)
    shoal.wait([result], timeout=30)
    nodes(ref)
    with pytest.raises(shoal.errors.ObjectLostError, match="stored with `put`"):
        shoal.get(ref, timeout=60)
    assert shoal.get(result, timeout=60) == NBYTES
    # The driver stores what comes next where there is a node.
    assert shoal.get(total.remote(shoal.put(np.ones(NBYTES, np.uint8))), timeout=60) == NBYTES


def test_a_value_is_made_again_as_often_as_its_task_may_be_retried(nodes, runs):
    note, count = runs

    @shoal.remote(max_retries=1)
    def make():
        note("make")
        return np.ones(NBYTES, np.uint8)

    ref = make.remote()
    nodes(ref)
    assert shoal.get(ref, timeout=60).sum() == NBYTES
    nodes(ref)
    with pytest.raises(shoal.errors.ObjectLostError, match="retries"):
        shoal.get(ref, timeout=60)
    assert count("make") == 2


def test_a_get_with_a_timeout_is_not_held_up(nodes, runs):
    note, count = runs

    @shoal.remote
    def make():
        note("make")
        time.sleep(3 if count("make") > 1 else 0)
        return np.ones(NBYTES, np.uint8)

    ref = make.remote()
    nodes(ref)
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        shoal.get(ref, timeout=0.5)
    assert time.monotonic() - begin < 2.5
    assert shoal.get(ref, timeout=60).sum() == NBYTES
