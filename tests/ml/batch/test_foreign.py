"""Datasets of other libraries' collections, and batches in other libraries' forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import shoal_ml.batch as batch

pytestmark = pytest.mark.usefixtures("cluster")


class Squares(torch.utils.data.Dataset):
    def __len__(self):
        return 50

    def __getitem__(self, index):
        return torch.full((2, 3), float(index)), index**2


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(range(5))


def test_torch_datasets():
    rows = batch.from_torch(Squares()).take_all()
    assert [row["item_1"] for row in rows] == [n**2 for n in range(50)]
    assert rows[7]["item_0"].shape == (2, 3) and rows[7]["item_0"].max() == 7
    assert [row["item"] for row in batch.from_torch(Stream()).take_all()] == list(range(5))


def test_dask_collections():
    import dask.array
    import dask.bag
    import dask.dataframe

    frame = pd.DataFrame({"n": range(20), "s": list("abcdefghijklmnopqrst")})
    assert batch.from_dask(dask.dataframe.from_pandas(frame, npartitions=3)).to_pandas()["n"].tolist() == [*range(20)]
    rows = batch.from_dask(dask.bag.from_sequence([{"a": n} for n in range(6)], npartitions=2)).take_all()
    assert [row["a"] for row in rows] == list(range(6))
    array = dask.array.arange(24, chunks=5).reshape(6, 4)
    assert np.array_equal(batch.from_dask(array).to_numpy()["data"], np.arange(24).reshape(6, 4))


@pytest.mark.parametrize("batch_format", ["numpy", "pandas", "arrow", "torch"])
def test_functions_get_and_return_batches_of_each_form(batch_format):
    kinds = {"numpy": dict, "pandas": pd.DataFrame, "arrow": pa.Table, "torch": dict}
    images = np.arange(24.0, dtype=np.float32).reshape(4, 2, 3)
    names = ["a", "b", None, "d"]

    def same(rows):
        assert isinstance(rows, kinds[batch_format])
        return rows

    ds = batch.from_numpy({"image": images, "n": np.arange(4), "name": np.array(names, dtype=object)})
    (found,) = ds.map_batches(same, batch_format=batch_format).iter_batches()
    assert found["image"].dtype == np.float32 and np.array_equal(found["image"], images)
    assert found["n"].dtype == np.int64 and [*found["name"]] == names


def test_a_function_may_write_to_its_batch_and_changes_nothing_else():
    def clear(rows):
        for column in rows.values():
            column[...] = 0
        return rows

    table = pa.table({"x": np.arange(5.0)})
    kept = batch.from_arrow(table).materialize()
    assert kept.map_batches(clear).to_pandas()["x"].sum() == 0
    assert kept.to_pandas()["x"].sum() == 10 and table["x"].to_pylist() == [0, 1, 2, 3, 4]


def test_torch_batches():
    (rows,) = batch.range(10).iter_torch_batches(batch_size=10)
    assert rows["id"].dtype == torch.int64 and rows["id"].sum() == 45


def test_hugging_face_datasets():
    datasets = pytest.importorskip("datasets")
    ds = batch.from_huggingface(datasets.Dataset.from_dict({"a": [1, 2], "b": ["x", "y"]}))
    assert ds.take_all() == [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
