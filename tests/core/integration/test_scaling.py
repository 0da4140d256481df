"""More nodes and fewer of the embedded cluster, which all tests here share."""

from __future__ import annotations

import time

import numpy
import pytest
from scaled_work import Counter, begin_slow_tasks, used_nodes

import shoal


@pytest.fixture(scope="module")
def started():
    with shoal.init(num_cpus=1) as joined:
        yield joined


@pytest.fixture
def cluster(started):
    """A cluster of one node that all tests share; what they have added goes."""
    yield started
    started.scale(1, force=True)


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


def test_tasks_of_a_node_that_leaves_are_finished_there(cluster, tmp_path):
    cluster.scale(2)
    refs = begin_slow_tasks(2, tmp_path)
    assert cluster.scale(1) == 1
    assert shoal.get(refs, timeout=30) == [1, 1]


def test_a_node_with_an_actor_is_kept_and_named(cluster):
    cluster.scale(3)
    # One on the first node, which stays anyway, one on another.
    ours = shoal.api.session._session.owner.store.holder
    nodes = sorted(shoal.nodes(), key=lambda node: node.address != ours)[:2]
    actors = [Counter.options(scheduling_strategy=shoal.NodeAffinity(node.id)).remote() for node in nodes]
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
