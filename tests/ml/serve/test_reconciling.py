"""From what is wanted and what there is to what has to be done."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_ml.serve.reconciling import (
    MAX_FAILED_STARTS,
    Configure,
    Drain,
    ReplicaRow,
    Start,
    StartHistory,
    Wanted,
    plan,
)


def rows_of(*states: str) -> list[ReplicaRow]:
    """Make rows of ``version:STATE``."""
    pairs = [state.split(":") for state in states]
    return [ReplicaRow(f"r{n}", version, state) for n, (version, state) in enumerate(pairs)]  # type: ignore[arg-type]


def test_missing_replicas_start_and_surplus_ones_leave_the_youngest_first():
    assert plan(Wanted("a", 2), []) == [Start("a"), Start("a")]
    assert plan(Wanted("a", 1), rows_of("a:RUNNING", "a:STARTING", "a:RUNNING")) == [Drain("r2"), Drain("r1")]
    assert plan(Wanted("a", 0), rows_of("a:RUNNING")) == [Drain("r0")]
    assert plan(Wanted("a", 1), rows_of("a:DRAINING")) == [Start("a")]


def test_one_replica_is_replaced_only_after_its_successor_is_ready():
    rows = rows_of("a:RUNNING")
    assert plan(Wanted("b", 1), rows) == [Start("b")]
    assert plan(Wanted("b", 1), rows_of("a:RUNNING", "b:STARTING")) == []
    assert plan(Wanted("b", 1), rows_of("a:RUNNING", "b:RUNNING")) == [Drain("r0")]


def test_a_new_configuration_reaches_running_replicas():
    rows = rows_of("a:RUNNING", "a:STARTING")
    assert plan(Wanted("a", 2, configured=3), rows) == [Configure("r0")]


def test_nothing_starts_while_it_is_too_early():
    assert plan(Wanted("a", 2), [], may_start=False) == []


@pytest.mark.parametrize("num", [1, 2, 3, 10])
def test_an_update_keeps_as_many_healthy_as_are_wanted_all_the_time(num):
    rows, numbers, most = rows_of(*["a:RUNNING"] * num), itertools.count(num), 0
    for _ in range(100):
        actions = plan(Wanted("b", num), rows)
        for action in actions:
            match action:
                case Start(version):
                    rows.append(ReplicaRow(f"r{next(numbers)}", version))
                case Drain(replica_id):
                    rows = [row for row in rows if row.replica_id != replica_id]
        assert sum(row.state == "RUNNING" for row in rows) >= num
        most = max(most, len(rows))
        starting = [row for row in rows if row.state == "STARTING"]
        if not starting and not actions:
            break
        for row in starting[:1]:
            row.state = "RUNNING"
    assert [row.version for row in rows] == ["b"] * num
    assert most <= num + max(1, -(-num // 4))


@given(st.integers(0, 6), st.integers(0, 10_000))
def test_whatever_happens_it_converges_and_never_drains_below_what_is_wanted(num, seed):
    """Random starts, crashes and changes of version and number; then peace."""
    rng = random.Random(seed)
    rows: list[ReplicaRow] = []
    numbers, wanted = itertools.count(), Wanted("v0", num)

    def act() -> None:
        nonlocal rows
        healthy_before = sum(row.state == "RUNNING" for row in rows)
        drained = 0
        for action in plan(wanted, rows):
            match action:
                case Start(version):
                    rows.append(ReplicaRow(f"r{next(numbers)}", version, configured=wanted.configured))
                case Drain(replica_id):
                    row = next(row for row in rows if row.replica_id == replica_id)
                    drained += row.state == "RUNNING"
                    row.state = "DRAINING"
                case Configure(replica_id):
                    next(row for row in rows if row.replica_id == replica_id).configured = wanted.configured
        assert drained == 0 or healthy_before - drained >= wanted.num_replicas

    for step in range(40):
        match rng.randrange(5):
            case 0:
                wanted = Wanted(f"v{rng.randrange(4)}", rng.randrange(6), step)
            case 1 if rows:
                rows.remove(rng.choice(rows))
            case _:
                for row in [row for row in rows if row.state != "RUNNING" and rng.random() < 0.5]:
                    if row.state == "DRAINING":
                        rows.remove(row)
                    else:
                        row.state = "RUNNING"
        act()
    for _ in range(60):
        rows = [row for row in rows if row.state != "DRAINING"]
        for row in rows:
            row.state = "RUNNING"
        act()
    rows = [row for row in rows if row.state != "DRAINING"]
    assert [row.version for row in rows] == [wanted.version] * wanted.num_replicas
    assert all(row.configured == wanted.configured for row in rows) and plan(wanted, rows) == []


def test_a_version_is_hopeless_after_failures_in_a_row_and_waits_longer_each_time():
    history = StartHistory()
    history.begin("a")
    waits = [history.failed("a") for _ in range(MAX_FAILED_STARTS - 1)]
    assert waits == sorted(waits) and not history.is_hopeless
    history.succeeded("a")
    assert history.proven
    for _ in range(MAX_FAILED_STARTS):
        assert not history.is_hopeless
        history.failed("a")
    assert history.is_hopeless
    history.begin("b")
    assert not history.is_hopeless and history.failed("a") == 0.0
