"""The line to Dask begins with its first use and ends with the session; some sessions have none."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster
from distributed.security import Security

import shoal
from shoal.api import session

#: Numbers in an array that is stored, not sent.
LARGE = 500_000


def segments_of(owner_id):
    """Return the segments of a driver's in all stores of this machine."""
    found = Path(os.environ["SHOAL_STORE_DIR"]).glob(f"shoal-*/**/{owner_id}.*")
    return {str(path) for path in found if path.parent.name not in ("leaving", "warm", "drafts")}


@shoal.remote
def after(path, value):
    while not path.exists():
        time.sleep(0.01)
    return value


@shoal.remote
def array_of(n):
    return np.arange(n)


def ones():
    return np.ones(LARGE)


def dask_threads():
    return {thread.name for thread in threading.enumerate() if thread.name != "MainThread"} - {"Dask-Offload_0"}


def test_the_client_ends_with_the_session(tmp_path):
    before = dask_threads()
    with shoal.init(num_cpus=1):
        ref = shoal.put(1)
        waiting = after.remote(tmp_path / "gate", 1).to_dask()
        assert ref.to_dask().result(timeout=30) == 1
        pending = shoal.from_dask(waiting)
        client = waiting.client
        assert client.status == "running"
        # the default client is none of its business
        with pytest.raises(ValueError, match="No clients"):
            Client.current()
    assert client.status == "closed" and waiting.status == "cancelled"
    assert dask_threads() == before
    with pytest.raises(shoal.errors.NotInitializedError, match="has ended"):
        ref.to_dask()
    with pytest.raises(shoal.errors.NotInitializedError, match=r"has ended|shut down"):
        shoal.get(pending)
    with shoal.init(num_cpus=1):
        assert shoal.put(2).to_dask().result(timeout=30) == 2
    assert dask_threads() == before


def test_a_script_that_just_ends(tmp_path):
    code = (
        "import dask.array, numpy as np, shoal\n"
        "shoal.init(num_cpus=1)\n"
        "refs = shoal.from_dask(dask.array.arange(10, chunks=5))\n"
        "print(shoal.get(shoal.put(7).to_dask().result() and refs)[1].sum())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=dict(os.environ)
    )
    assert done.stdout.split() == ["35"] and done.stderr == "" and done.returncode == 0, done


def test_importing_shoal_does_not_import_dask():
    code = "import sys, shoal; print([name for name in ('dask', 'distributed') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


DRIVER = """
import os, sys, time
import numpy as np
import dask
import shoal
shoal.init(sys.argv[1], timeout=30)
def late(path):
    while not os.path.exists(path):
        time.sleep(0.01)
    open(path + "-passed", "w").close()
    return np.ones(500_000)
refs = shoal.from_dask([dask.delayed(np.arange)(500_000) for _ in range(3)])
shoal.wait(refs, num_returns=3, timeout=30)
under_way = shoal.from_dask(dask.delayed(late)(sys.argv[2]))
print(refs[0]._owner.owner_id, flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def plain_cluster():
    with LocalCluster(n_workers=2, threads_per_worker=1, protocol="tcp://", dashboard_address=":0") as dask_cluster:
        yield dask_cluster


def test_what_a_killed_driver_had_from_dask_goes(plain_cluster, wait_until, tmp_path):
    gate = tmp_path / "gate"
    driver = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", DRIVER, plain_cluster.scheduler_address, str(gate)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with driver:
        owner_id = driver.stdout.readline().strip()
        assert len(segments_of(owner_id)) == 3
        driver.send_signal(signal.SIGKILL)
    wait_until(lambda: not segments_of(owner_id), "removal")
    gate.touch()  # what Dask was at when the driver ended is done now, or was never begun
    with Client(plain_cluster, set_as_default=False) as client:
        wait_until(lambda: not any(client.processing().values()), "the end of Dask's work")
        wait_until(lambda: not segments_of(owner_id), "removal")


@pytest.mark.filterwarnings("ignore:The cluster at:UserWarning")
def test_an_asynchronous_client(plain_cluster):
    async def run():
        async with Client(plain_cluster.scheduler_address, asynchronous=True, set_as_default=False) as client:
            ref = shoal.from_dask(client.submit(ones))
            assert (await asyncio.wait_for(ref, 30)).sum() == LARGE
            assert (await asyncio.wait_for(ref.to_dask(client).result(), 30)).sum() == LARGE
            under_way = shoal.from_dask(client.submit(asyncio.sleep, 300))
        with pytest.raises(shoal.errors.TaskCancelledError):
            await asyncio.wait_for(under_way, 30)

    with shoal.init(plain_cluster.scheduler_address, timeout=30):
        asyncio.run(run())


@pytest.mark.filterwarnings("ignore:The cluster at:UserWarning")
def test_a_client_that_is_closed_meanwhile(plain_cluster):
    with shoal.init(plain_cluster, timeout=30):
        with Client(plain_cluster, set_as_default=False) as client:
            ref = shoal.from_dask(client.submit(asyncio.sleep, 300))
            held = after.remote(Path("/nowhere"), 1)
            future = held.to_dask(client)
        with pytest.raises(shoal.errors.TaskCancelledError):
            shoal.get(ref, timeout=30)
        assert future.status == "cancelled"
        shoal.cancel(held)


@pytest.fixture
def two_nodes():
    """A cluster of two nodes, a Dask client, and a function that kills the node where an object lies."""
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            security=Security.temporary(),
            dashboard_address=":0",
            protocol="tls://",
        ) as dask_cluster,
        Client(dask_cluster, set_as_default=False) as client,
        shoal.init(dask_cluster, timeout=30),
    ):

        def kill_node_of(ref):
            shoal.wait([ref], timeout=30)
            _, holder, path, _ = session._session.owner.table.get(ref.id).payload
            pid = client.run(os.getpid, workers=[holder])[holder]
            store = Path(path).parent.parent
            os.kill(pid, signal.SIGKILL)
            deadline = time.monotonic() + 15
            while store.exists():
                assert time.monotonic() < deadline, "the template removes the store"
                time.sleep(0.02)

        yield client, kill_node_of


def test_what_a_lost_node_had(two_nodes):
    client, kill_node_of = two_nodes
    ref = array_of.options(max_retries=2).remote(LARGE)
    kill_node_of(ref)
    assert ref.to_dask(client).result(timeout=60)[-1] == LARGE - 1  # made again
    future = client.submit(np.ones, LARGE)
    ref = shoal.from_dask(future)
    kill_node_of(ref)
    with pytest.raises(shoal.errors.ObjectLostError, match="Dask made it"):
        shoal.get(ref, timeout=60)
    # Dask makes again what it has lost
    assert shoal.get(shoal.from_dask(future), timeout=60).sum() == LARGE


def test_without_a_cluster():
    with shoal.init(inline=True):
        array = da.arange(6, chunks=3)
        assert [block.tolist() for block in shoal.get(shoal.from_dask(array))] == [[0, 1, 2], [3, 4, 5]]
        bag = db.from_sequence(range(4), npartitions=2).map_partitions(lambda part: (x for x in part))
        assert shoal.get(shoal.from_dask(bag)) == [[0, 1], [2, 3]]
        frame = dd.from_pandas(pd.DataFrame({"x": range(10)}), npartitions=2)
        assert sum(len(part) for part in shoal.get(shoal.from_dask(frame))) == 10
        refs = shoal.from_dask([dask.delayed(pow)(2, 3), dask.delayed(divmod)(1, 0)])
        for ref in refs:
            with pytest.raises(ZeroDivisionError):
                shoal.get(ref)
        with pytest.raises(TypeError, match="from_dask"):
            shoal.from_dask(1)
        with pytest.raises(shoal.errors.NotInitializedError, match=r"no(ne)? .*shoal\.get|there is none"):
            shoal.put(1).to_dask()
        with (
            LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as dask_cluster,
            Client(dask_cluster, set_as_default=False) as client,
        ):
            future = client.submit(pow, 2, 3)
            assert shoal.get(shoal.from_dask(future)) == 8
            assert shoal.get(shoal.from_dask(client.persist(array)))[1].tolist() == [3, 4, 5]
            assert shoal.get(shoal.from_dask([future, dask.delayed(pow)(3, 2)])) == [8, 9]
