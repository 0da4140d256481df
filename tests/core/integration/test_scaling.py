"""More nodes and fewer, of the embedded cluster and of a Dask cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import warnings

import numpy
import psutil
import pytest
from distributed import LocalCluster
from distributed.security import Security

import shoal

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
    return set(shoal.get([where.remote() for _ in range(count)], timeout=60))


def test_more_nodes_do_more_at_once_and_leave_when_they_are_done(cluster):
    assert cluster.scale(3) == 3
    ids = {node.id for node in shoal.nodes()}
    assert len(ids) == 3
    assert used_nodes(30) == ids
    assert cluster.scale(1) == 1
    assert len(used_nodes(3)) == 1


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


def test_tasks_of_a_node_that_leaves_are_finished_there(cluster, tmp_path):
    cluster.scale(2)

    @shoal.remote(max_retries=0)
    def slow(path):
        path.touch()
        time.sleep(1.0)
        return 1

    refs = [slow.remote(tmp_path / str(number)) for number in range(2)]
    deadline = time.monotonic() + 30
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
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
    assert len(used_nodes(20)) == 2


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


@pytest.fixture
def dask_cluster():
    with LocalCluster(
        n_workers=1, threads_per_worker=1, security=Security.temporary(), dashboard_address=":0", protocol="tls://"
    ) as started:
        yield started


def test_a_dask_cluster_is_scaled_by_its_own_object(dask_cluster, wait_until):
    with shoal.init(dask_cluster, timeout=30) as cluster:
        assert cluster.scale(2) == 2
        assert len(used_nodes(20)) == 2
        actor = Counter.remote()
        shoal.get(actor.node.remote(), timeout=60)
        with pytest.warns(UserWarning, match="actor `Counter`"):
            assert cluster.scale(1) == 2
        assert len(dask_cluster.workers) == 2
        shoal.stop(actor)
        wait_until(lambda: [row["state"] for row in cluster.snapshot()["actors"]] == ["dead"], "word of its end")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert cluster.scale(1) == 1


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
