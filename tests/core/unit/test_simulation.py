"""The scheduler as a whole in the simulation of :mod:`simulation`: calm weather, storms, and their aftermath."""

from __future__ import annotations

from random import Random

import pytest
from simulation import (
    CPU,
    EXECUTORS,
    HALF,
    NOTHING,
    TWO_CPUS,
    ActorSpec,
    Cluster,
    Owner,
    Spec,
    in_group,
    random_spec,
    with_priority,
)

# -- calm weather ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("cpus", [(1,), (2, 1)])
def test_plain_tasks_all_finish_and_run_once(seed: int, cpus: tuple[int, ...]) -> None:
    cluster = Cluster(seed, cpus)
    for _ in range(200):
        cluster.submit(random_spec(cluster.random, 0, crashes=False), at=cluster.random.random())
    assert cluster.run() == {"finished": 200}
    assert set(cluster.world.begun.values()) == {1}


@pytest.mark.parametrize("seed", range(5))
def test_tasks_that_wait_for_nested_ones_finish_on_one_cpu(seed: int) -> None:
    cluster = Cluster(seed, (1,))
    leaf = Spec(function_id="leaf")
    middle = Spec(function_id="middle", children=(leaf, leaf))
    for _ in range(6):
        cluster.submit(Spec(function_id="outer", children=(middle, leaf)))
    assert cluster.run() == {"finished": 6}
    assert cluster.world.begun.total() == 6 * (1 + 2 + 2)


def test_deep_recursion_finishes_on_one_cpu() -> None:
    spec = Spec(function_id="level-0")
    for level in range(1, 12):
        spec = Spec(function_id=f"level-{level}", children=(spec,))
    cluster = Cluster(1, (1,))
    cluster.submit(spec)
    assert cluster.run() == {"finished": 1}


def test_many_short_tasks_take_few_messages() -> None:
    cluster = Cluster(1, (2,))
    for _ in range(3_000):
        cluster.submit(Spec(seconds=0.0002, function_id="short"))
    assert cluster.run() == {"finished": 3_000}
    assert cluster.world.now < 3.5, "of which one second is the warm lease's"


@pytest.mark.parametrize(
    "connect_delay",
    [
        0.0,
        0.06,
    ],
)
def test_drivers_share(connect_delay: float) -> None:
    cluster = Cluster(1, (2,), num_drivers=2)
    cluster.world.connect_delays = (connect_delay,)
    for driver in range(2):
        for _ in range(100):
            cluster.submit(Spec(seconds=0.05, function_id="long"), driver=driver)
    shares: list[int] = []
    cluster.world.at(3.0, lambda: shares.extend(len(driver.owner.outcomes) for driver in cluster.drivers))
    assert cluster.run() == {"finished": 200}
    assert min(shares) > 0.7 * max(shares)


def test_what_no_node_holds_fails_and_the_rest_goes_on() -> None:
    cluster = Cluster(1, (1,))
    cluster.submit(Spec(kind=TWO_CPUS))
    cluster.submit(Spec())
    assert cluster.run() == {"infeasible": 1, "finished": 1}


def test_a_larger_node_takes_what_a_smaller_one_cannot() -> None:
    cluster = Cluster(1, (1, 2))
    for _ in range(5):
        cluster.submit(Spec(kind=TWO_CPUS), at=0.5)
        cluster.submit(Spec(), at=0.5)
    assert cluster.run() == {"finished": 10}


# -- storms ------------------------------------------------------------------------------------------------------


def cancel_some(cluster: Cluster) -> None:
    for driver, name, _ in cluster.submitted:
        if cluster.random.random() < 0.1:
            cluster.world.at(cluster.random.random() * 1.5, driver.hear, driver.owner.cancel, name)


def kill_some(cluster: Cluster, count: int) -> None:
    def kill() -> None:
        living = [executor for executor in EXECUTORS.values() if executor.alive]
        if living:
            cluster.random.choice(living).die()

    for _ in range(count):
        cluster.world.at(cluster.random.random() * 1.5, kill)


def cut_some(cluster: Cluster, count: int) -> None:
    """Connections break while both ends live on: what is under way on them is lost."""

    def cut() -> None:
        owner = cluster.random.choice([driver.owner for driver in cluster.drivers])
        if owner.process.alive and owner._streams:
            owner.cut(cluster.random.choice(list(owner._streams.values())))

    for _ in range(count):
        cluster.world.at(cluster.random.random() * 1.5, cut)


@pytest.mark.parametrize("seed", range(40))
def test_every_task_ends_once_whatever_happens(seed: int) -> None:
    """Nested work, crashes, kills from outside, cancellations, owners and nodes that go."""
    setup = Random(seed)
    cpus = setup.choice([(1,), (2,), (1, 1), (2, 1, 1)])
    cluster = Cluster(seed, cpus, num_drivers=setup.choice([1, 2, 3]))
    for _ in range(40):
        spec = random_spec(cluster.random, 2, crashes=True)
        cluster.submit(spec, setup.randrange(len(cluster.drivers)), cluster.random.random())
    cancel_some(cluster)
    kill_some(cluster, 4)
    cut_some(cluster, setup.choice([0, 0, 2, 4]))
    if len(cluster.drivers) > 1:
        cluster.world.at(setup.random(), cluster.drivers[-1].die)
    if len(cluster.agents) > 1:
        cluster.world.at(setup.random(), cluster.agents[-1].die)
    outcomes = cluster.run()
    assert set(outcomes) <= {"finished", "cancelled", "crashed"}


@pytest.mark.parametrize("seed", range(5))
def test_retries_outlast_crashes(seed: int) -> None:
    cluster = Cluster(seed, (2,))
    for number in range(30):
        cluster.submit(Spec(retries=3, crashes=number % 3))
    assert cluster.run() == {"finished": 30}


def test_crashes_outlast_retries() -> None:
    cluster = Cluster(1, (2,))
    for _ in range(5):
        cluster.submit(Spec(retries=2, crashes=3))
    assert cluster.run() == {"crashed": 5}
    assert set(cluster.world.begun.values()) == {3}


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_left_when_every_driver_goes(seed: int) -> None:
    cluster = Cluster(seed, (2, 2), num_drivers=2)
    for number in range(40):
        cluster.submit(random_spec(cluster.random, 2, crashes=False), driver=number % 2)
    for driver in cluster.drivers:
        cluster.world.at(cluster.random.random() * 0.3, driver.die)
    assert cluster.run() == {}


def test_tasks_may_wait_for_siblings() -> None:
    """The sibling is submitted late, and may be on its way to the executor of the task that begins to wait for it."""
    for seed in range(60):
        cluster = Cluster(seed, (1,))
        for _ in range(20):
            cluster.submit(Spec(seconds=0.0005, function_id="short"))
        cluster.submit(Spec(seconds=0.0005, function_id="short", waits_for=("sibling",)), at=0.4)
        late = 0.4 + cluster.random.random() * 0.003
        cluster.submit(Spec(seconds=0.0005, function_id="short"), at=late, name="sibling")
        assert cluster.run() == {"finished": 22}


@pytest.mark.parametrize(
    "num_tasks",
    [
        1,
        10,
    ],
)
def test_a_broken_connection_is_survived(num_tasks: int) -> None:
    """Owner and executor live on and cannot talk: the lease counts as lost, and the work is done again."""
    for seed in range(10):
        cluster = Cluster(seed, (1,))
        for number in range(num_tasks):
            cluster.submit(Spec(seconds=1.0, function_id="long"), at=number * 0.05)

        def cut(owner: Owner = cluster.drivers[0].owner) -> None:
            for executor in list(owner._streams.values()):
                owner.cut(executor)

        cluster.world.at(0.6, cut)
        assert cluster.run() == {"finished": num_tasks}


# -- actors, placement groups, priorities, and Dask's own load ---------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_calls_of_an_actor_keep_their_order(seed: int) -> None:
    cluster = Cluster(seed, (2,), num_drivers=2)
    actor = cluster.create_actor(ActorSpec(Spec(seconds=0.05)))
    for number in range(60):
        wait = cluster.random.choice([0.0, 0.0, 0.1])
        cluster.call(actor, Spec(), driver=number % 2, at=0.02 + number * 0.005, ready_after=wait)
    assert cluster.run() == {"finished": 60}


def test_an_actor_whose_init_raises_answers_every_call() -> None:
    cluster = Cluster(1, (1,))
    actor = cluster.create_actor(ActorSpec(raises=True))
    for number in range(5):
        cluster.call(actor, Spec(), at=number * 0.1)
    assert cluster.run() == {"died": 5}


@pytest.mark.parametrize("seed", range(5))
def test_restarts_and_repeated_calls_outlast_crashes(seed: int) -> None:
    cluster = Cluster(seed, (2,))
    actor = cluster.create_actor(ActorSpec(Spec(crashes=2), max_restarts=-1))
    for number in range(20):
        cluster.call(actor, Spec(seconds=0.01, retries=-1, crashes=number % 3), at=number * 0.02)
    assert cluster.run() == {"finished": 20}


def test_calls_that_may_not_be_repeated_fail_with_the_process() -> None:
    cluster = Cluster(1, (2,))
    actor = cluster.create_actor(ActorSpec(max_restarts=1))
    cluster.call(actor, Spec(retries=0, crashes=1))
    cluster.call(actor, Spec(retries=0), at=3.0)
    cluster.call(actor, Spec(retries=0, crashes=1), at=3.0)
    cluster.call(actor, Spec(retries=0), at=6.0)
    assert cluster.run() == {"unavailable": 1, "finished": 1, "died": 2}


def test_an_actor_that_no_node_can_hold_answers_every_call() -> None:
    cluster = Cluster(1, (1,))
    actor = cluster.create_actor(ActorSpec(kind=TWO_CPUS))
    cluster.call(actor, Spec())
    assert cluster.run() == {"died": 1}


def test_an_actor_without_room_waits_for_tasks_and_they_for_it() -> None:
    cluster = Cluster(1, (1,))
    for _ in range(20):
        cluster.submit(Spec(seconds=0.1, function_id="long"))
    actor = cluster.create_actor(ActorSpec(kind=CPU), at=0.3)
    cluster.call(actor, Spec(), at=0.4)
    cluster.world.at(1.5, lambda: cluster.drivers[0].owner.kill_actor(actor, restart=False))
    assert cluster.run() == {"finished": 21}


@pytest.mark.parametrize("strategy", ["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"])
def test_groups_are_reserved_whole_while_others_work(strategy: str) -> None:
    cluster = Cluster(1, (2, 2))
    for _ in range(60):
        cluster.submit(Spec(seconds=0.1, function_id="long"))
    group = cluster.create_group([1, 1], strategy, at=0.2)
    for bundle in (0, 1, -1):
        cluster.submit(Spec(kind=in_group(group, bundle)), at=0.3)
    ready_at: list[str] = []
    cluster.world.at(2.0, lambda: ready_at.append(cluster.drivers[0].owner.groups.get(group, "waits")))
    assert cluster.run() == {"finished": 63}
    assert ready_at == ["ready"]


def test_what_runs_in_a_group_ends_with_it() -> None:
    cluster = Cluster(1, (2,))
    group = cluster.create_group([1], "PACK")
    cluster.submit(Spec(seconds=5.0, kind=in_group(group), retries=0), at=0.1)
    actor = cluster.create_actor(ActorSpec(kind=in_group(group)), at=0.1)
    cluster.call(actor, Spec(), at=0.2)
    cluster.world.at(1.0, lambda: cluster.drivers[0].owner.remove_group(group))
    cluster.submit(Spec(kind=in_group(group)), at=2.0)
    assert cluster.run() == {"crashed": 1, "finished": 1, "infeasible": 1}


def test_higher_priorities_go_first() -> None:
    cluster = Cluster(1, (1,), num_drivers=2)
    for _ in range(30):
        cluster.submit(Spec(seconds=0.2, function_id="long"), driver=0)
    urgent = [
        cluster.submit(Spec(seconds=0.2, function_id="long", kind=with_priority(1)), driver=1, at=1.0) for _ in range(5)
    ]
    states: list[int] = []
    cluster.world.at(3.0, lambda: states.append(sum(name in cluster.drivers[1].owner.outcomes for name in urgent)))
    assert cluster.run() == {"finished": 35}
    assert states == [5]


# 395 once placed an actor that had been killed in the same moment.
@pytest.mark.parametrize("seed", [*range(40), 395])
def test_nothing_is_lost_or_granted_twice_whatever_happens(seed: int) -> None:
    """Tasks, actors, groups, priorities, Dask's load and full memories; crashes, kills, owners and nodes that go."""
    setup = Random(1_000 + seed)
    cpus = setup.choice([(2,), (2, 1), (2, 2, 1)])
    cluster = Cluster(seed, cpus, num_drivers=setup.choice([1, 2, 3]))
    some_driver = lambda: setup.randrange(len(cluster.drivers))  # noqa: E731
    for _ in range(30):
        spec = random_spec(cluster.random, 1, crashes=True)
        spec.kind = setup.choice([spec.kind, with_priority(setup.randrange(-1, 2))])
        cluster.submit(spec, some_driver(), setup.random())
    actors = []
    for _ in range(4):
        init = Spec(seconds=setup.choice([0.001, 0.1]), crashes=setup.choice([0, 0, 1]))
        kind = setup.choice([NOTHING, HALF, CPU, TWO_CPUS])
        spec = ActorSpec(init, setup.random() < 0.1, kind, setup.choice([0, 1, -1]), setup.random() < 0.3)
        creator, born = some_driver(), setup.random()
        actors.append((cluster.create_actor(spec, creator, born), creator, born))
    for actor, creator, born in actors:
        for _ in range(12):
            crashes = setup.choice([0] * 12 + [1])
            caller = setup.choice([creator, some_driver()])
            call = Spec(setup.choice([0.001, 0.05]), retries=setup.choice([0, 1, -1]), crashes=crashes)
            ready_after = setup.choice([0.0, 0.0, 0.2])
            cluster.call(actor, call, caller, born + 0.05 + setup.random(), ready_after)
        if setup.random() < 0.5:
            owner = cluster.drivers[creator].owner
            restart = setup.random() < 0.5
            cluster.world.at(
                born + 1.5 * setup.random(), cluster.drivers[creator].hear, owner.kill_actor, actor, restart
            )
    for _ in range(3):
        driver, when = some_driver(), setup.random()
        strategy = setup.choice(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"])
        group = cluster.create_group(
            [setup.choice([0.5, 1]) for _ in range(setup.choice([1, 2]))], strategy, driver, when
        )
        for _ in range(4):
            spec = Spec(setup.choice([0.001, 0.1]), "grouped", in_group(group, setup.choice([-1, 0, 1])))
            cluster.submit(spec, driver, when + 0.5 * setup.random())
        owner = cluster.drivers[driver].owner
        cluster.world.at(when + 2 * setup.random(), cluster.drivers[driver].hear, owner.remove_group, group)
    for agent in cluster.agents:
        for when in (0.2, 0.6, 1.0):
            cluster.world.at(when, agent.hear, agent.busy, setup.choice([0.0, 1.0, 2.0]))
        cluster.world.at(2.0, agent.hear, agent.busy, 0.0)
        cluster.world.at(setup.choice([0.1, 0.5]), agent.hear, agent.full, setup.choice([0.01, 0.4]))
        cluster.world.at(setup.choice([0.05, 0.3, 0.7]), agent.hear, agent.drained, setup.choice([0.01, 0.4]))
    # Actors that hold all there is would leave the others waiting for ever.
    for actor, _, _ in actors:
        cluster.world.at(6.0, cluster.controller.kill_actor, actor, False)
    cancel_some(cluster)
    kill_some(cluster, 4)
    if len(cluster.drivers) > 1:
        cluster.world.at(setup.random(), cluster.drivers[-1].die)
    if len(cluster.agents) > 1:
        cluster.world.at(setup.random(), cluster.agents[-1].die)
    outcomes = cluster.run()
    assert set(outcomes) <= {"finished", "cancelled", "crashed", "infeasible", "died", "unavailable"}
    assert outcomes["finished"]
