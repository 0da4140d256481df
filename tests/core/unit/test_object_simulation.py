"""Runs of the simulation of :mod:`object_simulation`: what once went wrong, calm weather, and storms.

``SHOAL_SIMULATION_SEEDS=5000`` has as many runs made of each kind of weather (with ``--timeout=0``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import pytest
from object_simulation import Process, Steps, World

from shoal.runtime.refs import ObjectRef

SEEDS = int(os.environ.get("SHOAL_SIMULATION_SEEDS", "0"))


@contextlib.contextmanager
def told(world: World) -> Iterator[None]:
    """Have a failure tell what happened before."""
    try:
        yield
    except Exception as error:
        error.add_note("\n".join(["What happened:", *world.trace]))
        raise


# -- one thing at a time ---------------------------------------------------------------------------------------------


def keep(process: Process, refs: list[ObjectRef]) -> Steps:
    process.kept += refs
    yield
    return []


def keep_and_stay(process: Process, refs: list[ObjectRef]) -> Steps:
    process.kept += refs
    yield lambda: "go on" in process.world.bodies
    return []


def wait(process: Process, refs: list[ObjectRef]) -> Steps:
    yield lambda: "go on" in process.world.bodies
    return []


def echo(process: Process, refs: list[ObjectRef]) -> Steps:
    yield
    return refs


def stay_and_echo(process: Process, refs: list[ObjectRef]) -> Steps:
    yield lambda: "go on" in process.world.bodies
    return refs


def forget(process: Process, refs: list[ObjectRef]) -> Steps:
    yield
    process.kept.clear()
    return []


def have_kept(process: Process, refs: list[ObjectRef]) -> Steps:
    """Have the next executor keep them, and wait until it does."""
    made = process.submit_task("keep", nested=refs, on="exec2" if process.owner_id == "exec1" else "exec1")
    yield from process.get_value(made[0])
    return []


def wait_for_nothing(process: Process, refs: list[ObjectRef]) -> Steps:
    yield
    return []


def get_first(process: Process, refs: list[ObjectRef]) -> Steps:
    return (yield from process.get_value(refs[0]))


def have_echoed(process: Process, refs: list[ObjectRef]) -> Steps:
    made = process.submit_task("echo", nested=refs, on="exec1")
    yield from process.get_value(made[0])
    return []


def make(num_drivers: int = 1) -> World:
    world = World(1, num_drivers)
    for body in (
        keep,
        keep_and_stay,
        wait,
        echo,
        stay_and_echo,
        forget,
        have_kept,
        wait_for_nothing,
        get_first,
        have_echoed,
    ):
        world.bodies[body.__name__] = body
    return world


def test_a_borrower_that_is_counted_again_does_not_overtake_that_count() -> None:
    world = make()
    driver, owner = world["driver0"], world["exec2"]
    with told(world), world.running():
        with owner.acting(None):
            owner.kept.append(owner.put_value())
            made = owner.submit_task("echo", nested=owner.kept, on="exec0")
        driver.kept.append(driver.hold(owner.kept[0].id, owner.address))
        world.settle()
        owner.kept.clear()
        del made
        driver.submit_task("wait", nested=driver.kept, on="exec1")
        world.settle()
        world.slow.add(("exec1", "exec2"))
        driver.submit_task("echo", nested=driver.kept, on="exec1")
        world.settle()
        world.bodies["go on"] = echo
        world.slow.clear()
        world.let_go()


def test_whoever_passes_a_ref_on_for_the_time_of_a_task_is_counted_until_that_is_heard() -> None:
    world = make()
    driver, lender = world["driver0"], world["exec0"]
    with told(world), world.running():
        ref = driver.put_value()
        driver.submit_task("keep", nested=[ref], on="exec0")
        world.settle()
        del ref
        world.slow.add(("exec1", "driver0"))
        with lender.acting(None):
            lender.submit_task("have_kept", nested=lender.kept, on="exec1")
        lender.kept.clear()
        world.settle()
        world.slow.clear()
        world.let_go()


def test_who_sent_a_ref_hears_that_it_is_kept_not_who_sent_other_work() -> None:
    world = make(num_drivers=2)
    driver, other = world["driver0"], world["driver1"]
    with told(world), world.running():
        ref = driver.put_value()
        world.slow.add(("driver1", "driver0"))
        driver.submit_task("keep_and_stay", nested=[ref], on="exec0")
        del ref
        world.settle()
        other.submit_task("echo", on="exec0")
        world.settle()
        world.bodies["go on"] = echo
        world.settle()
        world.slow.clear()
        world.let_go()


def test_a_borrower_that_its_owner_never_met_is_missed_when_it_dies() -> None:
    world = make()
    driver = world["driver0"]
    with told(world), world.running():
        ref = driver.put_value()
        driver.submit_task("have_kept", nested=[ref], on="exec0")
        del ref
        world.settle()
        world.kill(world["exec1"])
        world.let_go()


def test_refs_in_an_answer_are_not_handed_over_to_who_has_died() -> None:
    world = make(num_drivers=2)
    driver, other = world["driver0"], world["driver1"]
    with told(world), world.running():
        driver.kept += driver.submit_task("stay_and_echo", nested=[driver.put_value()], on="exec0")
        other.begin("a wait", other.get_value(other.hold(driver.kept[0].id, driver.address)))
        world.settle()
        world.kill(other)
        world.settle()
        world.bodies["go on"] = echo
        world.let_go()


def test_who_was_cut_off_from_an_owner_does_not_let_go_what_is_not_counted_any_more() -> None:
    world = make()
    driver = world["driver0"]
    with told(world), world.running():
        driver.kept.append(driver.put_value())
        driver.submit_task("keep", nested=driver.kept, on="exec0")
        world.settle()
        world.cut(driver, world["exec0"])
        world.settle()
        driver.submit_task("forget", on="exec0")
        world.let_go()
        assert not len(driver.table)


def test_who_waits_for_what_is_released_as_its_lender_was_cut_off_is_told() -> None:
    world = make(num_drivers=2)
    owner, lender = world["driver0"], world["driver1"]
    with told(world), world.running():
        owner.kept += owner.submit_task("wait", on="exec1")
        world.settle()
        lender.kept.append(lender.hold(owner.kept[0].id, owner.address))
        world.settle()
        lender.submit_task("get_first", nested=lender.kept, on="exec0")
        world.settle()
        owner.kept.clear()
        world.cut(owner, lender)
        world.settle()
        world.bodies["go on"] = echo
        world.let_go()


def get_all(process: Process, refs: list[ObjectRef]) -> Steps:
    """Get every value, and those that their refs stand for, and so on."""
    todo = list(refs)
    while todo:
        todo += yield from process.get_value(todo.pop())
    return []


def lose_and_get(world: World, driver: Process, ref: ObjectRef) -> None:
    """Lose every stored value, and have the driver get that of *ref*."""
    world.settle()
    for path in world.segments:
        world.segments[path] = []
    driver.begin("a wait", driver.get_value(ref))
    world.settle()


@pytest.mark.parametrize("again", [1, 2])
def test_refs_in_arguments_that_were_let_go_are_made_again_with_what_was_made_from_them(again: int) -> None:
    world = make()
    world.bodies["get_all"] = get_all
    driver = world["driver0"]
    with told(world), world.running():
        large = driver.submit_task("echo", large_result=True)
        larger = driver.submit_task("get_all", nested=large, large_result=True)
        small = driver.submit_task("echo")
        box = driver.put_value([driver.put_value(larger), *small])
        world.settle()  # what is inside is known when the task ends
        outer = driver.submit_task("get_all", large, nested=[box, *larger], large_result=True)
        driver.kept += outer
        del large, larger, small, box
        world.settle()
        assert len(driver.table) == 1, "nothing is kept but how it was made"
        world.troubled = True
        for _ in range(again):
            lose_and_get(world, driver, outer[0])
        assert not world.errors
        assert len(driver.table) == 1, "what was made again on the way is let go"
        del outer
        world.let_go()


@pytest.mark.parametrize(("kind", "why"), [("put", "stored with `put`"), ("once", "max_retries=0")])
def test_a_ref_to_what_cannot_be_made_again_is_named(kind: str, why: str) -> None:
    world = make()
    world.bodies["get_all"] = get_all
    driver = world["driver0"]
    with told(world), world.running():
        if kind == "put":
            inner = [driver.put_value(large=True)]
        else:
            inner = driver.submit_task("echo", large_result=True, retries=0)
        world.settle()
        outer = driver.submit_task("get_all", nested=inner, large_result=True)
        world.settle()
        del inner
        world.troubled = True
        lose_and_get(world, driver, outer[0])
        error = str(driver.error_of(outer[0]))
        assert "contains a ref to what is gone, too: it" in error and why in error
        del outer
        world.let_go()


def test_refs_whose_values_came_later_than_the_task_ended_are_not_made_again() -> None:
    world = make()
    driver = world["driver0"]
    with told(world), world.running():
        late = driver.submit_task("stay_and_echo", large_result=True, on="exec1")
        outer = driver.submit_task("wait_for_nothing", nested=late, large_result=True, on="exec0")
        world.settle()
        assert driver.is_ready(outer[0]) and not driver.is_ready(late[0])
        world.bodies["go on"] = echo
        world.settle()
        world.troubled = True
        lose_and_get(world, driver, outer[0])
        assert not world.errors, "it is held here"
        late.clear()
        lose_and_get(world, driver, outer[0])
        assert "was not there yet when the task that had a ref to it ended" in str(driver.error_of(outer[0]))
        del outer
        world.let_go()


# -- calm weather ----------------------------------------------------------------------------------------------------


def runs(usual: int) -> range:
    return range(SEEDS or usual)


def run(
    seed: int, *faults: str, drivers: int = 2, executors: int = 3, greetings: bool = False, timeouts: bool = False
) -> World:
    world = World(seed, drivers, executors)
    world.greetings, world.timeouts = greetings, timeouts
    with told(world):
        world.run(20, [getattr(world, fault) for fault in faults])
    return world


@pytest.mark.parametrize(("drivers", "executors"), [(1, 3), (1, 4), (2, 3)])
def test_nothing_is_freed_too_early_or_left(drivers: int, executors: int) -> None:
    for seed in runs(40):
        assert not run(seed, drivers=drivers, executors=executors).errors


def test_two_connections_between_the_same_two_are_no_harm() -> None:
    for seed in runs(30):
        assert not run(seed, greetings=True).errors


# -- storms ----------------------------------------------------------------------------------------------------------


def test_what_is_given_up_or_lost_and_made_again_leaves_nothing() -> None:
    for seed in runs(50):
        world = run(seed, "lose_some", "lose_some", "lose_some", timeouts=True)
        assert set(world.errors) <= {"TaskTimeoutError", "ObjectLostError"}


def test_processes_die() -> None:
    for seed in runs(50):
        run(seed, "kill_some", "kill_some", executors=4)


def test_connections_break() -> None:
    for seed in runs(50):
        run(seed, "cut_some", "cut_some", executors=4)


def test_everything_at_once() -> None:
    for seed in runs(50):
        faults = ["kill_some", "cut_some", "lose_some"] * 2
        run(seed, *faults, executors=4, greetings=seed % 2 == 0, timeouts=True)
