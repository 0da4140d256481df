"""The task machine: which task goes to which lease, and when."""

from __future__ import annotations

import pytest

from shoal.machines.tasks import (
    IDLE_KEEP,
    MAX_DEPTH,
    MAX_WANTED,
    STALL,
    TARGET_BACKLOG,
    TURN,
    Action,
    Fail,
    GiveBack,
    Lease,
    Send,
    SendCancel,
    SendRecall,
    SetDemand,
    Task,
    TaskMachine,
)
from shoal.model.placement import SchedulingClass
from shoal.model.resources import make_resources

CPU = SchedulingClass(make_resources({"num_cpus": 1}))
GPU = SchedulingClass(make_resources({"num_gpus": 1}))


def make_task(number: int, function_id: str = "f", kind: SchedulingClass = CPU, retries: int = 0) -> Task:
    return Task(f"task-{number}", function_id, kind, retries, spec=None)


def make_lease(number: int, kind: SchedulingClass = CPU) -> Lease:
    return Lease(f"lease-{number}", kind, f"address-{number}")


def submit(machine: TaskMachine, count: int, function_id: str = "f", retries: int = 0) -> list[Task]:
    first = len(machine.tasks)
    tasks = [make_task(first + number, function_id, retries=retries) for number in range(count)]
    for task in tasks:
        machine.submit(task)
    return tasks


def learn(machine: TaskMachine, seconds: float, function_id: str = "f") -> Lease:
    """Have the machine see one call of *seconds*; returns the idle lease it ran on."""
    lease = make_lease(0)
    machine.submit(Task("task-learn", function_id, CPU, 0, None))
    machine.granted(lease, 0.0)
    machine.flush(0.0)
    machine.finished("task-learn", seconds, 0.0)
    machine.flush(0.0)
    return lease


def sent(actions: list[Action]) -> dict[str, list[str]]:
    """Return the ids of the tasks sent, by lease."""
    return {a.lease.lease_id: [task.task_id for task in a.tasks] for a in actions if isinstance(a, Send)}


def ids(tasks: list[Task]) -> list[str]:
    return [task.task_id for task in tasks]


# -- demand ------------------------------------------------------------------------------------------------------


def test_a_queue_grows_by_a_handful_of_demands() -> None:
    machine = TaskMachine()
    wanted = []
    for number in range(20):
        machine.submit(make_task(number))
        wanted += [action.wanted for action in machine.flush(0.0) if isinstance(action, SetDemand)]
    assert wanted == [1, 2, 4, 8, 16, 32]


def test_demand_is_bounded() -> None:
    machine = TaskMachine()
    submit(machine, 3 * MAX_WANTED)
    assert machine.flush(0.0) == [SetDemand(CPU, MAX_WANTED)]


def test_each_class_has_a_demand_of_its_own() -> None:
    machine = TaskMachine()
    machine.submit(make_task(1))
    machine.submit(make_task(2, kind=GPU))
    assert set(machine.flush(0.0)) == {SetDemand(CPU, 1), SetDemand(GPU, 1)}


def test_demand_falls_to_what_is_held_when_the_queue_is_empty() -> None:
    machine = TaskMachine()
    submit(machine, 2)
    assert machine.flush(0.0) == [SetDemand(CPU, 2)]
    lease = make_lease(1)
    machine.granted(lease, 0.0)
    machine.flush(0.0)
    machine.finished("task-0", 0.0001, 0.0)
    assert SetDemand(CPU, 1) in machine.flush(0.0)


def test_nothing_changed_means_no_actions() -> None:
    machine = TaskMachine()
    submit(machine, 2)
    machine.flush(0.0)
    assert machine.flush(1.0) == []
    assert machine.num_queued == 2
    assert not machine.needs_tick


# -- placing -----------------------------------------------------------------------------------------------------


def test_a_function_never_seen_is_sent_one_at_a_time() -> None:
    machine = TaskMachine()
    submit(machine, 5)
    machine.granted(make_lease(1), 0.0)
    machine.granted(make_lease(2), 0.0)
    assert sent(machine.flush(0.0)) == {"lease-1": ["task-0"], "lease-2": ["task-1"]}
    assert machine.num_queued == 3


def test_a_slow_function_is_sent_one_at_a_time() -> None:
    machine = TaskMachine()
    learn(machine, 2 * TARGET_BACKLOG)
    submit(machine, 3)
    assert sent(machine.flush(0.0)) == {"lease-0": ["task-0"]}


@pytest.mark.parametrize("seconds", [0.004, 0.001, 0.0003])
def test_short_tasks_are_sent_ahead_up_to_the_backlog(seconds: float) -> None:
    machine = TaskMachine()
    lease = learn(machine, seconds)
    submit(machine, 500)
    (batch,) = sent(machine.flush(0.0)).values()
    assert 0.8 * TARGET_BACKLOG <= len(batch) * seconds <= 1.001 * TARGET_BACKLOG
    assert list(lease.sent) == batch


def test_depth_is_bounded_however_short_tasks_are() -> None:
    machine = TaskMachine()
    learn(machine, 0.0)
    submit(machine, 2 * MAX_DEPTH)
    assert [len(batch) for batch in sent(machine.flush(0.0)).values()] == [MAX_DEPTH]


def test_few_short_tasks_are_spread_evenly() -> None:
    machine = TaskMachine()
    learn(machine, 0.0001)
    for number in (1, 2):
        machine.granted(make_lease(number), 0.0)
    submit(machine, 7)
    assert sorted(len(batch) for batch in sent(machine.flush(0.0)).values()) == [2, 2, 3]


def test_a_task_goes_only_to_a_lease_of_its_class() -> None:
    machine = TaskMachine()
    machine.submit(make_task(1, kind=GPU))
    machine.granted(make_lease(1), 0.0)
    assert sent(machine.flush(0.0)) == {}
    machine.granted(make_lease(2, GPU), 0.0)
    assert sent(machine.flush(0.0)) == {"lease-2": ["task-1"]}


def test_the_estimate_follows_a_function_that_has_become_faster() -> None:
    """Depth comes from what is in flight, so one that was slow at first is pipelined as deep as any other."""
    machine = TaskMachine()
    lease = learn(machine, 0.009)
    submit(machine, 400)
    machine.flush(0.0)
    assert len(lease.sent) == 2
    for number in range(120):  # never empty, and ever shorter
        machine.finished(next(iter(lease.sent)), 0.0001, number * 0.0001)
        machine.flush(number * 0.0001)
    assert len(lease.sent) > 50


# -- answers -----------------------------------------------------------------------------------------------------


def test_an_answer_ends_a_task_once() -> None:
    machine = TaskMachine()
    (task,) = submit(machine, 1)
    assert machine.finished("task-0", 0.1, 0.0) is None, "it is still queued"
    machine.granted(make_lease(1), 0.0)
    machine.flush(0.0)
    assert machine.finished("task-0", 0.1, 0.0) is task
    assert machine.finished("task-0", 0.1, 0.0) is None
    assert machine.tasks == {}


def test_returned_tasks_keep_their_place_in_the_queue() -> None:
    machine = TaskMachine()
    lease = learn(machine, 0.001)
    submit(machine, 6)
    machine.flush(0.0)
    machine.returned(lease.lease_id, tuple(lease.sent)[2:], False, 0.0)
    assert sent(machine.flush(0.0)) == {"lease-0": ["task-2", "task-3", "task-4", "task-5"]}


def test_returned_by_a_lease_that_lost_them_changes_nothing() -> None:
    machine = TaskMachine()
    submit(machine, 1)
    first, second = make_lease(1), make_lease(2)
    machine.granted(first, 0.0)
    machine.granted(second, 0.0)
    machine.flush(0.0)
    machine.returned("lease-2", ("task-0", "task-unknown"), False, 0.0)
    machine.returned("lease-unknown", ("task-0",), False, 0.0)
    assert list(first.sent) == ["task-0"]
    assert machine.num_queued == 0


# -- waiting -----------------------------------------------------------------------------------------------------


def test_a_lease_whose_task_waits_gets_nothing_until_it_goes_on() -> None:
    machine = TaskMachine()
    lease = learn(machine, 0.001)
    submit(machine, 3)
    machine.flush(0.0)
    machine.returned(lease.lease_id, ("task-1", "task-2"), True, 0.0)
    assert machine.flush(0.0) == [SetDemand(CPU, 3)]
    machine.resumed(lease.lease_id, 0.0)
    assert sent(machine.flush(0.0)) == {"lease-0": ["task-1", "task-2"]}


def test_a_recall_that_finds_nothing_does_not_end_the_waiting() -> None:
    machine = TaskMachine()
    lease = learn(machine, 0.001)
    submit(machine, 1)
    machine.flush(0.0)
    machine.returned(lease.lease_id, (), True, 0.0)
    machine.returned(lease.lease_id, (), False, 0.0)
    submit(machine, 1)
    assert sent(machine.flush(0.0)) == {}


def test_tasks_that_crossed_the_word_that_their_lease_waits_are_recalled() -> None:
    """They lie behind the waiting task, which may be waiting for them."""
    machine = TaskMachine()
    lease = learn(machine, 0.001)
    submit(machine, 1)
    machine.flush(0.0)
    submit(machine, 1)
    machine.flush(0.0)
    machine.returned(lease.lease_id, (), True, 0.0)  # sent before `task-1` arrived there
    assert SendRecall(lease) in machine.flush(0.0)


# -- giving back -------------------------------------------------------------------------------------------------


def test_an_idle_lease_is_kept_warm_for_a_while() -> None:
    machine = TaskMachine()
    lease = learn(machine, 0.001)
    machine.tick(IDLE_KEEP)
    assert machine.flush(IDLE_KEEP) == []
    assert machine.needs_tick
    machine.tick(IDLE_KEEP + 0.1)
    assert machine.flush(IDLE_KEEP + 0.1) == [GiveBack(lease)]
    assert not machine.needs_tick


def test_a_lease_wanted_back_when_idle_goes_when_the_queue_is_empty() -> None:
    machine = TaskMachine()
    submit(machine, 2)
    lease = make_lease(1)
    machine.granted(lease, 0.0)
    machine.flush(0.0)
    machine.reclaim(lease.lease_id, idle_only=True, now=0.0)
    assert machine.flush(0.0) == []
    machine.finished("task-0", 1.0, 1.0)
    assert sent(machine.flush(1.0)) == {"lease-1": ["task-1"]}
    machine.finished("task-1", 1.0, 2.0)
    assert GiveBack(lease) in machine.flush(2.0)


def test_a_draining_lease_is_recalled_and_goes_in_spite_of_a_queue() -> None:
    machine = TaskMachine()
    lease = learn(machine, 0.001)
    submit(machine, 4)
    machine.flush(0.0)
    machine.reclaim(lease.lease_id, idle_only=False, now=TURN)
    machine.reclaim(lease.lease_id, idle_only=False, now=TURN)
    assert machine.flush(0.0) == [SendRecall(lease)]
    machine.returned(lease.lease_id, ("task-1", "task-2", "task-3"), False, 0.0)
    machine.flush(0.0)
    machine.finished("task-0", 0.001, 0.0)
    actions = machine.flush(0.0)
    assert GiveBack(lease) in actions
    assert sent(actions) == {}
    assert machine.num_queued == 3


def test_a_lease_whose_connection_broke_is_given_back_as_broken() -> None:
    """The executor may go on with what it has begun: nobody else must get it."""
    machine = TaskMachine()
    submit(machine, 1, retries=1)
    lease = make_lease(1)
    machine.granted(lease, 0.0)
    machine.flush(0.0)
    machine.cut_off(lease.lease_id, "the connection was lost")
    machine.cut_off(lease.lease_id, "the connection was lost")
    actions = machine.flush(0.0)
    assert actions.count(GiveBack(lease, broken=True)) == 1 and machine.num_queued == 1


def test_a_lease_that_cannot_be_reached_is_given_back_and_asked_for_again() -> None:
    machine = TaskMachine()
    submit(machine, 1)
    machine.flush(0.0)
    lease = make_lease(1)
    machine.unreachable(lease)
    assert machine.flush(0.0) == [GiveBack(lease, broken=True), SetDemand(CPU, 1)]


def test_work_behind_a_task_that_takes_too_long_is_recalled_once_and_waits_for_another_lease() -> None:
    machine = TaskMachine()
    busy = learn(machine, 0.001)
    submit(machine, 4)
    machine.flush(0.0)
    machine.tick(2 * STALL)
    machine.tick(3 * STALL)
    assert machine.flush(3 * STALL) == [SendRecall(busy)]
    machine.returned(busy.lease_id, ("task-1", "task-2", "task-3"), False, 3 * STALL)
    (demand,) = machine.flush(3 * STALL)
    assert isinstance(demand, SetDemand) and demand.wanted > 1, "nothing is sent behind it again"
    machine.granted(make_lease(1), 4 * STALL)
    assert [len(batch) for batch in sent(machine.flush(4 * STALL)).values()] == [3]


def test_a_lease_that_has_stalled_is_as_good_as_any_when_its_task_has_ended() -> None:
    machine = TaskMachine()
    busy = learn(machine, 0.001)
    submit(machine, 3)
    machine.flush(0.0)
    machine.tick(2 * STALL)
    machine.returned(busy.lease_id, ("task-1", "task-2"), False, 2 * STALL)
    machine.flush(2 * STALL)
    machine.finished("task-0", 0.001, 3 * STALL)
    assert [len(batch) for batch in sent(machine.flush(3 * STALL)).values()] == [2]


# -- losses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begun", "attempts"),
    [("", [0, 0, 0]), ("task-0", [1, 0, 0]), ("task-1", [1, 1, 0]), ("task-9", [0, 0, 0]), ("?", [1, 1, 1])],
)
def test_only_tasks_that_may_have_begun_use_up_an_attempt(begun: str, attempts: list[int]) -> None:
    machine = TaskMachine()
    lease = learn(machine, 0.001)
    tasks = submit(machine, 3, retries=1)
    machine.flush(0.0)
    machine.lost(lease.lease_id, begun, "killed")
    machine.flush(0.0)
    assert [task.attempt for task in tasks] == attempts
    assert [task.retries_left for task in tasks] == [1 - attempt for attempt in attempts]
    machine.granted(make_lease(2), 0.0)
    assert sent(machine.flush(0.0)) == {"lease-2": ids(tasks)}, "in the order they had"


def test_a_task_without_retries_ends_with_what_happened() -> None:
    machine = TaskMachine()
    (task,) = submit(machine, 1)
    lease = make_lease(1)
    machine.granted(lease, 0.0)
    machine.flush(0.0)
    machine.lost(lease.lease_id, "task-0", "killed")
    machine.lost(lease.lease_id, "task-0", "killed")
    actions = machine.flush(0.0)
    assert actions.count(Fail(task, "crashed", "killed")) == 1
    assert machine.tasks == {} and machine.leases == {}


def test_an_answer_that_comes_after_its_executor_was_lost_is_ignored() -> None:
    machine = TaskMachine()
    (task,) = submit(machine, 1, retries=1)
    lease = make_lease(1)
    machine.granted(lease, 0.0)
    machine.flush(0.0)
    machine.lost(lease.lease_id, "task-0", "killed")
    assert machine.finished("task-0", 0.1, 0.1) is None
    assert machine.tasks == {"task-0": task}


# -- cancelling --------------------------------------------------------------------------------------------------


def test_cancelling_a_queued_task_ends_it_at_once() -> None:
    machine = TaskMachine()
    tasks = submit(machine, 3)
    machine.flush(0.0)
    machine.cancel("task-1")
    machine.cancel("task-1")
    machine.cancel("task-unknown")
    assert [action for action in machine.flush(0.0) if isinstance(action, Fail)] == [Fail(tasks[1], "cancelled")]
    machine.granted(make_lease(1), 0.0)
    machine.granted(make_lease(2), 0.0)
    assert sent(machine.flush(0.0)) == {"lease-1": ["task-0"], "lease-2": ["task-2"]}


def test_cancelling_the_last_queued_task_takes_the_demand_back() -> None:
    machine = TaskMachine()
    submit(machine, 1)
    machine.flush(0.0)
    machine.cancel("task-0")
    assert SetDemand(CPU, 0) in machine.flush(0.0)
    assert machine.num_queued == 0


def test_cancelling_a_sent_task_asks_its_executor_once() -> None:
    machine = TaskMachine()
    (task,) = submit(machine, 1)
    lease = make_lease(1)
    machine.granted(lease, 0.0)
    machine.flush(0.0)
    machine.cancel("task-0")
    machine.cancel("task-0")
    assert machine.flush(0.0) == [SendCancel(lease, task, force=False, recursive=True)]
    assert machine.finished("task-0", 0.1, 0.1) is task


@pytest.mark.parametrize("how", ["returned", "lost"])
def test_a_cancelled_task_that_comes_back_ends_as_cancelled(how: str) -> None:
    machine = TaskMachine()
    (task,) = submit(machine, 1, retries=3)
    lease = make_lease(1)
    machine.granted(lease, 0.0)
    machine.flush(0.0)
    machine.cancel("task-0")
    if how == "returned":
        machine.returned(lease.lease_id, ("task-0",), False, 0.0)
    else:
        machine.lost(lease.lease_id, "?", "killed")
    assert Fail(task, "cancelled") in machine.flush(0.0)
    assert machine.tasks == {} and machine.num_queued == 0


# -- infeasible --------------------------------------------------------------------------------------------------


def test_infeasible_fails_what_waits_and_leaves_other_classes_alone() -> None:
    machine = TaskMachine()
    kept = make_task(1)
    machine.submit(kept)
    failed = [make_task(2, kind=GPU), make_task(3, kind=GPU)]
    for task in failed:
        machine.submit(task)
    machine.flush(0.0)
    machine.infeasible(GPU, "no GPU")
    assert machine.flush(0.0) == [Fail(task, "infeasible", "no GPU") for task in failed]
    assert list(machine.tasks.values()) == [kept]
    machine.submit(make_task(4, kind=GPU))
    assert machine.flush(0.0) == [SetDemand(GPU, 1)], "a node that has one may have joined"


def test_force_is_passed_on_even_after_a_gentle_cancel() -> None:
    machine = TaskMachine()
    task, lease = make_task(1), make_lease(1)
    machine.submit(task)
    machine.granted(lease, 0.0)
    machine.flush(0.0)
    machine.cancel("task-1", recursive=False)
    machine.cancel("task-1")
    machine.cancel("task-1", force=True)
    assert machine.flush(0.0) == [SendCancel(lease, task, False, False), SendCancel(lease, task, True, True)]


def test_a_task_that_failed_can_be_queued_again() -> None:
    machine = TaskMachine()
    task, lease = make_task(1, retries=1), make_lease(1)
    machine.submit(task)
    machine.granted(lease, 0.0)
    machine.flush(0.0)
    assert machine.finished("task-1", 0.001, 0.1) is task
    machine.again(task)
    assert machine.flush(0.1) == [Send(lease, [task])]
    assert (task.attempt, task.retries_left) == (1, 0)


def test_retries_without_end_never_run_out() -> None:
    machine = TaskMachine()
    task = make_task(1, retries=-1)
    machine.submit(task)
    for attempt in range(5):
        lease = make_lease(attempt)
        machine.granted(lease, 0.0)
        machine.flush(0.0)
        machine.lost(lease.lease_id, "task-1", None)
        assert task.attempt == attempt + 1
    assert "task-1" in machine.tasks


def test_a_lease_that_others_wait_for_is_kept_for_its_turn() -> None:
    machine, lease = TaskMachine(), make_lease(1)
    for number in range(3):
        machine.submit(make_task(number))
    machine.granted(lease, 1.0)
    machine.flush(1.0)
    machine.reclaim(lease.lease_id, idle_only=False, now=1.0)
    machine.finished("task-0", 0.001, 1.0)
    (send,) = [action for action in machine.flush(1.0) if isinstance(action, Send)]  # its turn has only begun
    machine.tick(1.0 + TURN)
    for task in send.tasks:
        machine.finished(task.task_id, 0.001, 1.0 + TURN)
    assert GiveBack(lease) in machine.flush(1.0 + TURN)
