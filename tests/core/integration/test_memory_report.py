"""``shoal.memory`` says what is stored, where, what made it and who holds it."""

from __future__ import annotations

import collections
import functools
import sys
import threading
import unittest.mock

import numpy as np
import pytest

import shoal
from shoal.runtime import holders

NBYTES = 400_000


@shoal.remote
def make(nbytes: int) -> np.ndarray:
    return np.ones(nbytes, np.uint8)


@shoal.remote
class Keeper:
    def keep(self, box):
        self.box = box

    def store(self, nbytes):
        self.ref = shoal.put(np.ones(nbytes, np.uint8))


def row_of(ref: shoal.ObjectRef) -> object:
    (row,) = (row for row in shoal.memory(limit=100).objects if row.object_id == ref.id)
    return row


def holders_of(ref: shoal.ObjectRef) -> tuple[str, ...]:
    return row_of(ref).held_by


def test_sizes_places_and_makers(cluster, names):
    stored, made, small = shoal.put(np.ones(NBYTES, np.uint8)), make.remote(2 * NBYTES), shoal.put(1)
    shoal.wait([made], timeout=30)
    names(stored=stored, made=made, small=small)
    row = row_of(stored)
    assert (row.where, row.made_by, row.held_by, row.mapped) == ("memory", "put", ("`stored`",), False)
    assert NBYTES <= row.nbytes < NBYTES + 5000 and len(row.nodes) == 1
    assert row_of(made).made_by == "make"
    assert row_of(small).where == "inline" and 0 < row_of(small).nbytes < 100
    report = shoal.memory(limit=2)
    assert [row.object_id for row in report.objects] == [made.id, stored.id]
    assert report.more[0] >= 1 and len(report.stores) == len(shoal.nodes())
    assert all(0 < store.used < store.limit for store in report.stores if store.node in row_of(made).nodes)
    for text in (str(report), report._repr_html_()):
        assert "made" in text and "`stored`" in text and stored.id in text and "more" in text
    assert "<script" not in report._repr_html_()


def test_variables_hold_refs_wherever_they_are_inside(cluster, names):
    refs = [shoal.put(number) for number in range(6)]

    class Thing:
        pass

    thing = Thing()
    thing.inside = {"deep": ([refs[1]],)}

    def closure():
        return refs[2]

    def default(ref=refs[3]):
        return ref

    names(
        plain=refs[0],
        thing=thing,
        closure=closure,
        default=default,
        partial=functools.partial(print, refs[4]),
        cycle=(cycle := [refs[5]]),
    )
    cycle.append(cycle)
    assert holders_of(refs[1]) == ("`thing`", "`closure`"), "the closure has the whole list"
    assert holders_of(refs[0]) == ("`plain`", "`closure`")
    assert holders_of(refs[3]) == ("`closure`", "`default`")
    assert holders_of(refs[4]) == ("`closure`", "`partial`")
    assert holders_of(refs[5]) == ("`closure`", "`cycle`")


def test_arrays_tensors_frames_and_arrow_hold_memory(cluster, names):
    import pandas
    import pyarrow
    import torch

    values = {
        "array": np.ones(NBYTES),
        "frame": pandas.DataFrame({"x": np.arange(NBYTES)}),
        "table": pyarrow.table({"x": np.arange(NBYTES)}),
        "tensor": torch.ones(NBYTES),
        "model": torch.nn.Linear(1000, 500),
    }
    held = {name: shoal.get(shoal.put(value)) for name, value in values.items()}
    held["view"] = shoal.get(shoal.put(np.zeros(NBYTES)))[10:][::2]
    names(**held)
    rows = [row for row in shoal.memory(limit=100).objects if row.where == "freed"]
    assert {row.held_by for row in rows} == {(f"`{name}` (its memory)",) for name in held}
    assert all(row.mapped for row in rows)


def test_other_values_and_other_processes_hold_too(cluster, names):
    boxed, argument = shoal.put(1), shoal.put(2)
    box = shoal.put([boxed])
    keeper = Keeper.remote()
    shoal.get(keeper.keep.remote([argument]), timeout=30)
    names()
    assert f"the value {box.id}" in holders_of(boxed)
    (keeps,) = [name for name in holders_of(argument) if name.startswith("actor `Keeper` on node-")]
    shoal.get(keeper.store.remote(3 * NBYTES), timeout=30)
    rows = [row for row in shoal.memory(limit=100).objects if row.owner == keeps]
    assert len(rows) == 1 and 3 * NBYTES <= rows[0].nbytes < 3 * NBYTES + 5000 and not rows[0].object_id


def test_arguments_of_work_that_waits(cluster, names):
    @shoal.remote
    class Gate:
        async def wait(self):
            import asyncio

            await asyncio.sleep(600)

    @shoal.remote
    def use(gate, array, ref):
        return None

    gate = Gate.options(num_cpus=0).remote()
    ref = shoal.put(np.ones(NBYTES, np.uint8))
    waits = use.remote(gate.wait.remote(), np.ones(2 * NBYTES, np.uint8), ref)
    assert "an argument of task `use`" in holders_of(ref)
    rows = [row for row in shoal.memory(limit=100).objects if row.held_by == ("arguments of `use`",)]
    assert len(rows) == 1 and rows[0].nbytes >= 2 * NBYTES
    assert row_of(waits).where == "pending" and row_of(waits).made_by == "use"
    shoal.cancel(waits)
    shoal.kill(gate)


def test_what_only_a_traceback_keeps_can_be_released(cluster, names):
    def fails():
        kept = shoal.put(np.ones(NBYTES, np.uint8))
        raise ValueError(kept.id)

    names()
    try:
        fails()
    except ValueError as error:
        sys.last_exc = error
        object_id = str(error)
    report = shoal.memory(limit=100)
    (row,) = (row for row in report.objects if row.object_id == object_id)
    assert row.held_by == ("the traceback of the last error (`kept` in `fails`)",)
    assert report.history_holds and "--release" in str(report)
    report = shoal.memory(limit=100, release=True)
    assert report.released >= NBYTES and "released: " in str(report)
    assert object_id not in {row.object_id for row in report.objects}


@pytest.mark.parametrize(
    "options",
    [
        *({"limit": limit} for limit in (-1, 1.5, True)),
        *({"timeout": timeout} for timeout in (0, -1, "x", float("nan"))),
        *({"release": release} for release in ("yes", 1, None)),
    ],
)
def test_bad_input(cluster, options):
    with pytest.raises(shoal.errors.OptionError):
        shoal.memory(**options)


def test_what_was_not_looked_at_is_said(cluster, names, monkeypatch):
    monkeypatch.setattr(holders, "MAX_EACH", 1_000)
    hidden = shoal.put(np.ones(NBYTES))
    names(deep=[*([index] for index in range(2_000)), [hidden]])
    assert holders_of(hidden) == ("this process, by no variable, of those looked at (`deep` hold too much)",)


def test_a_task_sees_the_store_of_its_node(cluster, names):
    @shoal.remote
    def look():
        kept = shoal.put(np.ones(3 * NBYTES, np.uint8))
        return kept.id, shoal.memory(limit=100)

    object_id, report = shoal.get(look.remote(), timeout=30)
    assert len(report.stores) == 1 and report.stores[0].node in {node.address for node in shoal.nodes()}
    (row,) = (row for row in report.objects if row.object_id == object_id)
    assert row.nodes == (report.stores[0].node,) and 3 * NBYTES <= row.nbytes < 3 * NBYTES + 5000


@pytest.mark.parametrize("timeout", [1e300, float("inf")])
def test_it_waits_as_long_as_wanted(cluster, names, timeout):
    assert shoal.memory(timeout=timeout).stores


class Writes(collections.defaultdict):
    def __getattr__(self, name):
        return self[name]


class Unbound:
    @property
    def __class__(self):
        raise RuntimeError("unbound")


class Stops:
    def __getattribute__(self, name):
        raise KeyboardInterrupt


class Nameless(type):
    @property
    def __module__(cls):
        raise ValueError


class Odd(metaclass=Nameless):
    pass


def test_whatever_variables_there_are_none_is_asked(cluster, names):
    array = shoal.get(shoal.put(np.ones(NBYTES)))  # something to look for
    writes = Writes(lambda: None, lr=0.1)
    names(
        mock=unittest.mock.MagicMock(), writes=writes, unbound=Unbound(), stops=Stops(), odd=Odd(), cls=Odd, array=array
    )
    assert any(row.held_by == ("`array` (its memory)",) for row in shoal.memory(limit=100).objects)
    assert dict(writes) == {"lr": 0.1}


def test_other_threads_may_map_meanwhile(cluster, names):
    ref = shoal.put(np.ones(NBYTES))
    names(ref=ref)
    done = threading.Event()

    def get() -> None:
        while not done.is_set():
            shoal.get(ref)

    threads = [threading.Thread(target=get) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert holders_of(ref)[0] == "`ref`"
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_what_a_dead_actor_owned_is_gone_at_once(cluster, names, wait_until):
    keeper = Keeper.remote()
    shoal.get(keeper.store.remote(7 * NBYTES), timeout=30)

    def is_there() -> bool:
        return any(7 * NBYTES <= row.nbytes < 7 * NBYTES + 5000 for row in shoal.memory(limit=100).objects)

    assert is_there()
    shoal.kill(keeper)
    wait_until(lambda: not is_there(), "the release", timeout=5.0)
