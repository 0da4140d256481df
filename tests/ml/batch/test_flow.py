"""The flow machine: no cluster, no clock; hypothesis orders the events and breaks what it likes."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal_ml.batch import flow as f
from shoal_ml.batch.handles import UNKNOWN, Handle


class World:
    """Plays the shell: does what the machine says, in an order that a seed gives, and checks what must always hold."""

    def __init__(self, flow, source, *, seed, fan=1, breaks=0.0, consumes=0.5):
        self.flow, self.source = flow, list(source)
        self.random = random.Random(seed)
        self.fan, self.breaks, self.consumes = fan, breaks, consumes
        self.running: list[f.Work] = []
        self.starting: list[tuple[int, int]] = []
        self.replicas: dict[int, set[int]] = {}
        self.waiting: list[Handle] = []
        self.out: list[Handle] = []
        self.pulls = 0
        self.ended = self.gave_up = False
        self.most_running = 0

    def run(self):
        self.do(self.flow.begin())
        for _ in range(200_000):
            if self.ended or self.gave_up:
                break
            self.do(self.step())
        else:
            raise AssertionError("it does not end")
        self.out += self.waiting
        return self

    def step(self):
        """One event that could come now; there must always be one."""
        choices = ["work"] * len(self.running) + ["start"] * len(self.starting) + ["pull"] * self.pulls
        if self.waiting and (not choices or self.random.random() < self.consumes):
            choices = ["take"]
        assert choices, "the machine waits for nothing"
        kind = self.random.choice(choices)
        if kind == "take":
            handle = self.waiting.pop(0)
            self.out.append(handle)
            return self.flow.taken(handle)
        if kind == "pull":
            self.pulls -= 1
            return self.flow.pulled(self.source.pop(0)) if self.source else self.flow.source_ended()
        if kind == "start":
            stage, replica = self.starting.pop(self.random.randrange(len(self.starting)))
            self.replicas.setdefault(stage, set()).add(replica)
            return self.flow.replica_ready(stage, replica)
        return self.work()

    def work(self):
        work = self.random.choice(self.running)
        if self.random.random() < self.breaks and work.attempt < f.MAX_RETRIES - 1:
            return self.break_it(work)
        if work.received < self.fan:
            inputs = tuple(row for handle in work.inputs for row in handle.value)
            share = inputs[work.received :: self.fan]
            return self.flow.result(work, work.received, block(*share, nbytes=10))
        self.running.remove(work)
        return self.flow.ended(work)

    def break_it(self, work):
        if work.replica is None:
            self.running.remove(work)
            return self.flow.lost(work)
        self.replicas[work.stage].discard(work.replica)
        lost = [other for other in self.running if other.replica == work.replica]
        actions = list(self.flow.replica_lost(work.stage, work.replica))
        for other in lost:
            self.running.remove(other)
            actions += self.flow.lost(other)
        return actions

    def do(self, actions):
        for action in actions:
            match action:
                case f.Begin(work):
                    self.running.append(work)
                    spec = self.flow.stages[work.stage].spec
                    if work.replica is not None:
                        assert work.replica in self.replicas[work.stage]
                        mine = [other for other in self.running if other.replica == work.replica]
                        assert len(mine) <= spec.slots
                    else:
                        assert sum(other.stage == work.stage for other in self.running) <= spec.slots
                    self.most_running = max(self.most_running, len(self.running))
                case f.Abandon(work):
                    self.running.remove(work)
                case f.Emit(handle):
                    self.waiting.append(handle)
                case f.Pull():
                    self.pulls += 1
                case f.StartReplica(stage, replica):
                    self.starting.append((stage, replica))
                case f.StopReplica(stage, replica):
                    assert not any(work.replica == replica for work in self.running)
                    self.replicas.get(stage, set()).discard(replica)
                    self.starting = [item for item in self.starting if item != (stage, replica)]
                case f.Finish():
                    self.ended = True
                case f.GiveUp():
                    self.gave_up = True
        assert self.flow.held >= 0 and self.flow.reserved >= 0

    @property
    def rows(self):
        return [row for handle in self.out for row in handle.value]


def block(*rows, nbytes=10):
    return Handle(rows, len(rows), nbytes)


def blocks(count, nbytes=10, rows=1):
    return [block(*range(n * rows, (n + 1) * rows), nbytes=nbytes) for n in range(count)]


stages = st.lists(
    st.one_of(
        st.builds(lambda slots, rows: f.StageSpec("task", slots, None, rows), st.integers(1, 4), st.integers(0, 5)),
        st.builds(
            lambda fewest, more: f.StageSpec("pool", 2, (fewest, fewest + more)), st.integers(1, 3), st.integers(0, 3)
        ),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(
    stages, st.integers(0, 40), st.integers(1, 200), st.integers(0, 10**6), st.sampled_from([1, 1, 2]),
    st.sampled_from([0.0, 0.1]), st.booleans(), st.sampled_from([0.05, 0.5, 1.0]),
)  # fmt: skip
def test_every_row_comes_out_once_and_in_order(specs, count, budget, seed, fan, breaks, ordered, consumes):
    flow = f.Flow(specs, budget=budget, ordered=ordered)
    world = World(flow, blocks(count), seed=seed, fan=fan, breaks=breaks, consumes=consumes).run()
    if world.gave_up:
        assert breaks
        return
    assert sorted(world.rows) == list(range(count))
    if ordered and fan == 1:
        assert world.rows == list(range(count))
    assert not world.running and not world.starting
    for handle in world.waiting:
        flow.taken(handle)
    assert flow.held == flow.reserved == 0
    assert not any(world.replicas.values()), "replicas are stopped at the end"


@settings(max_examples=100, deadline=None)
@given(stages, st.integers(1, 60), st.integers(0, 70), st.integers(0, 10**6), st.integers(1, 3))
def test_a_limit_gives_the_first_rows_and_ends_the_rest(specs, count, limit, seed, rows):
    specs = [*specs, f.StageSpec("limit", limit=limit), f.StageSpec("after", 2)]
    flow = f.Flow(specs, budget=100)

    world = World(flow, blocks(count, rows=rows), seed=seed)
    world.run()
    assert sum(handle.num_rows for handle in world.out) == sum(len(handle.value) for handle in world.out)
    expected = list(range(count * rows))[:limit]
    assert [row for row in world.rows if row in expected] == expected
    assert flow.stages[-2].rows_out == len(expected)


@pytest.mark.parametrize("num_stages", [1, 2, 3])
def test_the_budget_holds_whatever_the_consumer_does(num_stages):
    specs = [f.StageSpec(f"s{n}", 8) for n in range(num_stages)]
    flow = f.Flow(specs, budget=1000)
    world = World(flow, blocks(500, nbytes=100), seed=3, consumes=0.01)
    world.run()
    # one block of each stage may be on top of the budget: there must be some way forward
    assert flow.most_held <= 1000 + 100 * (num_stages + 1)
    assert len(world.rows) == 500


def test_nothing_is_read_ahead_of_a_consumer_who_waits():
    flow = f.Flow([f.StageSpec("s", 4)], budget=1 << 40)
    world = World(flow, blocks(10_000), seed=0)
    world.do(flow.begin())
    while world.running or world.pulls:
        taken, world.waiting = world.waiting, []  # nobody takes
        world.do(world.step())
        world.waiting = taken + world.waiting
    assert len(world.waiting) + len(world.running) <= 2 * f.MIN_WAITING


def test_pieces_that_were_not_read_are_no_bytes_held():
    flow = f.Flow([f.StageSpec("s", 4)], budget=100)
    piece = Handle("piece", UNKNOWN, 1 << 40)
    flow.begin()
    flow.pulled(piece)
    assert flow.held == 0


def test_a_pool_grows_while_work_waits_and_shrinks_when_it_idles():
    flow = f.Flow([f.StageSpec("pool", 1, (1, 3))], budget=1 << 30)
    started = [a.replica for a in flow.begin() if isinstance(a, f.StartReplica)]
    assert len(started) == 1
    begun = []
    for handle in blocks(4):
        begun += flow.pulled(handle)
    assert not any(isinstance(a, f.StartReplica) for a in begun), "the first is not ready yet"
    actions = flow.replica_ready(0, started[0])
    second = next(a.replica for a in actions if isinstance(a, f.StartReplica))
    first_work = next(a.work for a in actions if isinstance(a, f.Begin))
    actions = flow.replica_ready(0, second)
    assert any(isinstance(a, f.Begin) and a.work.replica == second for a in actions)
    third = next(a.replica for a in actions if isinstance(a, f.StartReplica))
    flow.ended(first_work)  # one less to do: the third is idle when it comes
    while flow.stages[0].queue or flow.stages[0].running:
        for work in list(flow.stages[0].running.values()):
            flow.ended(work)
    flow.replica_ready(0, third)
    stopped = [a for a in flow.tick(f.IDLE_SECONDS + 1) if isinstance(a, f.StopReplica)]
    assert len(stopped) == 2 and len(flow.stages[0].replicas) == 1


def test_replicas_that_never_start_end_the_plan():
    flow = f.Flow([f.StageSpec("pool", 2, (1, 1))], budget=100)
    actions = flow.begin()
    for _ in range(f.MAX_FAILED_STARTS):
        (replica,) = [a.replica for a in actions if isinstance(a, f.StartReplica)]
        actions = flow.replica_lost(0, replica)
    assert any(isinstance(a, f.GiveUp) for a in actions)


def test_work_that_ends_every_process_ends_the_plan():
    flow = f.Flow([f.StageSpec("tasks", 1)], budget=100)
    flow.begin()
    actions = flow.pulled(block(1))
    for _ in range(f.MAX_RETRIES + 1):
        (work,) = [a.work for a in actions if isinstance(a, f.Begin)]
        actions = flow.lost(work)
    assert any(isinstance(a, f.GiveUp) for a in actions)


def test_a_second_attempt_goes_on_after_the_results_that_were_taken():
    flow = f.Flow([f.StageSpec("tasks", 1)], budget=100)
    flow.begin()
    (work,) = [a.work for a in flow.pulled(block(1, 2, 3)) if isinstance(a, f.Begin)]
    flow.result(work, 0, block(1))
    (again,) = [a.work for a in flow.lost(work) if isinstance(a, f.Begin)]
    assert again.received == 1
    assert not [a for a in flow.result(work, 1, block(2)) if isinstance(a, f.Emit)], "given up"
    emitted = [a for a in flow.result(again, 1, block(2)) if isinstance(a, f.Emit)]
    assert [a.handle.value for a in emitted] == [(2,)]
