"""Where leases go: affinity, labels, spreading, priorities, placement groups, Dask's own load."""

from __future__ import annotations

from random import Random

import pytest

from shoal.machines.bundles import Group
from shoal.machines.grants import ActorRequest, AskBack, CannotRun, End, GroupFailed, GroupReady, Lease, Lost, Start
from shoal.machines.leases import LeaseMachine
from shoal.model.placement import Placement, SchedulingClass
from shoal.model.resources import make_resources

ONE = make_resources({"num_cpus": 1})
CPU = SchedulingClass(ONE)
NOTHING = SchedulingClass(())


def cluster(*cpus: float, zones: str = "") -> LeaseMachine:
    """Return a machine with nodes 0, 1, … of so many CPUs; *zones* has a letter for each node."""
    machine = LeaseMachine()
    for number, amount in enumerate(cpus):
        labels = [("zone", zones[number])] if zones else []
        total = make_resources({"num_cpus": amount, "memory": 1000})
        machine.node_joined(f"node-{number}", total, address=f"tls://host-{number}", labels=labels)
    return machine


def settle(machine: LeaseMachine) -> list[object]:
    """Flush, and have every executor start; returns the actions."""
    seen: list[object] = []
    while actions := machine.flush():
        seen += actions
        for action in actions:
            if isinstance(action, Start):
                machine.executor_started(action.lease.lease_id, "exec", f"address-{action.lease.lease_id}")
        machine.validate()
    return seen


def where(machine: LeaseMachine, kind: SchedulingClass, count: int = 1) -> list[str]:
    """Return the nodes on which so many leases of a class are granted."""
    machine.demand("owner-a", "job-a", kind, count)
    return [action.lease.node_id for action in settle(machine) if isinstance(action, Start)]


def on(node: str = "", soft: bool = False, **more: object) -> SchedulingClass:
    return SchedulingClass(ONE, Placement(node=node, soft=soft, **more))  # type: ignore[arg-type]


def test_a_node_can_be_named_by_id_or_by_address() -> None:
    machine = cluster(1, 4, 1)
    assert where(machine, on("node-0")) == ["node-0"]
    assert where(machine, on("tls://host-2")) == ["node-2"]


def test_a_hard_wish_waits_and_a_soft_one_goes_elsewhere() -> None:
    machine = cluster(1, 4)
    assert where(machine, on("node-0"), 2) == ["node-0"]
    assert where(machine, on("node-0", soft=True)) == ["node-1"]


def test_a_node_that_is_not_there_is_told_at_once_unless_it_is_only_a_wish() -> None:
    machine = cluster(1)
    machine.demand("owner-a", "job-a", on("node-9"), 1)
    (failed,) = settle(machine)
    assert isinstance(failed, CannotRun) and failed.reason == "node `node-9` is not in the cluster"
    assert where(machine, on("node-9", soft=True)) == ["node-0"]


def test_labels_choose_nodes() -> None:
    machine = cluster(4, 2, 2, zones="abb")
    assert set(where(machine, on(labels=(("zone", "b"),)), 4)) == {"node-1", "node-2"}
    assert where(machine, on(labels=(("zone", "!b"),))) == ["node-0"]
    assert where(machine, on(labels=(("disk", "!hdd"),))) == ["node-0"], "a label that is missing is not hdd"
    machine.demand("owner-a", "job-a", on(labels=(("zone", "c"),)), 1)
    assert any(isinstance(x, CannotRun) and "no node carries these labels" in x.reason for x in settle(machine))


def test_spreading_takes_the_node_with_the_fewest_leases() -> None:
    machine = cluster(1, 8, 2)
    assert sorted(where(machine, on(spread=True), 3)) == ["node-0", "node-1", "node-2"]
    machine = cluster(1, 8, 2)
    assert where(machine, CPU, 3) == ["node-1"] * 3


def test_what_asks_for_nothing_goes_where_the_fewest_are() -> None:
    machine = cluster(1, 8)
    assert sorted(where(machine, NOTHING, 4)) == ["node-0", "node-0", "node-1", "node-1"]


def test_the_rarest_resource_decides() -> None:
    machine = cluster(8, 1)
    machine.node_joined("gpu", make_resources({"num_cpus": 1, "num_gpus": 2}))
    kind = SchedulingClass(make_resources({"num_cpus": 0.5, "num_gpus": 1}))
    assert where(machine, kind, 3) == ["gpu", "gpu"]


def test_higher_priorities_are_served_first_and_get_what_others_hold() -> None:
    machine = cluster(2)
    machine.demand("owner-a", "job-a", CPU, 5)
    settle(machine)
    urgent = CPU._replace(priority=5)
    machine.demand("owner-b", "job-b", urgent, 2)
    asked = [action for action in settle(machine) if isinstance(action, AskBack) and not action.idle_only]
    assert [action.lease.owner_id for action in asked] == ["owner-a", "owner-a"]
    for action in asked:
        machine.gave_back(action.lease.lease_id)
    started = [action.lease.owner_id for action in settle(machine) if isinstance(action, Start)]
    assert started == ["owner-b", "owner-b"]


def test_jobs_share_fairly_however_many_claimants_they_have() -> None:
    machine = cluster(8)
    for number in range(7):
        machine.demand(f"a-{number}", "job-a", CPU, 10)
    machine.demand("b", "job-b", CPU, 10)
    settle(machine)
    held = [lease.job_id for lease in machine.leases.values()]
    assert (held.count("job-a"), held.count("job-b")) == (4, 4)


def test_dasks_own_tasks_are_respected() -> None:
    machine = cluster(2)
    machine.node_busy("node-0", ONE)
    assert where(machine, CPU, 2) == ["node-0"]
    machine.node_busy("node-0", make_resources({"num_cpus": 2, "unknown": 3}))
    (asked,) = settle(machine)
    assert isinstance(asked, AskBack) and not asked.idle_only
    machine.gave_back(asked.lease.lease_id)
    assert not any(isinstance(action, Start) for action in settle(machine))
    machine.node_busy("node-0", ())
    assert len([action for action in settle(machine) if isinstance(action, Start)]) == 1


# -- placement groups --------------------------------------------------------------------------------------------


def group(strategy: str, *cpus: float, number: int = 1, owner_id: str = "owner-a") -> Group:
    bundles = tuple(make_resources({"num_cpus": amount}) for amount in cpus)
    return Group(f"group-{number}", owner_id, "job-a", bundles, strategy)


def placed(machine: LeaseMachine, wanted: Group) -> tuple[str, ...] | None:
    machine.create_group(wanted)
    ready = [action for action in settle(machine) if isinstance(action, GroupReady)]
    return ready[0].nodes if ready else None


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("PACK", 1), ("STRICT_PACK", 1), ("SPREAD", 3), ("STRICT_SPREAD", 3)],
)
def test_strategies_use_few_nodes_or_many(strategy: str, expected: int) -> None:
    machine = cluster(4, 4, 4)
    nodes = placed(machine, group(strategy, 1, 1, 1))
    assert nodes is not None and len(set(nodes)) == expected
    assert sum(node.free["num_cpus"] for node in machine.nodes.values()) == 9


def test_soft_strategies_make_do() -> None:
    assert placed(cluster(1, 1), group("PACK", 1, 1)) is not None
    assert placed(cluster(4), group("SPREAD", 1, 1)) == ("node-0", "node-0")


@pytest.mark.parametrize("wanted", [group("STRICT_PACK", 2, 2), group("STRICT_SPREAD", 1, 1, 1), group("PACK", 9)])
def test_what_could_never_be_placed_is_told_at_once(wanted: Group) -> None:
    machine = cluster(2, 2)
    machine.create_group(wanted)
    (failed,) = settle(machine)
    assert isinstance(failed, GroupFailed) and "could not hold them" in failed.reason
    assert machine.groups == {}


def test_all_bundles_or_none() -> None:
    machine = cluster(2, 2)
    machine.demand("owner-b", "job-b", CPU, 1)
    settle(machine)
    assert placed(machine, group("PACK", 2, 2)) is None
    assert sum(node.free["num_cpus"] for node in machine.nodes.values()) == 3, "nothing is held meanwhile"
    machine.gave_back("lease-1")
    ready = [action for action in settle(machine) if isinstance(action, GroupReady)]
    assert len(ready) == 1 and len(ready[0].nodes) == 2


def inside(bundle: int = -1, cpus: float = 1, group_id: str = "group-1") -> SchedulingClass:
    return SchedulingClass(make_resources({"num_cpus": cpus}), Placement(group_id=group_id, bundle=bundle))


def test_work_in_a_group_takes_from_its_bundles() -> None:
    machine = cluster(4)
    assert placed(machine, group("PACK", 1, 2)) is not None
    assert where(machine, inside(), 5) == ["node-0"] * 3
    assert machine.nodes["node-0"].free["num_cpus"] == 1
    assert where(machine, CPU, 5) == ["node-0"], "others get what is left of the node"


def test_a_bundle_can_be_chosen_and_actors_go_there() -> None:
    machine = cluster(4, 4)
    assert placed(machine, group("STRICT_SPREAD", 1, 2)) is not None
    machine.request_actor(ActorRequest("actor-1", "owner-a", "job-a", inside(1, 2)))
    settle(machine)
    (lease,) = machine.leases.values()
    assert (lease.ledger.group_id, lease.ledger.bundle, lease.actor_id) == ("group-1", 1, "actor-1")
    machine.request_actor(ActorRequest("actor-2", "owner-a", "job-a", inside(1, 1)))
    assert not any(isinstance(action, Start) for action in settle(machine)), "the bundle is full"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (inside(0, 2), "no bundle of `group-1` that it may use has that much"),
        (inside(7), "`group-1` has 2 bundles"),
        (inside(group_id="group-9"), "there is no placement group `group-9`"),
    ],
)
def test_what_a_group_cannot_hold_is_told_at_once(kind: SchedulingClass, reason: str) -> None:
    machine = cluster(4)
    placed(machine, group("PACK", 1, 2))
    machine.demand("owner-a", "job-a", kind, 1)
    (failed,) = settle(machine)
    assert isinstance(failed, CannotRun) and reason in failed.reason


def test_work_waits_for_its_group() -> None:
    machine = cluster(2)
    machine.demand("owner-b", "job-b", CPU, 1)
    settle(machine)
    assert placed(machine, group("PACK", 2)) is None
    assert where(machine, inside()) == []
    machine.gave_back("lease-1")
    assert [type(action) for action in settle(machine) if not isinstance(action, End)].count(Start) == 1


def test_removing_a_group_ends_what_runs_there_and_frees_it() -> None:
    machine = cluster(2)
    placed(machine, group("PACK", 2))
    where(machine, inside(), 2)
    machine.remove_group("group-1")
    machine.remove_group("group-1")
    actions = settle(machine)
    assert len([action for action in actions if isinstance(action, End) and action.kill]) == 2
    assert [action.cause for action in actions if isinstance(action, Lost)] == ["its placement group was removed"] * 2
    assert machine.nodes["node-0"].free["num_cpus"] == 2
    assert where(machine, CPU, 2) == ["node-0"] * 2


def test_a_bundle_whose_node_has_left_is_placed_anew() -> None:
    machine = cluster(2, 2, 2)
    nodes = placed(machine, group("STRICT_SPREAD", 1, 1))
    assert nodes is not None
    where(machine, inside(), 2)
    machine.node_left(nodes[0], "it left")
    actions = settle(machine)
    assert len([action for action in actions if isinstance(action, Lost)]) == 1
    (ready,) = [action for action in actions if isinstance(action, GroupReady)]
    assert nodes[0] not in ready.nodes and nodes[1] in ready.nodes and len(set(ready.nodes)) == 2


def test_groups_end_with_their_owner_unless_detached() -> None:
    machine = cluster(4)
    placed(machine, group("PACK", 1))
    placed(machine, group("PACK", 1, number=2, owner_id=""))
    machine.owner_gone("owner-a")
    settle(machine)
    assert list(machine.groups) == ["group-2"]
    assert machine.nodes["node-0"].free["num_cpus"] == 3


def test_detached_actors_outlive_their_owner() -> None:
    machine = cluster(2)
    machine.request_actor(ActorRequest("actor-1", "", "job-a", CPU))
    settle(machine)
    machine.owner_gone("owner-a")
    machine.owner_gone("")
    assert len(machine.leases) <= 1


def test_a_group_that_is_overtaken_has_its_nodes_set_aside() -> None:
    machine = cluster(2, 2)
    machine.demand("owner-b", "job-b", CPU, 100)
    settle(machine)
    machine.create_group(group("STRICT_SPREAD", 2, 2))
    settle(machine)
    for _ in range(200):
        held = [lease for lease in machine.leases.values() if not lease.ledger.group_id]
        if held:
            machine.gave_back(held[0].lease_id)
        machine.demand("owner-b", "job-b", CPU, 100)
        if any(isinstance(action, GroupReady) for action in settle(machine)):
            return
    pytest.fail("the group was never placed")


@pytest.mark.parametrize("seed", range(20))
def test_random_events_keep_the_books(seed: int) -> None:
    """Whatever happens in whatever order: ledgers balance, and all comes back in the end."""
    random = Random(seed)
    machine = LeaseMachine()
    kinds = [
        CPU,
        NOTHING,
        CPU._replace(priority=1),
        SchedulingClass(make_resources({"num_cpus": 2})),
        on("node-1"),
        on("node-2", soft=True),
        on(labels=(("zone", "a"),)),
        on(spread=True),
        inside(group_id="group-0"),
        inside(1, group_id="group-1"),
    ]
    now = 0.0
    for step in range(400):
        now += random.random()
        leases: list[Lease] = list(machine.leases.values())
        match random.randrange(12):
            case 0:
                total = make_resources({"num_cpus": random.randint(1, 4)})
                labels = [("zone", random.choice("ab"))]
                if (name := f"node-{random.randrange(5)}") not in machine.nodes:
                    machine.node_joined(name, total, address=f"tls://{name}", labels=labels)
            case 1 if machine.nodes and random.random() < 0.3:
                machine.node_left(random.choice(list(machine.nodes)), "it left")
            case 2 | 3 | 4:
                owner = random.randrange(4)
                machine.demand(f"owner-{owner}", f"job-{owner % 2}", random.choice(kinds), random.randrange(6))
            case 5:
                machine.request_actor(ActorRequest(f"actor-{step}", f"owner-{step % 4}", "job-0", random.choice(kinds)))
            case 6 if leases:
                machine.waits(random.choice(leases).lease_id, random.random() < 0.5)
            case 7 if leases:
                event = random.choice(
                    [machine.gave_back, machine.end_lease, lambda x: machine.executor_died(x, "", "", "")]
                )
                event(random.choice(leases).lease_id)
            case 8:
                name = f"group-{random.randrange(3)}"
                if name in machine.groups:
                    machine.remove_group(name)
                else:
                    sizes = [make_resources({"num_cpus": random.choice([0.5, 1, 2])}) for _ in range(step % 3 + 1)]
                    strategy = random.choice(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"])
                    machine.create_group(Group(name, f"owner-{step % 4}", "job-0", tuple(sizes), strategy))
            case 9 if machine.nodes:
                amount = make_resources({"num_cpus": random.randrange(3)})
                machine.node_busy(random.choice(list(machine.nodes)), amount)
            case 10 if random.random() < 0.1:
                machine.owner_gone(f"owner-{random.randrange(4)}")
            case 11 if machine.nodes:
                close = random.choice([machine.node_full, machine.node_draining, machine.node_suspected])
                close(random.choice(list(machine.nodes)), random.random() < 0.5)
        machine.validate()
        machine.tick(now)
        settle(machine)
    for number in range(4):
        machine.owner_gone(f"owner-{number}")
    for name in list(machine.nodes):
        machine.node_busy(name, ())
        for reopen in (machine.node_full, machine.node_draining, machine.node_suspected):
            reopen(name, False)
    settle(machine)
    assert machine.leases == {} and machine.groups == {}
    assert all(node.free == node.total and not node.leases for node in machine.nodes.values())
