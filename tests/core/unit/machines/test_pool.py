"""The executor pool of a node agent: which executor serves which lease."""

from __future__ import annotations

import itertools

import pytest

from shoal.machines.pool import Action, Bound, Died, ExecutorPool, Kill, Spawn


def make_pool(num_cpus: int = 1) -> ExecutorPool:
    numbers = itertools.count(1)
    return ExecutorPool(lambda: f"exec-{next(numbers)}", num_cpus)


def come_up(pool: ExecutorPool) -> list[Action]:
    """Flush, and have everything spawned come up, until nothing more is spawned; returns the other actions."""
    seen: list[Action] = []
    while True:
        actions = pool.flush()
        seen += [action for action in actions if not isinstance(action, Spawn)]
        spawned = [action.executor_id for action in actions if isinstance(action, Spawn)]
        for executor_id in spawned:
            pool.ready(executor_id, f"address-{executor_id}", 100)
        if not spawned:
            return seen


def fail_to_start(pool: ExecutorPool, rounds: int) -> list[Action]:
    seen: list[Action] = []
    for _ in range(rounds):
        for action in pool.flush():
            if isinstance(action, Spawn):
                pool.exited(action.executor_id, "no memory")
            else:
                seen.append(action)
    return seen + pool.flush()


def bound(actions: list[Action]) -> dict[str, str]:
    return {action.lease_id: action.executor.executor_id for action in actions if isinstance(action, Bound)}


@pytest.mark.parametrize("num_cpus", [1, 4])
def test_spares_are_started_ahead_of_need(num_cpus: int) -> None:
    pool = make_pool(num_cpus)
    assert len(pool.flush()) == num_cpus
    assert pool.flush() == [], "they are on their way"


def test_a_lease_takes_a_spare_and_a_new_one_is_started() -> None:
    pool = make_pool()
    come_up(pool)
    pool.start_lease("lease-1", "job-a", fresh=False)
    actions = pool.flush()
    assert bound(actions) == {"lease-1": "exec-1"}
    assert Spawn("exec-2") in actions


def test_a_lease_waits_for_its_executor_to_come_up() -> None:
    pool = make_pool()
    pool.start_lease("lease-1", "job-a", fresh=False)
    assert pool.flush() == [Spawn("exec-1")]
    pool.ready("exec-1", "address-1", 101)
    (first, *_) = pool.flush()
    assert isinstance(first, Bound)
    assert (first.executor.address, first.executor.pid, first.executor.job_id) == ("address-1", 101, "job-a")


def test_as_many_are_started_as_leases_wait() -> None:
    pool = make_pool()
    come_up(pool)
    for number in range(5):
        pool.start_lease(f"lease-{number}", "job-a", fresh=False)
    assert set(bound(come_up(pool))) == {f"lease-{number}" for number in range(5)}


def test_an_executor_serves_its_job_again_and_no_other() -> None:
    pool = make_pool()
    pool.start_lease("lease-1", "job-a", fresh=False)
    (first,) = bound(come_up(pool)).values()
    pool.end_lease("lease-1", kill=False)
    pool.start_lease("lease-2", "job-b", fresh=False)
    pool.start_lease("lease-3", "job-a", fresh=False)
    served = bound(come_up(pool))
    assert served["lease-3"] == first
    assert served["lease-2"] != first


def test_an_actor_gets_a_fresh_executor() -> None:
    pool = make_pool()
    pool.start_lease("lease-1", "job-a", fresh=False)
    (used,) = bound(come_up(pool)).values()
    pool.end_lease("lease-1", kill=False)
    pool.start_lease("lease-2", "job-a", fresh=True)
    assert bound(come_up(pool))["lease-2"] != used


def test_ending_with_kill_ends_the_executor() -> None:
    pool = make_pool()
    pool.start_lease("lease-1", "job-a", fresh=True)
    (executor_id,) = bound(come_up(pool)).values()
    pool.end_lease("lease-1", kill=True)
    pool.end_lease("lease-1", kill=True)
    assert come_up(pool) == [Kill(executor_id)]
    pool.exited(executor_id, "killed")
    assert pool.flush() == [], "its end is no news"


def test_idle_executors_of_a_job_are_bounded() -> None:
    pool = make_pool(2)
    for number in range(5):
        pool.start_lease(f"lease-{number}", "job-a", fresh=False)
    come_up(pool)
    for number in range(5):
        pool.end_lease(f"lease-{number}", kill=False)
    killed = [action for action in come_up(pool) if isinstance(action, Kill)]
    assert len(killed) == 3
    assert sum(executor.job_id == "job-a" for executor in pool.executors.values()) == 2


def test_a_lease_that_ends_before_it_begins_takes_no_executor() -> None:
    pool = make_pool()
    pool.start_lease("lease-1", "job-a", fresh=False)
    pool.flush()
    pool.end_lease("lease-1", kill=False)
    assert come_up(pool) == []


def test_the_end_of_a_job_ends_its_idle_executors() -> None:
    pool = make_pool(2)
    for number in range(2):
        pool.start_lease(f"lease-{number}", "job-a", fresh=False)
    served = bound(come_up(pool))
    pool.end_lease("lease-0", kill=False)
    pool.job_ended("job-a")
    assert come_up(pool) == [Kill(served["lease-0"])]
    assert served["lease-1"] in pool.executors


def test_no_executor_of_a_job_outlives_its_last_lease_when_the_job_has_ended() -> None:
    pool = make_pool()
    pool.start_lease("lease-1", "job-a", fresh=False)
    (executor_id,) = bound(come_up(pool)).values()
    pool.job_ended("job-a")
    pool.end_lease("lease-1", kill=False)  # its owner gave it back just before it was ended
    assert come_up(pool) == [Kill(executor_id)]


def test_the_death_of_a_bound_executor_is_told_once() -> None:
    pool = make_pool()
    pool.start_lease("lease-1", "job-a", fresh=False)
    (executor_id,) = bound(come_up(pool)).values()
    pool.exited(executor_id, "SIGKILL")
    pool.exited(executor_id, "SIGKILL")
    assert come_up(pool) == [Died("lease-1", executor_id, "SIGKILL")]


def test_an_idle_executor_that_dies_is_replaced_in_silence() -> None:
    pool = make_pool()
    come_up(pool)
    pool.exited("exec-1", "SIGKILL")
    assert pool.flush() == [Spawn("exec-2")]


def test_one_failed_start_is_bad_luck() -> None:
    pool = make_pool()
    pool.start_lease("lease-1", "job-a", fresh=False)
    assert fail_to_start(pool, rounds=1) == [Spawn("exec-2")]
    pool.ready("exec-2", "address-2", 102)
    assert bound(pool.flush()) == {"lease-1": "exec-2"}


def test_a_node_that_cannot_start_executors_says_so_and_stops_trying() -> None:
    pool = make_pool(2)
    pool.start_lease("lease-1", "job-a", fresh=False)
    fail_to_start(pool, rounds=10)
    assert pool.broken
    assert pool.flush() == []


def test_everybody_goes_with_their_parent_process() -> None:
    pool = make_pool(2)
    for number in range(3):
        pool.start_lease(f"lease-{number}", "job-a", fresh=False)
    served = bound(come_up(pool))
    pool.all_exited("the template ended")
    died = [action for action in pool.flush() if isinstance(action, Died)]
    assert {(action.lease_id, action.executor_id) for action in died} == set(served.items())
    assert all(not executor.address for executor in pool.executors.values())
