"""Where work runs: placement groups, affinity and priorities."""

from __future__ import annotations

import time

import pytest

import shoal


@shoal.remote
def where():
    return shoal.get_runtime_context().node_id


@shoal.remote
class Placed:
    def where(self):
        return shoal.get_runtime_context().node_id


def test_bundles_are_reserved_and_used(cluster):
    with shoal.placement_group([{"num_cpus": 1}, {"num_cpus": 1}], strategy="SPREAD") as group:
        assert group.wait(timeout=30)
        assert shoal.get(group.ready()) is None
        assert shoal.wait([where.remote()], timeout=0.3)[0] == [], "nothing is left outside"
        nodes = {shoal.get(where.options(scheduling_strategy=group.bundle(i)).remote(), timeout=30) for i in (0, 1)}
        actor = Placed.options(num_cpus=1, scheduling_strategy=group).remote()
        assert shoal.get(actor.where.remote(), timeout=30) in nodes
        assert len(nodes) == len(shoal.snapshot()["nodes"])
    with pytest.raises(shoal.errors.ActorDiedError, match="placement group was removed"):
        while True:  # until the news has reached it
            shoal.get(actor.where.remote(), timeout=30)
    assert shoal.get(where.remote(), timeout=30)


def test_a_group_knows_where_its_bundles_are(cluster):
    @shoal.remote(num_cpus=1)
    def inside(group):
        return shoal.get_runtime_context().node_id, group.nodes()

    with shoal.placement_group([{"num_cpus": 1}, {"num_cpus": 1}], strategy="SPREAD") as group:
        assert group.wait(timeout=30)
        nodes = group.nodes()
        assert set(nodes) == {node.id for node in shoal.nodes()}
        for index in (0, 1):
            found = inside.options(scheduling_strategy=group.bundle(index)).remote(group)
            assert shoal.get(found, timeout=30) == (nodes[index], nodes)
    assert group.nodes() == []


def test_a_group_travels(embedded):
    @shoal.remote(num_cpus=0)
    def inside(group):
        group.wait(timeout=10)
        return shoal.get(where.options(scheduling_strategy=group).remote())

    with shoal.placement_group([{"num_cpus": 1}]) as group:
        assert shoal.get(inside.remote(group), timeout=30).startswith("node-")


def test_a_group_waits_for_room(embedded, tmp_path):
    @shoal.remote
    def hold():
        while not (tmp_path / "go").exists():
            time.sleep(0.01)

    held = [hold.remote(), hold.remote()]
    time.sleep(0.2)
    with shoal.placement_group([{"num_cpus": 1}] * 2) as group:
        assert not group.wait(timeout=0.3)
        (tmp_path / "go").touch()
        assert group.wait(timeout=30)
    shoal.get(held, timeout=30)


def test_nothing_runs_in_a_group_that_was_removed(cluster):
    for _ in range(10):  # with leases in it still warm
        group = shoal.placement_group([{"num_cpus": 1}])
        assert group.wait(30)
        inside = shoal.remote(lambda: 1).options(scheduling_strategy=group)
        assert shoal.get([inside.remote() for _ in range(3)], timeout=30) == [1, 1, 1]
        group.remove()
        with pytest.raises(shoal.errors.InfeasibleError, match="no placement group"):
            shoal.get(inside.remote(), timeout=30)


def test_what_can_never_be_reserved_is_said(cluster):
    group = shoal.placement_group([{"num_cpus": 100}])
    with pytest.raises(shoal.errors.InfeasibleError, match="could not hold them"):
        group.wait(timeout=30)
    small = shoal.placement_group([{"num_cpus": 0.5}])
    with pytest.raises(shoal.errors.InfeasibleError, match="no bundle"):
        shoal.get(where.options(scheduling_strategy=small).remote(), timeout=30)
    small.remove()
    with pytest.raises(shoal.errors.InfeasibleError, match="no placement group"):
        shoal.get(where.options(scheduling_strategy=small).remote(), timeout=30)


@pytest.mark.parametrize(
    ("bundles", "strategy", "words"),
    [
        ([], "PACK", "at least one"),
        ({"num_cpus": 1}, "PACK", "a list of mappings"),
        ([{}], "PACK", "reserves something"),
        ([{"num_cpus": -1}], "PACK", "`num_cpus`"),
        ([{"num_cpus": 1}], "PAKC", "Did you mean `PACK`"),
        ([1], "PACK", "A bundle is a mapping"),
    ],
)
def test_bad_groups_are_refused(embedded, bundles, strategy, words):
    with pytest.raises(shoal.errors.OptionError, match=words):
        shoal.placement_group(bundles, strategy)


def test_bad_bundles_and_affinities_are_refused(embedded):
    with shoal.placement_group([{"num_cpus": 0.1}]) as group:
        for index in (1, -1, True, "0"):
            with pytest.raises(shoal.errors.OptionError, match="numbered from 0"):
                group.bundle(index)
    with pytest.raises(shoal.errors.OptionError, match="`node`"):
        shoal.NodeAffinity("")
    with pytest.raises(TypeError, match="takes a placement group"):
        shoal.remove_placement_group("group")


def test_affinity_is_kept(cluster):
    for node in shoal.snapshot()["nodes"]:
        pinned = where.options(scheduling_strategy=shoal.NodeAffinity(node["id"]))
        assert set(shoal.get([pinned.remote() for _ in range(4)], timeout=30)) == {node["id"]}
    with pytest.raises(shoal.errors.InfeasibleError, match="is not in the cluster"):
        shoal.get(where.options(scheduling_strategy=shoal.NodeAffinity("node-x")).remote(), timeout=30)
    soft = where.options(scheduling_strategy=shoal.NodeAffinity("node-x", soft=True))
    assert shoal.get(soft.remote(), timeout=30)


def test_spreading_uses_every_node(cluster):
    actors = [Placed.options(scheduling_strategy="SPREAD").remote() for _ in range(4)]
    nodes = shoal.get([actor.where.remote() for actor in actors], timeout=30)
    assert len(set(nodes)) == len(shoal.snapshot()["nodes"])


def test_tasks_go_to_their_large_arguments(cluster, wait_until):
    nodes = [node["id"] for node in shoal.snapshot()["nodes"]]
    if len(nodes) < 2:
        pytest.skip("one node is no choice")

    @shoal.remote
    def make():
        return bytes(4 << 20), shoal.get_runtime_context().node_id

    @shoal.remote
    def use(value):
        return value[1], shoal.get_runtime_context().node_id

    for node in nodes:
        made = make.options(scheduling_strategy=shoal.NodeAffinity(node)).remote()
        shoal.wait([made], timeout=30)
        wait_until(lambda: not any(node["cpus_used"] for node in shoal.snapshot()["nodes"]), "room on every node")
        assert shoal.get(use.remote(made), timeout=30) == (node, node)


def test_higher_priorities_run_first(embedded, tmp_path, wait_until):
    @shoal.remote
    def note(word):
        with open(tmp_path / "order", "a") as file:
            file.write(word)
        time.sleep(0.05)

    blockers = [shoal.remote(time.sleep).remote(1.0) for _ in range(2)]
    time.sleep(0.2)
    low = [note.options(priority=-1).remote("l") for _ in range(4)]
    time.sleep(0.1)
    high = [note.options(priority=1).remote("h") for _ in range(4)]
    shoal.get([*blockers, *low, *high], timeout=30)
    assert (tmp_path / "order").read_text().rindex("h") <= 5


def test_work_in_a_group_that_can_never_be_is_told_why(embedded):
    with shoal.placement_group([{"num_cpus": 1}] * 3) as group:
        works = [where.options(scheduling_strategy=group.bundle(i)).remote() for i in range(3)]
        actor = Placed.options(num_cpus=1, scheduling_strategy=group).remote()
        why = r"its 3 bundles need num_cpus=3 in all, and the cluster's .* \(num_cpus=2\) could not hold them"
        for ref in works:
            with pytest.raises(shoal.errors.InfeasibleError, match=why):
                shoal.get(ref, timeout=30)
        with pytest.raises(shoal.errors.ShoalError, match=why):
            shoal.get(actor.where.remote(), timeout=30)
        with pytest.raises(shoal.errors.InfeasibleError, match=why):
            shoal.get(where.options(scheduling_strategy=group).remote(), timeout=30)
