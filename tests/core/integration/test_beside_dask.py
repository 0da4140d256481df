"""Dask's own work and ours on the same workers."""

from __future__ import annotations

import threading
import time

import dask.array
from distributed import Client, LocalCluster
from distributed.security import Security

import shoal


def test_dask_and_shoal_work_side_by_side():
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            security=Security.temporary(),
            dashboard_address=None,
            protocol="tls://",
        ) as dask_cluster,
        Client(dask_cluster) as client,
        shoal.init(dask_cluster, timeout=30),
    ):

        @shoal.remote
        def square(x):
            time.sleep(0.005)
            return x * x

        refs = [square.remote(i) for i in range(200)]
        total = dask.array.ones((2_000, 2_000), chunks=500).sum()
        assert client.compute(total).result(timeout=60) == 4_000_000
        assert shoal.get(refs, timeout=60) == [i * i for i in range(200)]

        # Dask's own running tasks take their share: with both CPUs busy there, ours waits.
        gates = [client.submit(time.sleep, 2.0, pure=False, workers=[worker]) for worker in client.nthreads()]
        wait_until_running(client, len(gates))
        time.sleep(0.3)
        begin = time.monotonic()
        assert shoal.get(square.remote(3), timeout=60) == 9
        assert time.monotonic() - begin > 0.5
        client.gather(gates)


def wait_until_running(client, count):
    deadline = time.monotonic() + 15
    while sum(len(keys) for keys in client.processing().values()) < count:
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)
