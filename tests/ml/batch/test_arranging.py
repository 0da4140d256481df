"""Rows together, apart, and in another order; and what training ranks share."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import shoal
import shoal_ml.batch as batch

pytestmark = pytest.mark.usefixtures("cluster")


def ids(ds):
    return [int(row["id"]) for row in ds.iter_rows()]


def add(amount):
    return lambda rows: {"id": rows["id"] + amount}


@pytest.fixture
def frame():
    rng = np.random.default_rng(0)
    return pd.DataFrame({"key": rng.integers(0, 7, 500), "x": rng.normal(size=500)})


def test_union_gives_one_after_the_other():
    ds = batch.range(10).union(batch.range(5).map_batches(add(100)), batch.from_items([{"id": 7}]))
    assert ids(ds) == [*range(10), *range(100, 105), 7]
    assert ids(ds.limit(12)) == [*range(10), 100, 101]
    assert ids(ds.map_batches(add(1)))[:2] == [1, 2]


def test_zip_puts_columns_side_by_side_whatever_the_blocks_are():
    left = batch.from_batches([{"id": np.arange(3)}, {"id": np.arange(3, 10)}])
    right = batch.range(10).map_batches(add(50))
    assert [(row["id"], row["id_1"]) for row in left.zip(right).take_all()] == [(n, n + 50) for n in range(10)]
    with pytest.raises(batch.RowCountError, match="after 10 rows the second has more"):
        left.zip(batch.range(11)).take_all()


def test_repartition_keeps_the_order_and_makes_blocks_of_one_size():
    ds = batch.from_batches([{"id": np.arange(1)}, {"id": np.arange(1, 100)}]).repartition(4)
    blocks = list(ds.iter_batches(batch_size=None))
    assert [len(block["id"]) for block in blocks] == [25] * 4
    assert ids(ds) == list(range(100))


def test_shuffles_are_permutations_that_a_seed_repeats():
    ds = batch.range(2000)
    first, second = ids(ds.random_shuffle(seed=1)), ids(ds.random_shuffle(seed=1))
    assert first == second != list(range(2000))
    assert sorted(first) == list(range(2000))
    assert ids(ds.random_shuffle(seed=2)) != first
    assert ids(batch.range(0).random_shuffle()) == []
    # rows move between blocks: the first tenth of the output comes from everywhere
    assert min(first[:200]) < 200 and max(first[:200]) > 1800


def test_sort_join_and_groups_are_what_pandas_says(frame):
    ds = batch.from_pandas(frame)
    assert np.array_equal(ds.sort("x").to_pandas()["x"], frame.sort_values("x")["x"])
    assert np.array_equal(ds.sort("x", descending=True).to_pandas()["x"], frame["x"].sort_values(ascending=False))
    names = pd.DataFrame({"key": range(5), "name": list("abcde")})
    joined = ds.join(batch.from_pandas(names), on="key").to_pandas().sort_values("x", ignore_index=True)
    expected = frame.merge(names, on="key").sort_values("x", ignore_index=True)
    assert np.array_equal(joined["name"], expected["name"]) and np.array_equal(joined["x"], expected["x"])
    means = ds.groupby("key").agg({"x": ["mean", "max"]}).sort("key").to_pandas()
    assert np.allclose(means["x_mean"], frame.groupby("key")["x"].mean())
    counts = ds.groupby("key").count().to_pandas().sort_values("key")
    assert list(counts["count"]) == list(frame.groupby("key").size())
    ranges = ds.groupby("key").map_groups(lambda g: pd.DataFrame({"key": g["key"][:1], "rows": [len(g)]}))
    assert sorted(ranges.to_pandas()["rows"]) == sorted(frame.groupby("key").size())
    with pytest.raises(batch.ColumnError, match=r"Did you mean `key`\?"):
        ds.sort("kez").take_all()


def test_parts_have_every_row_once():
    ds = batch.range(103)
    parts = ds.split(4)
    assert [part.count() for part in parts] == [25, 26, 26, 26]
    assert [n for part in parts for n in ids(part)] == list(range(103))
    assert [part.count() for part in ds.split(4, equal=True)] == [25] * 4
    train, test = ds.train_test_split(0.2, shuffle=True, seed=0)
    assert (train.count(), test.count()) == (82, 21)
    assert sorted(ids(train) + ids(test)) == list(range(103))
    assert ids(ds.train_test_split(3)[1]) == [100, 101, 102]
    assert ids(train.map_batches(add(1))) == [n + 1 for n in ids(train)], "parts of blocks go through stages"


@shoal.remote
class Rank:
    def epoch(self, shard):
        found = [int(n) for rows in shard.iter_batches(batch_size=10) for n in rows["id"]]
        return found, shard

    def peek(self, shard):
        return len(next(shard.iter_batches(batch_size=10))["id"])


@pytest.mark.parametrize("equal", [True, False])
def test_ranks_share_one_run_of_the_plan(equal):
    ds = batch.from_batches([{"id": np.arange(n * 7, n * 7 + 7)} for n in range(15)]).map_batches(add(0))
    shards = ds.streaming_split(2, equal=equal)
    ranks = [Rank.remote(), Rank.remote()]
    for _ in range(2):  # epochs
        done = shoal.get([rank.epoch.remote(shard) for rank, shard in zip(ranks, shards, strict=True)], timeout=60)
        shards = [shard for _, shard in done]
        rows = [row for found, _ in done for row in found]
        if equal:
            assert [len(found) for found, _ in done] == [52, 52]
            assert len(set(rows)) == 104
        else:
            assert sorted(rows) == list(range(105))


def test_an_error_reaches_every_rank():
    def fail(rows):
        raise ValueError("no")

    shards = batch.range(10).map_batches(fail).streaming_split(2)
    ranks = [Rank.remote(), Rank.remote()]
    for ref in [rank.epoch.remote(shard) for rank, shard in zip(ranks, shards, strict=True)]:
        with pytest.raises(ValueError, match="no"):
            shoal.get(ref, timeout=60)
