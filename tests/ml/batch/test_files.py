"""Files in and out: what is read, in which order and blocks, and what happens to damaged and half-written ones."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

import shoal_ml.batch as batch
from shoal.errors import OptionError
from shoal_ml.batch.paths import find_files, written_whole

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def table():
    return pa.table({"n": range(1000), "name": [f"row {n}" for n in range(1000)]})


def test_parquet_files_of_a_folder_come_in_the_order_of_names_and_rows(tmp_path, table):
    for part in range(3):
        parquet.write_table(table.slice(part * 300, 300), tmp_path / f"{part}.parquet", row_group_size=70)
    ds = batch.read_parquet(tmp_path)
    assert ds.to_pandas().equals(table.slice(0, 900).to_pandas())
    assert ds.count() == 900
    assert ds.schema() == {"n": "int64", "name": "string"}
    assert batch.read_parquet(f"{tmp_path}/*1.parquet").select("n").take(1) == [{"n": 300}]
    assert batch.read_parquet([tmp_path / "2.parquet"], columns=["name"]).take(1) == [{"name": "row 600"}]


def test_one_large_file_is_many_blocks(tmp_path):
    big = pa.table({"x": np.zeros((64, 1 << 17)).ravel()})  # 64 MiB
    parquet.write_table(big, tmp_path / "big.parquet", row_group_size=1 << 23, use_dictionary=False)
    blocks = list(batch.read_parquet(tmp_path).iter_batches(batch_size=None))
    assert len(blocks) >= 4
    assert sum(len(block["x"]) for block in blocks) == 1 << 23


def test_csv_json_and_text(tmp_path, table):
    (tmp_path / "a.csv").write_text("n,name\n1,x\n2,\n")
    assert batch.read_csv(tmp_path / "a.csv").take_all() == [{"n": 1, "name": "x"}, {"n": 2, "name": ""}]
    (tmp_path / "a.tsv").write_text("n\tname\n1\tx\n")
    assert batch.read_csv(tmp_path / "a.tsv", delimiter="\t").take_all() == [{"n": 1, "name": "x"}]
    (tmp_path / "a.jsonl").write_text('{"a": 1, "b": [1, 2]}\n\n{"a": 2, "b": []}\n')
    assert [row["a"] for row in batch.read_json(tmp_path / "a.jsonl").take_all()] == [1, 2]
    (tmp_path / "list.json").write_text('[{"a": 1}, {"a": 2}]')
    assert batch.read_json(tmp_path / "list.json").take_all() == [{"a": 1}, {"a": 2}]
    (tmp_path / "a.txt").write_bytes("eins\r\n\nzwölf".encode())
    assert [row["text"] for row in batch.read_text(tmp_path / "a.txt").take_all()] == ["eins", "", "zwölf"]
    assert batch.read_text(tmp_path / "a.txt", drop_empty=True).count() == 2
    (rows,) = batch.read_binary_files(tmp_path / "a.txt").take_all()
    assert rows == {"bytes": "eins\r\n\nzwölf".encode(), "path": str(tmp_path / "a.txt")}


def test_images_of_one_size_are_one_array_and_others_are_not(tmp_path):
    for n in range(4):
        Image.fromarray(np.full((5, 6, 3), n, np.uint8)).save(tmp_path / f"{n}.png")
    (images,) = batch.read_images(tmp_path, include_paths=True).iter_batches()
    assert images["image"].shape == (4, 5, 6, 3) and images["image"][3].max() == 3
    assert images["path"][0].endswith("0.png")
    (grey,) = batch.read_images(tmp_path, size=(2, 3), mode="L").iter_batches()
    assert grey["image"].shape == (4, 2, 3)
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "9.png")
    rows = batch.read_images(tmp_path).take_all()
    assert [row["image"].shape for row in rows] == [(5, 6, 3)] * 4 + [(9, 9, 3)]


@pytest.mark.parametrize(
    ("name", "read"),
    [("a.parquet", batch.read_parquet), ("a.png", batch.read_images), ("a.jsonl", batch.read_json)],
)
def test_a_damaged_file_is_named(tmp_path, name, read):
    (tmp_path / name).write_bytes(b"this is not what it says")
    with pytest.raises(batch.ReadError, match=name) as caught:
        read(tmp_path).take_all()
    assert caught.value.path == str(tmp_path / name)


def test_what_is_not_there_is_said_at_once(tmp_path):
    (tmp_path / "train.csv").write_text("a\n1\n")
    with pytest.raises(batch.ReadError, match=r"Did you mean `train.csv`\?"):
        batch.read_csv(tmp_path / "trian.csv")
    with pytest.raises(batch.ReadError, match="holds no"):
        batch.read_parquet(tmp_path)
    with pytest.raises(batch.ColumnError, match=r"Did you mean `name`\?"):
        parquet.write_table(pa.table({"name": ["x"]}), tmp_path / "a.parquet")
        batch.read_parquet(tmp_path).select("nmae").take_all()


def test_urls_are_read_and_written(tmp_path):
    url = f"file://{tmp_path}/out"
    written = batch.range(100).write_parquet(url)
    assert written.num_rows == 100
    assert [file.path for file in find_files(url, [".parquet"])] == list(written.paths)
    assert batch.read_parquet(url).count() == 100


@pytest.mark.parametrize("kind", ["parquet", "csv", "json"])
def test_what_was_written_is_read_again(tmp_path, table, kind):
    ds = batch.from_arrow(table)
    written = getattr(ds, f"write_{kind}")(tmp_path / "out")
    assert written.num_rows == 1000 and all(os.path.isfile(path) for path in written.paths)
    assert getattr(batch, f"read_{kind}")(tmp_path / "out").to_pandas().equals(table.to_pandas())


def test_arrays_in_rows_survive_parquet_and_json(tmp_path):
    images = np.arange(48.0, dtype=np.float32).reshape(4, 3, 4)
    batch.from_numpy({"image": images}).write_parquet(tmp_path / "out")
    (read,) = batch.read_parquet(tmp_path / "out").iter_batches()
    assert read["image"].dtype == np.float32 and np.array_equal(read["image"], images)
    batch.from_numpy({"image": images}).write_json(tmp_path / "json")
    with open(tmp_path / "json" / "part-000000.jsonl") as file:
        assert json.loads(file.readline())["image"] == images[0].tolist()
    with pytest.raises(batch.BatchError, match="which CSV cannot"):
        batch.from_numpy({"image": images}).write_csv(tmp_path / "csv")
    assert os.listdir(tmp_path / "csv") == [], "nothing half-written"


def test_a_folder_that_is_not_empty_is_written_to_only_if_told(tmp_path):
    batch.range(10).write_parquet(tmp_path)
    with pytest.raises(batch.WriteError, match="holds 1 files already"):
        batch.range(10).write_parquet(tmp_path)
    batch.range(20).write_parquet(tmp_path, mode="append")
    assert batch.read_parquet(tmp_path).count() == 30
    batch.range(5).write_parquet(tmp_path, mode="overwrite")
    assert batch.read_parquet(tmp_path).count() == 5
    with pytest.raises(OptionError, match="Did you mean `append`"):
        batch.range(5).write_parquet(tmp_path, mode="apend")


def test_rows_per_file_gathers_blocks(tmp_path):
    ds = batch.range(1000).materialize()
    assert len(ds.write_parquet(tmp_path / "one", rows_per_file=10_000).paths) == 1
    small = batch.from_batches([{"n": np.arange(3)}] * 10)
    written = small.write_parquet(tmp_path / "some", rows_per_file=10)
    assert len(written.paths) == 3 and written.num_rows == 30


def test_images_are_written_one_by_one(tmp_path):
    images = np.zeros((3, 4, 5, 3), np.uint8)
    ds = batch.from_numpy({"image": images, "name": np.array(["a", "b", "c"])})
    written = ds.write_images(tmp_path, names="name")
    assert [os.path.basename(path) for path in written.paths] == ["a.png", "b.png", "c.png"]
    assert batch.read_images(tmp_path).count() == 3


def test_a_full_disk_is_said_and_leaves_no_part_of_a_file(tmp_path):
    path = str(tmp_path / "x.bin")
    with (
        pytest.raises(batch.WriteError, match="No space left on device") as caught,
        written_whole(path),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert caught.value.path == path
    assert os.listdir(tmp_path) == []
