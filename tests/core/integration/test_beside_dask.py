"""Dask's own work and ours on the same workers."""

from __future__ import annotations

import time

import dask.array
import dask.dataframe
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from distributed.security import Security

import shoal


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            security=Security.temporary(),
            dashboard_address=":0",
            protocol="tls://",
        ) as dask_cluster,
        Client(dask_cluster) as client,
        shoal.init(dask_cluster, timeout=30),
    ):
        yield client


@shoal.remote
def square(x):
    time.sleep(0.005)
    return x * x


def wait_for(path):
    while not path.exists():
        time.sleep(0.01)


def test_collections_and_tasks_side_by_side(client):
    refs = [square.remote(i) for i in range(200)]
    total = dask.array.ones((2_000, 2_000), chunks=500).sum()
    table = dask.dataframe.from_pandas(pd.DataFrame({"key": [i % 3 for i in range(999)], "value": 1}), npartitions=6)
    sums = table.groupby("key").value.sum()
    assert client.compute(total).result(timeout=60) == 4_000_000
    assert client.compute(sums).result(timeout=60).to_dict() == {0: 333, 1: 333, 2: 333}
    assert shoal.get(refs, timeout=60) == [i * i for i in range(200)]


def test_our_work_waits_while_dask_has_all_cpus(client, tmp_path, wait_until):
    # Leases kept warm from before hold CPUs as well: with them gone, what is missing is Dask's.
    wait_until(lambda: shoal.available_resources()["num_cpus"] == 2, "every lease went back")
    door = tmp_path / "door"
    gates = [client.submit(wait_for, door, pure=False, workers=[worker]) for worker in client.nthreads()]
    try:
        wait_until(lambda: shoal.available_resources()["num_cpus"] == 0, "Dask's tasks were seen")
        ref = square.remote(3)
        assert shoal.wait([ref], timeout=0.5) == ([], [ref])
        answer = shoal.why(ref)
        assert answer.state == "needs resources" and "Dask's own tasks" in str(answer)
    finally:
        door.touch()
    client.gather(gates)
    assert shoal.get(ref, timeout=30) == 9
