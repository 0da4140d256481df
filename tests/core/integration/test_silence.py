"""Processes that are stopped, so that nothing breaks and nothing comes: nobody waits for them for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest
from distributed import Client, LocalCluster
from distributed.security import Security

import shoal

LIMIT = 3.0


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """Two Dask workers without nannies, and little patience."""
    monkeypatch.setenv("SHOAL_SILENCE", str(LIMIT))
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            security=Security.temporary(),
            dashboard_address=":0",
            protocol="tls://",
        ) as dask_cluster,
        shoal.init(dask_cluster, timeout=30),
    ):
        yield dask_cluster


@shoal.remote
def where() -> tuple[str, int]:
    return shoal.get_runtime_context().node_id, os.getpid()


@shoal.remote(max_restarts=1)
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def pid(self) -> int:
        return os.getpid()

    def node(self) -> str:
        return shoal.get_runtime_context().node_id


def test_a_stopped_node_is_given_up_and_comes_back_as_another(workers, wait_until):
    """Its work is done elsewhere; when it goes on it has no past, and nothing of the old one is left."""
    nodes = {node.id: node for node in shoal.nodes()}
    assert len(nodes) == 2
    counter = Counter.options(scheduling_strategy=shoal.NodeAffinity(next(iter(nodes)), soft=True)).remote()
    node_id, pid = shoal.get([counter.node.remote(), counter.pid.remote()], timeout=30)
    assert node_id in nodes
    address = nodes[node_id].address
    (worker,) = [worker for worker in workers.workers.values() if worker.worker_address == address]
    stopped = psutil.Process(worker.pid)
    stopped.suspend()
    try:
        begin = time.monotonic()
        wait_until(lambda: len(shoal.nodes()) == 1, "the end of the silent node", 20)
        assert time.monotonic() - begin > LIMIT / 2
        assert shoal.get(where.remote(), timeout=30)[0] != node_id
        wait_until(lambda: not psutil.pid_exists(pid), "an end of its executors, though their agent is stopped", 20)
        assert shoal.get(counter.node.remote(), timeout=30) != node_id
    finally:
        stopped.resume()
    wait_until(lambda: len(shoal.nodes()) == 2, "another node in its place", 30)
    assert node_id not in {node.id for node in shoal.nodes()}
    new_id = next(node.id for node in shoal.nodes() if node.id not in nodes)
    there = where.options(scheduling_strategy=shoal.NodeAffinity(new_id)).remote()
    assert shoal.get(there, timeout=30)[0] == new_id


def test_a_node_that_is_heard_again_in_time_has_lost_nothing(workers, wait_until):
    nodes = {node.id: node for node in shoal.nodes()}
    counter = Counter.remote()
    assert shoal.get([counter.add.remote() for _ in range(3)], timeout=30) == [1, 2, 3]
    node_id = shoal.get(counter.node.remote(), timeout=30)
    (worker,) = [w for w in workers.workers.values() if w.worker_address == nodes[node_id].address]
    stopped = psutil.Process(worker.pid)
    stopped.suspend()
    time.sleep(LIMIT / 3)
    stopped.resume()
    assert shoal.get(counter.add.remote(), timeout=30) == 4
    time.sleep(1)
    assert len(shoal.nodes()) == 2
    assert shoal.get([where.remote() for _ in range(4)], timeout=30)


def test_a_stopped_executor_is_ended_and_its_work_done_by_another(monkeypatch, tmp_path):
    monkeypatch.setenv("SHOAL_SILENCE", str(LIMIT))
    runs = tmp_path / "runs"
    runs.touch()

    @shoal.remote
    def stop_once() -> str:
        with open(runs, "a") as file:
            file.write("x")
        if runs.stat().st_size == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        return "done"

    @shoal.remote
    class Stops:
        def stop(self) -> None:
            os.kill(os.getpid(), signal.SIGSTOP)

    with shoal.init(num_cpus=2):
        begin = time.monotonic()
        assert shoal.get(stop_once.remote(), timeout=40) == "done"
        assert time.monotonic() - begin > LIMIT / 2
        with pytest.raises(shoal.errors.ActorDiedError, match="stopped"):
            shoal.get(Stops.remote().stop.remote(), timeout=40)


SCHEDULER = """
import asyncio, sys
from distributed import Scheduler, Worker
async def main():
    async with Scheduler(host="127.0.0.1", port=0, dashboard_address=":0") as scheduler:
        print(scheduler.address, flush=True)
        await asyncio.sleep(300)
asyncio.run(main())
"""


def test_a_stopped_scheduler_is_a_lost_cluster(monkeypatch):
    monkeypatch.setenv("SHOAL_SILENCE", str(LIMIT / 2))
    scheduler = subprocess.Popen([sys.executable, "-c", SCHEDULER], stdout=subprocess.PIPE, text=True)
    worker = None
    try:
        address = scheduler.stdout.readline().strip()
        worker = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny", "--no-dashboard"],
            stderr=subprocess.DEVNULL,
        )
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=30)
        with pytest.warns(UserWarning, match="no TLS"):
            shoal.init(address, timeout=30)
        assert shoal.get(where.remote(), timeout=30)
        scheduler.send_signal(signal.SIGSTOP)
        waiting = where.options(memory=1_000).remote()
        with pytest.raises(shoal.errors.ClusterLostError, match="lost"):
            shoal.get(waiting, timeout=40)
    finally:
        shoal.shutdown()
        scheduler.kill()
        scheduler.communicate()
        if worker is not None:
            worker.kill()
            worker.wait()
