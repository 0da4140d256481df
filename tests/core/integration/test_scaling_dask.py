"""More nodes and fewer of a Dask cluster, by its own object, which all tests here share."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings

import pytest
from distributed import Client, LocalCluster
from distributed.security import Security
from scaled_work import Counter, begin_slow_tasks, used_nodes, where

import shoal


@pytest.fixture(scope="module")
def dask_cluster():
    with LocalCluster(
        n_workers=1, threads_per_worker=1, security=Security.temporary(), dashboard_address=":0", protocol="tls://"
    ) as started:
        yield started


@pytest.fixture(scope="module")
def joined(dask_cluster):
    with shoal.init(dask_cluster, timeout=30) as cluster:
        yield cluster


@pytest.fixture
def dask_nodes(joined):
    """A Dask cluster of three nodes that all tests share."""
    assert joined.scale(3) == 3
    return joined


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
    for ref in busy:
        shoal.cancel(ref)


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
