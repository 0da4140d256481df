"""What keeps a request waiting, and who holds what."""

from __future__ import annotations

from shoal.machines.bundles import Group
from shoal.machines.grants import ActorRequest, Start
from shoal.machines.leases import LeaseMachine
from shoal.machines.nodes import DRAINING, FULL
from shoal.machines.shortage import MAX_HOLDERS, Holder, find_group_shortage, find_shortage
from shoal.model.placement import Placement, SchedulingClass
from shoal.model.resources import make_resources

CPU = SchedulingClass(make_resources({"num_cpus": 1}))
TWO = SchedulingClass(make_resources({"num_cpus": 2}))


def machine(*cpus: int) -> LeaseMachine:
    leases = LeaseMachine()
    for number, count in enumerate(cpus):
        leases.node_joined(f"node-{number}", make_resources({"num_cpus": count, "memory": 1000}))
    return leases


def test_the_node_that_comes_closest_and_its_holders() -> None:
    leases = machine(2, 4)
    leases.demand("owner", "job", CPU, 2)
    leases.request_actor(ActorRequest("actor", "owner", "job", TWO))
    leases.demand("other", "job-2", TWO, 1)
    leases.flush()
    found = find_shortage(leases.places, leases.leases, TWO)
    assert found is not None and not found.fits and not found.reserved
    held = {holder.kind: dict(holder.amounts)["num_cpus"] for holder in found.holders}
    assert sum(held.values()) + dict(found.free)["num_cpus"] == dict(found.total)["num_cpus"]


def test_groups_and_dask_hold_too() -> None:
    leases = machine(4)
    leases.create_group(Group("group", "owner", "job", (make_resources({"num_cpus": 2}),), "PACK"))
    leases.flush()
    leases.node_busy("node-0", make_resources({"num_cpus": 1}))
    found = find_shortage(leases.places, leases.leases, TWO)
    assert found is not None
    assert set(found.holders) == {
        Holder("group", "group", make_resources({"num_cpus": 2})),
        Holder("dask", "", make_resources({"num_cpus": 1})),
    }
    inside = CPU._replace(placement=Placement(group_id="group"))
    within = find_shortage(leases.places, leases.leases, inside)
    assert within is not None and within.fits and dict(within.total) == {"num_cpus": 2}


def test_what_can_never_be_has_no_shortage() -> None:
    leases = machine(1)
    assert find_shortage(leases.places, leases.leases, TWO) is None
    assert find_shortage(leases.places, leases.leases, CPU._replace(placement=Placement(node="node-9"))) is None


def test_a_group_waits_for_the_bundle_that_has_no_room() -> None:
    leases = machine(2)
    leases.demand("owner", "job", CPU, 2)
    leases.flush()
    group = Group("group", "owner", "job", (make_resources({"num_cpus": 2}), make_resources({"num_cpus": 1})), "PACK")
    leases.places.add_group(group)
    found = find_group_shortage(leases.places, leases.leases, group)
    assert found is not None and dict(found.asked) == {"num_cpus": 2}


def test_a_node_whose_memory_was_full_has_no_room() -> None:
    leases = machine(2, 4)
    leases.node_full("node-1", True)
    found = find_shortage(leases.places, leases.leases, TWO)
    assert found is not None and found.node_id == "node-0" and found.fits and not found.closed
    leases.node_full("node-0", True)
    found = find_shortage(leases.places, leases.leases, TWO)
    assert found is not None and found.closed == FULL and not found.fits
    leases.node_draining("node-0", True)
    leases.node_full("node-0", False)
    found = find_shortage(leases.places, leases.leases, TWO)
    assert found is not None and found.closed == DRAINING and not found.fits


def test_leases_that_wait_have_lent_what_they_hold_and_many_holders_are_cut_short() -> None:
    leases = machine(20)
    for number in range(MAX_HOLDERS + 3):
        leases.demand(f"owner-{number}", "job", CPU, 1)
    started = [action.lease for action in leases.flush() if isinstance(action, Start)]
    found = find_shortage(leases.places, leases.leases, CPU)
    assert found is not None and len(found.holders) == MAX_HOLDERS
    for lease in started:
        leases.waits(lease.lease_id, True)
    found = find_shortage(leases.places, leases.leases, CPU)
    assert found is not None and found.holders == () and found.fits
