"""Values on their way between Dask and shoal on several machines."""

from __future__ import annotations

import time

import numpy as np
import pytest
from distributed import Client, get_worker

import shoal
from shoal.api import session

LARGE = 500_000


@pytest.fixture(scope="module")
def client(machines):
    with Client(machines.cluster.address, security=session._session.security, set_as_default=False) as client:
        yield client


@shoal.remote
def look_at_store():
    return [found.name for found in session.current.get_owner().store.segments()]


@shoal.remote
def total(array):
    return float(array.sum())


@shoal.remote
def make(n):
    return np.arange(n)


@shoal.remote
def after(path, value):
    while not path.exists():
        time.sleep(0.01)
    return np.full(LARGE, value)


def on(number):
    return {"resources": {f"far-{number}": 0.1}, "num_cpus": 0}


def stores():
    """Return the segments in all stores."""
    far = [shoal.get(look_at_store.options(**on(number)).remote(), timeout=30) for number in range(3)]
    return [*far, [found.name for found in session._session.owner.store.segments()]]


def holder_of(ref):
    shoal.wait([ref], timeout=30)
    return session._session.owner.table.get(ref.id).payload[1]


def test_from_dask_on_another_machine(client, wait_until):
    future = client.submit(np.ones, LARGE, resources={"far-0": 1}, pure=False)
    ref = shoal.from_dask(future)
    shoal.wait([ref], timeout=30)
    assert [len(names) for names in stores()] == [1, 0, 0, 0]
    assert list(client.who_has(future).values()) == [(holder_of(ref),)]
    assert shoal.get(total.options(**on(1)).remote(ref), timeout=30) == LARGE
    assert shoal.get(ref, timeout=30).sum() == LARGE
    assert [len(names) for names in stores()] == [1, 1, 0, 1]
    del ref
    wait_until(lambda: not any(stores()), "release of the value and its copies")


def test_to_dask_on_the_machine_that_has_it(client, wait_until):
    ref = make.options(**on(2)).remote(LARGE)
    holder = holder_of(ref)
    future = ref.to_dask(client)
    look = client.submit(lambda array: (get_worker().address, int(array.sum())), future, pure=False)
    assert look.result(timeout=30) == (holder, LARGE * (LARGE - 1) // 2)
    assert [len(names) for names in stores()] == [0, 0, 1, 0]
    del ref, future, look
    wait_until(lambda: not any(stores()), "release")


def test_to_dask_of_what_is_not_ready_is_fetched(client, wait_until, tmp_path):
    gate = tmp_path / "gate"
    refs = [after.options(**on(n % 3)).remote(gate, n) for n in range(9)]
    futures = [ref.to_dask(client) for ref in refs]
    sums = client.map(lambda array: int(array.sum()), futures, pure=False)
    gate.touch()
    assert client.gather(sums) == [n * LARGE for n in range(9)]
    del refs
    wait_until(lambda: not any(stores()), "release of the values and their copies")
