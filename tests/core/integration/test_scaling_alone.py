"""More nodes and fewer of clusters that are like no other, or that end."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys

import psutil
import pytest
from distributed import LocalCluster, Nanny, Scheduler, SpecCluster, Worker
from distributed.deploy.spec import ProcessInterface
from distributed.security import Security
from scaled_work import Counter

import shoal
from shoal.launch.scaling import HeadNodes
from shoal.runtime.agent_plugin import AgentPlugin
from shoal.runtime.controller_plugin import ControllerPlugin

DRIVER = """
import sys, time
import numpy as np
import shoal

cluster = shoal.init(num_cpus=1)
assert cluster.scale(3) == 3

@shoal.remote
def make():
    time.sleep(0.5)
    return np.ones(500_000)

refs = [make.remote() for _ in range(6)]
shoal.wait(refs, num_returns=6)
forever = [shoal.remote(lambda: time.sleep(600)).remote() for _ in range(3)]
assert len(shoal.memory().objects) >= 6
print("ready", flush=True)
sys.stdin.readline()
"""


def test_further_nodes_have_cpus_and_labels_but_not_what_there_is_once():
    with shoal.init(num_cpus=2, num_gpus=1, resources={"licence": 1}, labels={"zone": "a"}) as cluster:
        cluster.scale(2)
        first, second = sorted(shoal.nodes(), key=lambda node: "licence" not in node.total)
        assert first.total["num_gpus"] == 1 and "num_gpus" not in second.total
        assert second.total["num_cpus"] == 2 and "licence" not in second.total
        assert second.labels["zone"] == "a"


def test_an_inline_session_has_nothing_to_scale():
    with shoal.init(inline=True) as cluster, pytest.raises(shoal.errors.OptionError, match="Nothing here can scale"):
        cluster.scale(2)


def test_an_ended_cluster_cannot_be_scaled():
    cluster = shoal.init(num_cpus=1)
    shoal.shutdown()
    with pytest.raises(shoal.errors.NotInitializedError):
        cluster.scale(2)


class Ill(AgentPlugin):
    async def setup(self, worker: Worker) -> None:
        raise PermissionError("no place for a store")


class Stubborn(Worker):
    """Cannot hand on what it has."""

    async def close_gracefully(self, *args, **kwargs):
        raise OSError("nobody takes it")


class Hopeless(Stubborn):
    """Does not even end, at first."""

    attempts = 0

    async def close(self, *args, **kwargs):
        self.attempts += 1
        if self.attempts == 1:
            raise OSError("it hangs on")
        return await super().close(*args, **kwargs)


def scaled_in_a_head(kinds: list[tuple[type[Worker], type[AgentPlugin]]], *numbers: int, timeout: float = 60.0):
    """Return what a head with such further nodes answers when it is scaled to each of *numbers* in turn."""

    async def be_the_head():
        settings = {"host": "127.0.0.1", "protocol": "tcp://", "dashboard_address": "127.0.0.1:0"}
        async with Scheduler(port=0, **settings) as scheduler:
            controller_plugin = ControllerPlugin("cluster-of-a-test", "test")
            await scheduler.register_scheduler_plugin(controller_plugin, idempotent=True)
            to_come = iter(kinds)

            def make_worker():
                worker_class, plugin_class = next(to_come)
                plugin = plugin_class()
                return worker_class(scheduler.address, nthreads=1, plugins=(plugin,), **settings), plugin

            nodes = HeadNodes(controller_plugin.controller, make_worker)
            answers = [await nodes.scale(number, timeout, False) for number in numbers]
            await nodes.close()
            assert not scheduler.workers
            return answers

    return asyncio.run(be_the_head())


def test_a_node_that_does_not_start_costs_the_others_nothing(caplog):
    kinds = [(Worker, AgentPlugin), (Worker, Ill), (Worker, Ill)]
    (answer,) = scaled_in_a_head(kinds, 4)
    assert answer == {
        "num_nodes": 2,
        "kept": [],
        "failed": "2 of 3 nodes could not be started: PermissionError: no place for a store.",
    }


def test_nodes_that_are_not_up_in_time_are_not_waited_for():
    answers = scaled_in_a_head([(Worker, AgentPlugin)], 2, timeout=0.001)
    assert answers[0]["failed"] == "1 of 1 node could not be started: TimeoutError: not up within 0.001 s."
    assert answers[0]["num_nodes"] == 1


def test_a_node_that_does_not_end_costs_the_others_nothing(caplog):
    kinds = [(Worker, AgentPlugin), (Hopeless, AgentPlugin), (Stubborn, AgentPlugin)]
    up, down, again = scaled_in_a_head(kinds, 4, 1, 1)
    assert up == {"num_nodes": 4, "kept": []}
    assert down == {
        "num_nodes": 2,
        "kept": [],
        "failed": "1 of 3 nodes could not be ended: OSError: it hangs on.",
    }
    assert again == {"num_nodes": 1, "kept": []}, "the next attempt"
    assert "without handing on what Dask has there: OSError: nobody takes it" in caplog.text


class Job(ProcessInterface):
    """What a batch system starts: several workers, which end together."""

    def __init__(self, scheduler, name=None, security=None, group=()):
        super().__init__(scheduler=scheduler, name=name)
        self._workers = [
            Nanny(
                scheduler,
                name=f"{name}{suffix}",
                nthreads=1,
                security=security,
                protocol="tls://",
                dashboard_address=":0",
            )
            for suffix in group
        ]

    async def start(self):
        await asyncio.gather(*self._workers)
        await super().start()

    async def close(self):
        await asyncio.gather(*(worker.close() for worker in self._workers))
        await super().close()


def test_workers_of_one_job_leave_together():
    security = Security.temporary()
    group = ["-0", "-1"]
    job = {"cls": Job, "options": {"security": security, "group": group}, "group": group}
    scheduler = {"cls": Scheduler, "options": {"protocol": "tls://", "security": security, "dashboard_address": ":0"}}
    with (
        SpecCluster({0: job, 1: job}, scheduler, job, security=security) as jobs,
        shoal.init(jobs, timeout=30) as cluster,
    ):
        assert len(shoal.nodes()) == 4
        half = cluster.try_scale(3)
        assert half.num_nodes == 4 and len(half.together) == 2 and not half.kept, "half a job"
        assert (
            half.note(3) == f"There are 4 nodes, not 3: {', '.join(half.together)} end only together. Ask for 2 or 4."
        )
        home = shoal.nodes()[-1]
        actor = Counter.options(scheduling_strategy=shoal.NodeAffinity(home.id)).remote()
        shoal.get(actor.node.remote(), timeout=60)
        assert cluster.scale(2) == 2
        assert home.id in {node.id for node in shoal.nodes()}
        assert shoal.get(actor.node.remote(), timeout=60) == home.id
        assert len(jobs.worker_spec) == 1


def test_a_dask_cluster_joined_by_address_says_how_to_scale():
    security = Security.temporary()
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, security=security, dashboard_address=":0", protocol="tls://"
        ) as dask_cluster,
        shoal.init(dask_cluster.scheduler_address, security=security, timeout=30) as cluster,
        pytest.raises(shoal.errors.OptionError, match="pass the Dask cluster object"),
    ):
        cluster.scale(2)


@pytest.mark.parametrize("who", ["driver", "head"])
def test_nothing_is_left_of_many_nodes_when_somebody_is_killed(who, wait_until, traces):
    before = traces()
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        line = driver.stdout.readline()
        assert line == "ready\n", driver.stderr.read()
        assert len(traces() - before) >= 8, "head, three templates and stores"
        if who == "driver":
            driver.kill()
        else:
            (head,) = [c for c in psutil.Process(driver.pid).children() if "shoal.launch.head" in c.cmdline()]
            head.send_signal(signal.SIGKILL)
    finally:
        driver.communicate("\n", timeout=30)
    wait_until(lambda: traces() <= before, lambda: f"an end of {traces() - before}", 30)
