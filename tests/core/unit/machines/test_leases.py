"""The lease machine: who gets which part of which node."""

from __future__ import annotations

import pytest

from shoal.machines.bundles import Group
from shoal.machines.grants import Action, ActorRequest, AskBack, CannotRun, End, Grant, GroupReady, Lease, Lost, Start
from shoal.machines.leases import PATIENCE, RESERVATION, LeaseMachine
from shoal.model.placement import Placement, SchedulingClass
from shoal.model.resources import make_resources

CPU = SchedulingClass(make_resources({"num_cpus": 1}))
TWO_CPUS = SchedulingClass(make_resources({"num_cpus": 2}))
HALF = SchedulingClass(make_resources({"num_cpus": 0.5}))
GPU = SchedulingClass(make_resources({"num_gpus": 1}))


def machine_with(*cpus: float) -> LeaseMachine:
    machine = LeaseMachine()
    for number, amount in enumerate(cpus):
        machine.node_joined(f"node-{number}", make_resources({"num_cpus": amount, "memory": 1000}))
    return machine


def flush(machine: LeaseMachine) -> list[Action]:
    actions = machine.flush()
    machine.validate()
    return actions


def started(machine: LeaseMachine) -> list[Lease]:
    """Flush, and have every lease that starts get its executor; returns them."""
    leases = [action.lease for action in flush(machine) if isinstance(action, Start)]
    for lease in leases:
        machine.executor_started(lease.lease_id, f"exec-{lease.lease_id}", f"address-{lease.lease_id}")
    return leases


def free_cpus(machine: LeaseMachine) -> float:
    return sum(node.free["num_cpus"] for node in machine.nodes.values())


def actor(number: int, kind: SchedulingClass, owner_id: str = "owner-a") -> ActorRequest:
    return ActorRequest(f"actor-{number}", owner_id, "job-a", kind)


def test_leases_are_granted_while_resources_last() -> None:
    machine = machine_with(2)
    machine.demand("owner-a", "job-a", CPU, 5)
    leases = started(machine)
    assert len(leases) == 2
    assert [action.lease for action in flush(machine) if isinstance(action, Grant)] == leases
    assert free_cpus(machine) == 0


def test_a_lease_is_granted_once() -> None:
    machine = machine_with(4)
    machine.demand("owner-a", "job-a", CPU, 2)
    machine.demand("owner-a", "job-a", CPU, 2)
    assert len(started(machine)) == 2
    assert len(flush(machine)) == 2
    assert flush(machine) == []


def test_work_spreads_over_nodes() -> None:
    machine = machine_with(2, 2)
    machine.demand("owner-a", "job-a", CPU, 2)
    assert {lease.node_id for lease in started(machine)} == {"node-0", "node-1"}


def test_claimants_take_turns() -> None:
    machine = machine_with(4)
    machine.demand("owner-a", "job-a", CPU, 10)
    machine.demand("owner-b", "job-b", CPU, 10)
    assert [lease.owner_id for lease in started(machine)] == ["owner-a", "owner-b", "owner-a", "owner-b"]


def test_demand_waits_for_the_first_node() -> None:
    machine = LeaseMachine()
    machine.demand("owner-a", "job-a", CPU, 1)
    assert flush(machine) == []
    machine.node_joined("node-0", CPU.resources)
    assert len(started(machine)) == 1


def test_what_no_node_could_hold_is_told_at_once() -> None:
    machine = machine_with(1, 2)
    asked = SchedulingClass(make_resources({"num_cpus": 4, "num_gpus": 1}))
    machine.demand("owner-a", "job-a", asked, 3)
    machine.request_actor(actor(1, asked))
    assert flush(machine) == [
        CannotRun("owner-a", "actor-1", asked, TWO_CPUS.resources, "the most any node has is num_cpus=2"),
        CannotRun("owner-a", "", asked, TWO_CPUS.resources, "the most any node has is num_cpus=2"),
    ]
    assert flush(machine) == []


def test_resources_come_back() -> None:
    machine = machine_with(1)
    machine.demand("owner-a", "job-a", CPU, 1)
    (lease,) = started(machine)
    machine.gave_back(lease.lease_id)
    machine.gave_back(lease.lease_id)
    assert End(lease, kill=False) in flush(machine)
    assert free_cpus(machine) == 1
    assert machine.leases == {}


def test_an_executor_that_its_owner_cannot_reach_is_ended() -> None:
    machine = machine_with(1)
    machine.demand("owner-a", "job-a", CPU, 1)
    (lease,) = started(machine)
    machine.gave_back(lease.lease_id, broken=True)
    assert End(lease, kill=True) in flush(machine)


def test_what_is_given_back_is_not_granted_again_to_the_same_demand() -> None:
    machine = machine_with(2)
    machine.demand("owner-a", "job-a", CPU, 2)
    first, _ = started(machine)
    machine.gave_back(first.lease_id)
    assert started(machine) == []


def test_an_executor_that_dies_is_replaced() -> None:
    machine = machine_with(1)
    machine.demand("owner-a", "job-a", CPU, 1)
    (lease,) = started(machine)
    machine.executor_died(lease.lease_id, "killed", "last words", "task-7")
    machine.executor_died(lease.lease_id, "killed", "last words", "task-7")
    actions = flush(machine)
    assert actions.count(Lost(lease, "killed", "last words", "task-7")) == 1
    (start,) = [action for action in actions if isinstance(action, Start)]
    assert start.lease.lease_id != lease.lease_id


def test_a_node_takes_its_leases_with_it() -> None:
    machine = machine_with(1, 1)
    machine.demand("owner-a", "job-a", CPU, 2)
    leases = started(machine)
    machine.node_left("node-0", "its machine is gone")
    machine.node_left("node-0", "its machine is gone")
    lost = [action for action in flush(machine) if isinstance(action, Lost)]
    assert [(action.lease.node_id, action.begun) for action in lost] == [("node-0", "?")]
    assert len(machine.leases) == 1
    machine.node_joined("node-2", CPU.resources)
    assert [lease.node_id for lease in started(machine)] == ["node-2"]
    assert len(leases) == 2


def test_an_owner_takes_claims_leases_and_actors_with_it() -> None:
    machine = machine_with(2)
    machine.demand("owner-a", "job-a", CPU, 5)
    machine.request_actor(actor(1, CPU))
    machine.request_actor(actor(2, TWO_CPUS))
    started(machine)
    machine.owner_gone("owner-a")
    ended = [action for action in flush(machine) if isinstance(action, End)]
    assert len(ended) == 2 and all(action.kill for action in ended)
    assert machine.leases == {}
    assert free_cpus(machine) == 2
    assert started(machine) == []


# -- waiting -----------------------------------------------------------------------------------------------------


def test_a_waiting_lease_lends_its_cpu_so_that_nested_work_runs() -> None:
    machine = machine_with(1)
    machine.demand("owner-a", "job-a", CPU, 1)
    (outer,) = started(machine)
    machine.demand("exec-outer", "job-a", CPU, 1)
    assert started(machine) == []
    machine.waits(outer.lease_id, True)
    machine.waits(outer.lease_id, True)
    (inner,) = started(machine)
    assert inner.owner_id == "exec-outer"
    machine.waits(outer.lease_id, False)
    flush(machine)
    assert free_cpus(machine) == -1, "both run for a moment"
    machine.gave_back(inner.lease_id)
    machine.gave_back(outer.lease_id)
    flush(machine)
    assert free_cpus(machine) == 1


@pytest.mark.parametrize("end", ["gave_back", "executor_died", "end_lease"])
def test_a_lease_that_ends_while_it_waits_is_not_counted_twice(end: str) -> None:
    machine = machine_with(1)
    machine.demand("owner-a", "job-a", CPU, 1)
    (lease,) = started(machine)
    machine.waits(lease.lease_id, True)
    machine.demand("owner-a", "job-a", CPU, 0)
    if end == "executor_died":
        machine.executor_died(lease.lease_id, "killed", "", "")
    else:
        getattr(machine, end)(lease.lease_id)
    machine.waits(lease.lease_id, False)
    flush(machine)
    assert free_cpus(machine) == 1


# -- asking back -------------------------------------------------------------------------------------------------


def asked_back(machine: LeaseMachine) -> list[tuple[str, bool]]:
    return [(a.lease.owner_id, a.idle_only) for a in flush(machine) if isinstance(a, AskBack)]


def test_nobody_is_asked_while_nobody_waits() -> None:
    machine = machine_with(2)
    machine.demand("owner-a", "job-a", CPU, 2)
    started(machine)
    assert asked_back(machine) == []


def test_what_is_above_the_fair_share_is_asked_back_once() -> None:
    machine = machine_with(4)
    machine.demand("owner-a", "job-a", CPU, 10)
    started(machine)
    flush(machine)
    machine.demand("owner-b", "job-b", CPU, 10)
    asked = asked_back(machine)
    assert asked.count(("owner-a", False)) == 2
    assert asked_back(machine) == []


def test_who_has_nothing_is_given_a_turn() -> None:
    machine = machine_with(1)
    machine.demand("owner-a", "job-a", CPU, 1)
    started(machine)
    machine.demand("owner-b", "job-b", CPU, 1)
    assert asked_back(machine) == [("owner-a", False)]


def test_leases_within_the_share_are_asked_back_only_when_idle() -> None:
    machine = machine_with(2)
    machine.demand("owner-a", "job-a", CPU, 1)
    machine.demand("owner-b", "job-b", CPU, 1)
    started(machine)
    machine.demand("owner-b", "job-b", CPU, 2)
    assert asked_back(machine) == [("owner-a", True)], "who waits alone keeps its own warm"


def test_nobody_is_asked_when_nobody_waits() -> None:
    machine = machine_with(2)
    machine.demand("owner-a", "job-a", CPU, 10)
    started(machine)
    assert asked_back(machine) == []
    machine.demand("owner-a", "job-a", CPU, 2)
    assert asked_back(machine) == []
    machine.demand("owner-b", "job-b", HALF, 1)
    assert ("owner-a", True) in asked_back(machine)


def test_a_lease_asked_for_when_idle_can_be_asked_for_again_with_more_weight() -> None:
    machine = machine_with(2)
    machine.demand("owner-a", "job-a", CPU, 2)
    started(machine)
    machine.request_actor(actor(1, CPU, "owner-a"))
    assert asked_back(machine) == [("owner-a", False), ("owner-a", True)]
    machine.cancel_actor_request(actor(1, CPU, "owner-a").actor_id)
    machine.demand("owner-b", "job-b", CPU, 1)
    assert asked_back(machine) == []
    machine.demand("owner-c", "job-c", CPU, 1)
    machine.demand("owner-d", "job-d", CPU, 1)
    assert all(not idle_only for _, idle_only in asked_back(machine))


def test_a_lease_without_its_executor_is_asked_for_when_it_has_one() -> None:
    machine = machine_with(1)
    machine.demand("owner-a", "job-a", CPU, 1)
    (start,) = flush(machine)
    machine.demand("owner-b", "job-b", CPU, 1)
    assert asked_back(machine) == []
    assert isinstance(start, Start)
    machine.executor_started(start.lease.lease_id, "exec-1", "address")
    assert asked_back(machine) == [("owner-a", False)]


@pytest.mark.parametrize(
    "owners",
    [
        2,
        3,
    ],
)
def test_every_claimant_has_its_turn(owners: int) -> None:
    """More claimants than CPUs, each with an endless queue: whoever is asked gives back; nobody starves."""
    machine = machine_with(2)
    served: dict[str, int] = {}
    for number in range(owners):
        machine.demand(f"owner-{number}", f"job-{number}", CPU, 100)
    for _ in range(20 * owners):
        actions = flush(machine)
        for action in actions:
            if isinstance(action, Start):
                served[action.lease.owner_id] = served.get(action.lease.owner_id, 0) + 1
                machine.executor_started(action.lease.lease_id, "exec", "address")
            elif isinstance(action, AskBack) and not action.idle_only:
                lease = action.lease
                machine.gave_back(lease.lease_id)
                machine.demand(lease.owner_id, lease.job_id, CPU, 100)
    assert len(served) == owners


# -- actors ------------------------------------------------------------------------------------------------------


def test_actors_are_placed_before_tasks() -> None:
    machine = machine_with(1)
    machine.demand("owner-a", "job-a", CPU, 1)
    machine.request_actor(actor(1, CPU))
    (lease,) = started(machine)
    assert lease.actor_id == "actor-1"


def test_actors_without_cpus_are_never_short_of_room() -> None:
    machine = machine_with(1)
    machine.demand("owner-a", "job-a", CPU, 1)
    for number in range(50):
        machine.request_actor(actor(number, SchedulingClass(())))
    assert len(started(machine)) == 51


def test_an_actor_request_can_be_withdrawn() -> None:
    machine = machine_with(1)
    machine.demand("owner-a", "job-a", CPU, 1)
    (lease,) = started(machine)
    machine.request_actor(actor(1, CPU))
    flush(machine)
    machine.cancel_actor_request("actor-1")
    machine.cancel_actor_request("actor-1")
    machine.gave_back(lease.lease_id)
    assert started(machine) == []


def test_an_actor_is_not_replaced_when_it_dies() -> None:
    machine = machine_with(1)
    machine.request_actor(actor(1, CPU))
    (lease,) = started(machine)
    machine.executor_died(lease.lease_id, "killed", "", "")
    assert Lost(lease, "killed", "", "") in flush(machine)
    assert machine.leases == {}
    assert free_cpus(machine) == 1


def test_an_actor_does_not_wait_for_the_end_of_its_owners_queue() -> None:
    machine = machine_with(2)
    machine.demand("owner-a", "job-a", CPU, 100)
    started(machine)
    flush(machine)
    machine.request_actor(actor(1, CPU))
    assert ("owner-a", False) in asked_back(machine)


def churn(machine: LeaseMachine, rounds: int) -> int:
    """Give back the oldest lease and want it again, over and over; returns the round in which an actor was placed."""
    for number in range(rounds):
        tasks = [lease for lease in machine.leases.values() if not lease.actor_id]
        if tasks:
            machine.gave_back(tasks[0].lease_id)
            machine.demand(tasks[0].owner_id, tasks[0].job_id, tasks[0].kind, 100)
        if any(lease.actor_id for lease in started(machine)):
            return number
        machine.validate()
    return -1


def test_a_large_actor_is_not_overtaken_for_ever_by_small_tasks() -> None:
    """A node is set aside for what was overtaken too often."""
    machine = machine_with(2)
    machine.demand("owner-a", "job-a", CPU, 100)
    machine.demand("owner-b", "job-b", HALF, 100)
    started(machine)
    machine.request_actor(actor(1, TWO_CPUS))
    assert 0 < churn(machine, 100) <= 3 * PATIENCE
    assert not any(node.reserved_for for node in machine.nodes.values())


def test_a_reservation_is_given_up_in_time() -> None:
    machine = machine_with(2)
    machine.request_actor(actor(1, CPU))
    started(machine)
    machine.demand("owner-a", "job-a", HALF, 100)
    started(machine)
    machine.demand("owner-b", "job-b", TWO_CPUS, 1)
    churn(machine, 3 * PATIENCE)
    assert not machine.needs_tick, "there is no node that could be emptied: an actor holds half of it"
    machine = machine_with(2)
    machine.demand("owner-a", "job-a", HALF, 100)
    started(machine)
    machine.request_actor(actor(1, TWO_CPUS))
    for lease in list(machine.leases.values())[:2] * PATIENCE:
        if lease.lease_id in machine.leases:
            machine.gave_back(lease.lease_id)
            machine.demand("owner-a", "job-a", HALF, 100)
            started(machine)
    while not machine.needs_tick:
        assert churn(machine, 1) == -1
    machine.tick(0.0)
    machine.tick(RESERVATION - 1)
    assert machine.needs_tick
    machine.tick(RESERVATION + 1)
    assert not machine.needs_tick
    machine.demand("owner-a", "job-a", HALF, 100)
    assert not any(node.reserved_for for node in machine.nodes.values())


# -- nodes whose memory was nearly full --------------------------------------------------------------------------


def test_a_full_node_gets_no_leases_until_it_is_not() -> None:
    machine = machine_with(2, 1)
    machine.node_full("node-0", True)
    machine.demand("owner-a", "job-a", CPU, 3)
    machine.request_actor(actor(1, SchedulingClass(())))
    assert {lease.node_id for lease in started(machine)} == {"node-1"}
    machine.node_full("node-0", True)
    assert started(machine) == []
    machine.node_full("node-0", False)
    assert {lease.node_id for lease in started(machine)} == {"node-0"}
    assert free_cpus(machine) == 0


def test_what_runs_on_a_full_node_goes_on() -> None:
    machine = machine_with(1)
    machine.demand("owner-a", "job-a", CPU, 1)
    (lease,) = started(machine)
    flush(machine)
    machine.node_full("node-0", True)
    assert flush(machine) == []
    machine.gave_back(lease.lease_id)
    machine.demand("owner-b", "job-b", CPU, 1)
    assert started(machine) == [], "there is room, but no memory"
    machine.node_full("node-0", False)
    assert len(started(machine)) == 1


@pytest.mark.parametrize("placement", [
    Placement(node="node-0"), Placement(node="node-0", soft=True), Placement(spread=True), Placement(group_id="group"),
    Placement(labels=(("zone", "a"),)),
])  # fmt: skip
def test_no_placement_leads_to_a_full_node(placement: Placement) -> None:
    machine = LeaseMachine()
    machine.node_joined("node-0", make_resources({"num_cpus": 4}), labels=[("zone", "a")])
    machine.create_group(Group("group", "owner-a", "job-a", (make_resources({"num_cpus": 1}),), "PACK"))
    flush(machine)
    machine.node_full("node-0", True)
    machine.demand("owner-a", "job-a", CPU._replace(placement=placement), 1)
    assert started(machine) == []
    machine.node_full("node-0", False)
    assert len(started(machine)) == 1


def test_no_placement_group_is_reserved_on_a_full_node() -> None:
    machine = machine_with(2, 2)
    machine.node_full("node-0", True)
    bundles = (make_resources({"num_cpus": 1}),) * 2
    machine.create_group(Group("group", "owner-a", "job-a", bundles, "STRICT_SPREAD"))
    assert flush(machine) == []
    machine.node_full("node-0", False)
    assert [type(action) for action in flush(machine)] == [GroupReady]


def test_a_node_that_is_full_and_set_aside_gets_leases_when_it_is_neither() -> None:
    machine = machine_with(2)
    machine.demand("owner-a", "job-a", CPU, 100)
    machine.demand("owner-b", "job-b", HALF, 100)
    started(machine)
    machine.request_actor(actor(1, TWO_CPUS))
    while not machine.needs_tick:
        assert churn(machine, 1) == -1
    machine.node_full("node-0", True)
    machine.demand("owner-a", "job-a", CPU, 0)
    machine.demand("owner-b", "job-b", HALF, 0)
    for lease in list(machine.leases.values()):
        machine.gave_back(lease.lease_id)
    assert started(machine) == []
    machine.tick(0.0)
    machine.tick(RESERVATION + 1)
    assert started(machine) == [] and not machine.needs_tick
    machine.node_full("node-0", False)
    assert [lease.actor_id for lease in started(machine)] == ["actor-1"]


# -- nodes that are to leave, and nodes of which nothing is heard ------------------------------------------------


def test_a_node_that_is_to_leave_has_every_task_lease_asked_back_and_gets_none() -> None:
    machine = machine_with(4, 1)
    none = SchedulingClass(())
    machine.demand("owner-a", "job-a", CPU, 4)
    machine.demand("owner-b", "job-b", none._replace(placement=Placement(node="node-0")), 2)
    machine.request_actor(actor(1, none._replace(placement=Placement(node="node-0"))))
    there = [lease for lease in started(machine) if lease.node_id == "node-0"]
    flush(machine)
    assert len(there) >= 5
    machine.node_draining("node-0", True)
    asked = [action.lease for action in flush(machine) if isinstance(action, AskBack) and not action.idle_only]
    assert {lease.lease_id for lease in asked} == {lease.lease_id for lease in there if not lease.actor_id}
    for lease in asked:
        machine.gave_back(lease.lease_id)
    machine.demand("owner-a", "job-a", CPU, 9)
    assert {lease.node_id for lease in started(machine)} <= {"node-1"}
    machine.node_draining("node-0", False)
    assert {lease.node_id for lease in started(machine)} == {"node-0"}
    assert free_cpus(machine) == 0


def test_work_that_was_starting_on_a_node_that_is_to_leave_starts_elsewhere() -> None:
    machine = machine_with(2)
    machine.demand("owner-a", "job-a", CPU, 2)
    starting = [action.lease for action in flush(machine) if isinstance(action, Start)]
    machine.node_joined("node-1", make_resources({"num_cpus": 2}))
    machine.node_draining("node-0", True)
    actions = flush(machine)
    assert [action for action in actions if isinstance(action, End)] == [End(lease, kill=False) for lease in starting]
    assert [action.lease.node_id for action in actions if isinstance(action, Start)] == ["node-1", "node-1"]
    for lease in starting:  # the word of the node was under way
        machine.executor_started(lease.lease_id, "exec-1", "address")
    assert flush(machine) == []


def test_leases_in_bundles_of_a_node_that_is_to_leave_are_asked_back_too() -> None:
    machine = machine_with(2)
    machine.create_group(Group("group", "owner-a", "job-a", (make_resources({"num_cpus": 1}),), "PACK"))
    inside = CPU._replace(placement=Placement(group_id="group"))
    machine.demand("owner-a", "job-a", inside, 1)
    (lease,) = started(machine)
    flush(machine)
    machine.node_draining("node-0", True)
    assert flush(machine) == [AskBack(lease, idle_only=False)]
    machine.gave_back(lease.lease_id)
    machine.demand("owner-a", "job-a", inside, 1)
    assert started(machine) == []
    machine.node_draining("node-0", False)
    assert [lease.ledger.group_id for lease in started(machine)] == ["group"]


def test_each_reason_for_which_a_node_gets_no_work_is_lifted_by_itself() -> None:
    machine = machine_with(1)
    for close in (machine.node_full, machine.node_draining, machine.node_suspected):
        close("node-0", True)
    machine.node_busy("node-0", make_resources({"num_cpus": 1}))
    machine.demand("owner-a", "job-a", CPU, 1)
    for reopen in (machine.node_draining, machine.node_suspected, machine.node_full):
        assert started(machine) == []
        reopen("node-0", False)
    assert started(machine) == [], "Dask uses it"
    machine.node_busy("node-0", ())
    assert len(started(machine)) == 1


def test_nothing_is_set_aside_on_a_node_that_is_to_leave() -> None:
    machine = machine_with(2, 2)
    machine.demand("owner-a", "job-a", CPU, 100)
    machine.demand("owner-b", "job-b", HALF, 100)
    started(machine)
    machine.node_draining("node-0", True)
    machine.request_actor(actor(1, TWO_CPUS))
    while not machine.needs_tick:
        assert churn(machine, 1) == -1
    assert [node.node_id for node in machine.nodes.values() if node.reserved_for] == ["node-1"]


def test_a_node_of_which_nothing_is_heard_is_to_have_no_more_work() -> None:
    machine = machine_with(2)
    machine.demand("owner-a", "job-a", CPU, 1)
    (lease,) = started(machine)
    flush(machine)
    machine.node_suspected("node-0", True)
    assert flush(machine) == [AskBack(lease, idle_only=False)]
    machine.demand("owner-a", "job-a", CPU, 2)
    assert started(machine) == []
    machine.node_suspected("node-0", False)
    assert len(started(machine)) == 1


def test_the_numbers_of_an_executor_that_was_ended_for_its_memory_reach_the_owner() -> None:
    machine = machine_with(1)
    machine.demand("owner-a", "job-a", CPU, 1)
    (lease,) = started(machine)
    machine.executor_died(lease.lease_id, "the memory was nearly full", "", "task-7", (9, 15, 16))
    assert Lost(lease, "the memory was nearly full", "", "task-7", (9, 15, 16)) in flush(machine)


def test_fractions_add_up() -> None:
    tenth = SchedulingClass(make_resources({"num_cpus": 0.1}))
    machine = machine_with(1)
    machine.demand("owner-a", "job-a", tenth, 20)
    for lease in started(machine):
        machine.gave_back(lease.lease_id)
    machine.demand("owner-a", "job-a", tenth, 0)
    for lease in started(machine):
        machine.gave_back(lease.lease_id)
    flush(machine)
    assert free_cpus(machine) == 1
    assert machine.leases == {}


def test_late_messages_about_leases_that_have_ended_are_harmless() -> None:
    machine = machine_with(1)
    for late in (machine.gave_back, machine.end_lease):
        late("lease-99")
    machine.executor_started("lease-99", "exec-1", "address")
    machine.executor_died("lease-99", "killed", "", "?")
    machine.waits("lease-99", True)
    machine.node_full("node-99", True)
    machine.owner_gone("owner-z")
    machine.demand("owner-z", "job-z", GPU, 0)
    assert flush(machine) == []
