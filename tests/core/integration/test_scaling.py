"""More nodes and fewer, of the embedded cluster and of a Dask cluster."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy
import psutil
import pytest
from distributed import Client, LocalCluster, Nanny, Scheduler, SpecCluster, Worker
from distributed.deploy.spec import ProcessInterface
from distributed.security import Security

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


@pytest.fixture
def cluster():
    with shoal.init(num_cpus=1) as joined:
        yield joined


@shoal.remote
def where() -> str:
    time.sleep(0.05)
    return shoal.get_runtime_context().node_id


@shoal.remote
class Counter:
    def node(self) -> str:
        return shoal.get_runtime_context().node_id


def used_nodes(count: int) -> set[str]:
    """Return the nodes on which tasks run, as soon as there are *count*: a new node's first process takes a moment."""
    used: set[str] = set()
    deadline = time.monotonic() + 60
    while len(used) < count and time.monotonic() < deadline:
        used |= set(shoal.get([where.remote() for _ in range(10)], timeout=60))
    return used


def test_more_nodes_do_more_at_once_and_leave_when_they_are_done(cluster):
    assert cluster.scale(3) == 3
    ids = {node.id for node in shoal.nodes()}
    assert len(ids) == 3
    assert used_nodes(3) == ids
    assert cluster.scale(1) == 1
    assert len(used_nodes(1)) == 1


def test_as_many_as_there_are_changes_nothing(cluster):
    assert cluster.scale(1) == 1
    assert [node["id"] for node in cluster.snapshot()["nodes"]] == [node.id for node in shoal.nodes()]


def test_further_nodes_have_cpus_and_labels_but_not_what_there_is_once():
    with shoal.init(num_cpus=2, num_gpus=1, resources={"licence": 1}, labels={"zone": "a"}) as cluster:
        cluster.scale(2)
        first, second = sorted(shoal.nodes(), key=lambda node: "licence" not in node.total)
        assert first.total["num_gpus"] == 1 and "num_gpus" not in second.total
        assert second.total["num_cpus"] == 2 and "licence" not in second.total
        assert second.labels["zone"] == "a"


def begin_slow_tasks(count: int, directory: Path) -> list[shoal.ObjectRef]:
    """Return tasks that have begun, and must not begin again."""

    @shoal.remote(max_retries=0)
    def slow(path):
        path.touch()
        time.sleep(1.0)
        return 1

    refs = [slow.remote(directory / str(number)) for number in range(count)]
    deadline = time.monotonic() + 30
    while len(list(directory.iterdir())) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return refs


def test_tasks_of_a_node_that_leaves_are_finished_there(cluster, tmp_path):
    cluster.scale(2)
    refs = begin_slow_tasks(2, tmp_path)
    assert cluster.scale(1) == 1
    assert shoal.get(refs, timeout=30) == [1, 1]


def test_a_node_with_an_actor_is_kept_and_named(cluster):
    cluster.scale(3)
    actors = [Counter.remote() for _ in range(2)]
    homes = shoal.get([actor.node.remote() for actor in actors], timeout=60)
    with pytest.warns(UserWarning, match=r"There are 2 nodes, not 1: .* has actor `Counter`.*force=True"):
        assert cluster.scale(1) == 2
    assert shoal.get([actor.node.remote() for actor in actors], timeout=60) == homes
    assert cluster.scale(1, force=True) == 1


def test_a_node_with_values_that_are_nowhere_else_is_kept(cluster):
    cluster.scale(2)
    (second,) = [node for node in shoal.nodes() if node.address != shoal.api.session._session.owner.store.holder]
    make = shoal.remote(lambda: numpy.ones(100_000))
    ref = make.options(scheduling_strategy=shoal.NodeAffinity(second.id)).remote()
    shoal.wait([ref], timeout=60)
    with pytest.warns(UserWarning, match=r"has 1 value \(781 KiB\)"):
        assert cluster.scale(1) == 2
    assert shoal.get(ref).sum() == 100_000
    del ref
    deadline = time.monotonic() + 30
    while cluster.try_scale(1).num_nodes != 1:
        assert time.monotonic() < deadline, "the value was let go"
    assert len(shoal.nodes()) == 1


def test_a_value_that_was_forced_out_is_made_again(cluster):
    cluster.scale(2)
    (second,) = [node for node in shoal.nodes() if node.address != shoal.api.session._session.owner.store.holder]
    make = shoal.remote(lambda: numpy.ones(100_000))
    ref = make.options(scheduling_strategy=shoal.NodeAffinity(second.id, soft=True)).remote()
    shoal.wait([ref], timeout=60)
    assert cluster.scale(1, force=True) == 1
    assert shoal.get(ref, timeout=60).sum() == 100_000


def test_tasks_that_take_too_long_keep_their_node(cluster):
    cluster.scale(2)
    busy = [shoal.remote(lambda: time.sleep(600)).remote() for _ in range(2)]
    deadline = time.monotonic() + 30
    while cluster.snapshot()["tasks"]["running"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    scaled = cluster.try_scale(1, timeout=0.5)
    assert scaled.num_nodes == 2 and scaled.kept[0][1] == "1 executor with tasks"
    for ref in busy:
        shoal.cancel(ref)
    # It has work again.
    assert len(used_nodes(2)) == 2


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "2", None])
def test_what_is_no_number_of_nodes_is_refused(cluster, number):
    with pytest.raises(shoal.errors.OptionError, match="whole number from 1 up"):
        cluster.scale(number)


def test_too_many_for_one_machine(cluster):
    with pytest.raises(shoal.errors.OptionError, match="at most"):
        cluster.scale(1_000)


def test_other_bad_values(cluster):
    with pytest.raises(shoal.errors.OptionError, match="`timeout`"):
        cluster.scale(2, timeout=0)
    with pytest.raises(shoal.errors.OptionError, match="`force`"):
        cluster.scale(2, force="yes")


def test_an_inline_session_has_nothing_to_scale():
    with shoal.init(inline=True) as cluster, pytest.raises(shoal.errors.OptionError, match="Nothing here can scale"):
        cluster.scale(2)


def test_an_ended_cluster_cannot_be_scaled(cluster):
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


@pytest.fixture
def dask_cluster():
    with LocalCluster(
        n_workers=1, threads_per_worker=1, security=Security.temporary(), dashboard_address=":0", protocol="tls://"
    ) as started:
        yield started


@pytest.fixture
def dask_nodes(dask_cluster):
    """A Dask cluster of three nodes."""
    with shoal.init(dask_cluster, timeout=30) as cluster:
        assert cluster.scale(3) == 3
        yield cluster


def test_a_dask_cluster_is_scaled_by_its_own_object(dask_cluster, dask_nodes):
    assert len(used_nodes(3)) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dask_nodes.scale(1) == 1
        assert len(dask_cluster.workers) == len(dask_cluster.worker_spec) == 1
        assert len(used_nodes(1)) == 1
        assert dask_nodes.scale(2) == 2
        assert len(used_nodes(2)) == 2


def test_nodes_of_a_dask_cluster_leave_that_have_nothing_to_lose(dask_nodes):
    """Dask by itself would end the last that came."""
    last = shoal.nodes()[-1]
    actor = Counter.options(scheduling_strategy=shoal.NodeAffinity(last.id)).remote()
    assert shoal.get(actor.node.remote(), timeout=60) == last.id
    assert dask_nodes.scale(1) == 1
    assert [node.id for node in shoal.nodes()] == [last.id]
    assert shoal.get(actor.node.remote(), timeout=60) == last.id


def test_a_node_of_a_dask_cluster_with_actors_or_bundles_is_kept_and_named(dask_cluster, dask_nodes):
    first, second, third = shoal.nodes()
    actor = Counter.options(scheduling_strategy=shoal.NodeAffinity(first.id)).remote()
    assert shoal.get(actor.node.remote(), timeout=60) == first.id
    with shoal.placement_group([{"num_cpus": 1}] * 3, strategy="STRICT_SPREAD") as group:
        assert group.wait(timeout=30)
        with pytest.warns(
            UserWarning, match=f"There are 3 nodes, not 2: .* has 1 bundle of placement group `{group.id}`"
        ):
            assert dask_nodes.scale(2) == 3
        kept = dict(dask_nodes.try_scale(1).kept)
        assert kept == dict.fromkeys((second.id, third.id), f"1 bundle of placement group `{group.id}`")
    shoal.get(shoal.remote(lambda: None).remote(), timeout=60)
    assert dask_nodes.scale(1) == 1
    assert [node.id for node in shoal.nodes()] == [first.id]
    assert shoal.get(actor.node.remote(), timeout=60) == first.id
    assert len(dask_cluster.workers) == 1


def test_tasks_of_a_node_of_a_dask_cluster_are_finished_there(dask_cluster, dask_nodes, tmp_path):
    begun = begin_slow_tasks(3, tmp_path)
    assert dask_nodes.scale(1) == 1
    assert shoal.get(begun, timeout=30) == [1, 1, 1]


def test_a_node_of_a_dask_cluster_whose_tasks_take_too_long_is_kept_and_has_work_again(dask_nodes):
    busy = [shoal.remote(lambda: time.sleep(600)).remote() for _ in range(3)]
    deadline = time.monotonic() + 30
    while dask_nodes.snapshot()["tasks"]["running"] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    scaled = dask_nodes.try_scale(1, timeout=0.5)
    assert scaled.num_nodes == 3 and [why for _, why in scaled.kept] == ["1 executor with tasks"] * 2
    for ref in busy:
        shoal.cancel(ref)
    assert len(used_nodes(3)) == 3
    busy = [shoal.remote(lambda: time.sleep(600)).remote() for _ in range(3)]
    assert dask_nodes.scale(1, timeout=0.5, force=True) == 1


def test_values_of_dask_itself_are_handed_on(dask_cluster, dask_nodes):
    with Client(dask_cluster, set_as_default=False) as client:
        futures = client.map(lambda number: number * number, range(30), pure=False)
        client.gather(futures)
        assert dask_nodes.scale(1) == 1
        (address,) = [node.address for node in shoal.nodes()]
        assert set(client.who_has(futures).values()) == {(address,)}, "they were not computed again"
        assert client.gather(futures) == [number * number for number in range(30)]


def test_what_a_driver_has_drained_is_used_again_when_it_dies(dask_cluster, dask_nodes):
    code = f"""
import sys, shoal
from shoal.launch.dask_scaling import _Nodes
from shoal.api import session
shoal.init({dask_cluster.scheduler_address!r}, security=SECURITY, timeout=30)
nodes = _Nodes(session._session)
nodes.drain(list(nodes.addresses()), True)
print("drained", flush=True)
sys.stdin.read()
"""
    secured = dask_cluster.security
    fields = ("tls_ca_file", "tls_client_cert", "tls_client_key")
    made = ", ".join(f"{field}={getattr(secured, field)!r}" for field in fields)
    code = code.replace("SECURITY", f"__import__('distributed').Security(require_encryption=True, {made})")
    driver = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout.readline() == "drained\n"
        ref = where.remote()
        assert shoal.wait([ref], timeout=0.5)[0] == []
        assert "it is to leave the cluster" in str(shoal.why(ref))
    finally:
        driver.kill()
        driver.communicate(timeout=30)
    assert shoal.get(ref, timeout=30)


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


def test_a_dask_cluster_joined_by_address_says_how_to_scale(dask_cluster):
    with (
        shoal.init(dask_cluster.scheduler_address, security=dask_cluster.security, timeout=30) as cluster,
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
