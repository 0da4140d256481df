"""Datasets on the embedded cluster: what comes out, in which order, and what is left behind."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import shoal
import shoal_ml.batch as batch

pytestmark = pytest.mark.usefixtures("cluster")


class Adder:
    def __init__(self, amount):
        self.amount = amount

    def __call__(self, rows):
        return {"x": rows["data"] + self.amount}


class Picky:
    def __call__(self, rows):
        if 500 in rows["id"]:
            raise ValueError("five hundred")
        return rows


def double(rows):
    return {"id": rows["id"] * 2}


def names_of_threads():
    return {thread.name for thread in threading.enumerate()}


def test_a_class_is_called_with_batches_and_rows_stay_in_order():
    data = np.arange(4000.0).reshape(1000, 4)
    ds = batch.from_numpy(data).map_batches(Adder, fn_constructor_args=(1,), batch_size=7, concurrency=2)
    given = [rows["x"] for rows in ds.iter_batches(batch_size=64)]
    assert [len(rows) for rows in given] == [64] * 15 + [40]
    assert np.array_equal(np.concatenate(given), data + 1)


def test_functions_and_reading_are_one_stage():
    ds = batch.range(1000).map_batches(double).filter(lambda row: row["id"] % 4 == 0).map(lambda row: {"y": row["id"]})
    assert [row["y"] for row in ds.iter_rows()] == list(range(0, 2000, 4))
    assert ds.count() == 500
    assert ds.schema() == {"y": "int64"}


def test_a_limit_stops_the_reading():
    read = []

    def items():
        for item in range(100_000):
            read.append(item)
            yield {"n": item}

    assert [row["n"] for row in batch.from_iterable(items).limit(10).iter_rows()] == list(range(10))
    assert len(read) < 5_000


def test_an_error_of_a_function_is_raised_as_it_is_and_leaves_nothing():
    ds = batch.range(1000).map_batches(Picky, concurrency=1)
    with pytest.raises(ValueError, match="five hundred") as caught:
        ds.take_all()
    assert any("map_batches(Picky)" in note for note in caught.value.__notes__)
    assert not any("batch" in name for name in names_of_threads())


def test_leaving_an_iteration_ends_the_run():
    rows = batch.range(10**9).map_batches(double).iter_batches(batch_size=10)
    assert next(rows)["id"][1] == 2
    rows.close()
    assert not any("batch" in name for name in names_of_threads())
    assert shoal.get(shoal.put(1)) == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: batch.from_items([]),
        lambda: batch.range(0),
        lambda: batch.from_numpy(np.zeros((0, 3))),
        lambda: batch.from_iterable(iter([])),
        lambda: batch.range(100).filter(lambda row: False),
    ],
)
def test_everything_works_without_rows(make):
    ds = make().map_batches(double).map(lambda row: row).limit(5)
    assert ds.count() == 0
    assert ds.take_all() == []
    assert list(ds.iter_batches()) == []
    assert len(ds.to_pandas()) == 0
    assert make().materialize().count() == 0


def test_a_plan_is_explained_in_words_and_as_a_picture():
    ds = batch.range(1000).map_batches(double).limit(5).map_batches(Picky, concurrency=(1, 2), batch_size=3).drop("id")
    found = ds.explain()
    assert "1. range → map_batches(double)\n     tasks" in found.text
    assert "3. map_batches(Picky) → drop(id)\n     a pool of 1 to 2 replicas" in repr(found)
    bundle = found._repr_mimebundle_()
    assert bundle["text/html"].count("<rect") == 4 and "<script" not in bundle["text/html"]


def test_stats_say_what_the_last_run_did():
    ds = batch.range(1000).map_batches(double).filter(lambda row: row["id"] < 10)
    assert "has not run" in ds.stats().text
    assert len(ds.take_all()) == 5
    text = ds.stats().text
    assert "run of a dataset: finished" in text and "rows/s" in text
    line = next(line for line in text.splitlines() if "· map_batches(double)" in line)
    assert "1,000" in line
    assert "<table" in ds.stats()._repr_mimebundle_()["text/html"]
    next(ds.iter_rows())
    assert "ended early" in ds.stats().text or "finished" in ds.stats().text


def widen(rows):
    return {"x": np.ones((len(rows["id"]), 1000))}


def test_a_plan_larger_than_its_budget_stays_within_it():
    budget = 64 << 20
    ds = batch.range(40_000).map_batches(widen, batch_size=500).with_options(memory_budget=budget)  # 320 MB
    total = sum(rows["x"][:, 0].sum() for rows in ds.iter_batches(batch_size=None))
    assert total == 40_000
    assert ds._last_run.flow.most_held <= budget + (32 << 20), "two blocks for each piece that runs may come on top"


def test_a_pool_that_cannot_have_one_replica_says_so_before_anything_runs():
    ds = batch.range(10).map_batches(Picky, num_gpus=1)
    with pytest.raises(shoal.errors.InfeasibleError, match="num_gpus=1"):
        ds.take_all()
    tight = batch.range(10).map_batches(Picky, num_cpus=2).map_batches(Picky, num_cpus=1)
    with pytest.raises(shoal.errors.InfeasibleError, match="not one replica of each pool fits"):
        tight.take_all()


@pytest.mark.parametrize("concurrency", [0, (2, 1), "2", 1.5])
def test_options_are_checked_where_they_are_written(concurrency):
    with pytest.raises(shoal.errors.OptionError, match="`concurrency`"):
        batch.range(10).map_batches(Picky, concurrency=concurrency)
    with pytest.raises(shoal.errors.OptionError, match="Did you mean `num_cpus`"):
        batch.range(10).map_batches(Picky, num_cpu=1)
    with pytest.raises(shoal.errors.OptionError, match="Did you mean `pandas`"):
        batch.range(10).map_batches(double, batch_format="panda")


def test_what_a_function_returns_is_checked():
    cases = [
        (lambda rows: 5, batch.BatchError, "returned `int`, not a batch"),
        (lambda rows: {"a": 5}, batch.BatchError, "as column `a`"),
        (lambda rows: {"a": [1], "b": [1, 2]}, batch.RaggedBatchError, "differ in length"),
    ]
    for function, kind, words in cases:
        with pytest.raises(kind, match=words):
            batch.range(10).map_batches(function).take_all()
    with pytest.raises(batch.RowCountError, match="3 rows for 10"):
        batch.range(10).add_column("a", lambda rows: [1, 2, 3]).take_all()
    with pytest.raises(batch.ColumnError, match="Did you mean `id`"):
        batch.range(10).select("ids").take_all()
