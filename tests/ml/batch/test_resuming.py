"""Runs that are gone on with: exactly what is missing is done, and each row is there once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

import shoal
import shoal_ml.batch as batch
from shoal.errors import OptionError

ROWS = 4000
BLOCK = 100


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with shoal.init(num_cpus=2):
        yield


class Counts(batch.Predictor):
    """Notes each row that it has done in a file; fails once it has met a row, if told to."""

    def __init__(self, fail_at: int = -1) -> None:
        self.fail_at = fail_at

    def load(self, model):
        self.directory = Path(model)

    def predict(self, rows):
        if self.fail_at in rows["id"]:
            raise ValueError("the power fails")
        with open(self.directory / str(os.getpid()), "ab", buffering=0) as file:
            file.write(rows["id"].astype(np.int64).tobytes())
        return {"y": rows["id"] * 2}


def numbers(rows: int = ROWS, kill_at: int = -1) -> batch.Dataset:
    """Rows in blocks; the process that reads them is killed before it gives the one at *kill_at*."""

    def read():
        for start in range(0, rows, BLOCK):
            if start == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield {"id": np.arange(start, start + BLOCK)}

    return batch.from_batches(read)


def done_rows(directory: Path) -> np.ndarray:
    """All rows that replicas have worked on, as often as they have."""
    parts = [np.frombuffer(path.read_bytes(), np.int64) for path in directory.iterdir()]
    return np.sort(np.concatenate(parts)) if parts else np.array([], np.int64)


def predict(counted: Path, out: Path, *, fail_at: int = -1, data=None, **options):
    with batch.BatchPredictor(str(counted), Counts(fail_at)) as predictor:
        options = {"keep_columns": "id", "concurrency": 2, "batch_size": 50, "if_changed": "go_on", **options}
        return predictor.predict(numbers() if data is None else data, resume=out, **options)


@pytest.fixture
def counted(tmp_path) -> Path:
    (tmp_path / "counted").mkdir()
    return tmp_path / "counted"


def assert_whole(result, out: Path, rows: int = ROWS) -> None:
    found = result.to_numpy()
    assert np.array_equal(found["id"], np.arange(rows)) and np.array_equal(found["y"], np.arange(rows) * 2)
    # and for those who read the directory without us
    tables = [parquet.read_table(path) for path in sorted(out.glob("*.parquet"))]
    assert [id for table in tables for id in table["id"].to_pylist()] == list(range(rows))
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_a_failed_run_is_gone_on_with_and_each_row_is_done_once(counted, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="the power fails"):
        predict(counted, out, fail_at=3850)
    before = len(sorted(out.glob("*.parquet"))) * BLOCK
    assert 0 < before <= 3800
    first = set(done_rows(counted).tolist())
    for path in counted.iterdir():
        path.unlink()
    assert_whole(predict(counted, out), out)
    assert f"{before:,} rows are done in `{out}`: going on with the rest." in capsys.readouterr().out
    again = done_rows(counted)
    # the replicas of the first run may have ended the batches that they had
    assert set(again.tolist()) == set(range(before, ROWS)) and len(again) - (ROWS - before) <= 4 * BLOCK
    assert first | set(again.tolist()) == set(range(ROWS))


def test_a_run_that_is_done_does_nothing(counted, tmp_path, capsys):
    out = tmp_path / "out"
    predict(counted, out)
    assert_whole(predict(counted, out), out)
    assert "4,000 rows are done" in (told := capsys.readouterr().out) and "nothing is left to do" in told
    assert np.array_equal(done_rows(counted), np.arange(ROWS))


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import shoal
from test_resuming import numbers, predict
with shoal.init(num_cpus=2):
    predict(Path({counted!r}), Path({out!r}), data=numbers(kill_at={kill_at}))
"""


@pytest.mark.parametrize("kill_at", [300, 3900])
def test_a_killed_driver_loses_and_doubles_no_row(counted, tmp_path, kill_at):
    out = tmp_path / "out"
    program = PROGRAM.format(tests=str(Path(__file__).parent), counted=str(counted), out=str(out), kill_at=kill_at)
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    finished = [path.stat().st_mtime_ns for path in sorted(out.glob("*.parquet"))]
    assert len(finished) >= 10 or kill_at < ROWS // 2
    assert_whole(predict(counted, out), out)
    kept = [path.stat().st_mtime_ns for path in sorted(out.glob("*.parquet"))][: max(0, len(finished) - 1)]
    assert kept == finished[:-1]  # of the last one, the journal may not say that it is there


def test_a_journal_that_was_cut_costs_no_more_than_the_piece(counted, tmp_path):
    out = tmp_path / "out"
    predict(counted, out)
    journal = out / "_shoal_journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:21]) + lines[21][:10])
    for path in counted.iterdir():
        path.unlink()
    assert_whole(predict(counted, out), out)
    assert np.array_equal(done_rows(counted), np.arange(20 * BLOCK, ROWS))


def test_files_that_are_missing_are_made_again(counted, tmp_path):
    out = tmp_path / "out"
    predict(counted, out)
    sorted(out.glob("*.parquet"))[7].unlink()
    for path in counted.iterdir():
        path.unlink()
    assert_whole(predict(counted, out), out)
    assert np.array_equal(done_rows(counted), np.arange(700, 800))


def test_another_model_or_option_is_refused_and_named(counted, tmp_path):
    out = tmp_path / "out"
    data = {"x": np.arange(300.0), "id": np.arange(300)}
    with batch.BatchPredictor(2.0, lambda model, rows: {"y": rows["x"] * model}) as predictor:
        predictor.predict(data, resume=out, keep_columns="id", feature_columns="x")
        with pytest.raises(batch.PlanChangedError, match="keep_columns was id, is x"):
            predictor.predict(data, resume=out, keep_columns="x", feature_columns="x")
    with batch.BatchPredictor(3.0, lambda model, rows: {"y": rows["x"] * model}) as predictor:
        with pytest.raises(batch.PlanChangedError, match=r"begun differently: model was \w+, is \w+\. Choose"):
            predictor.predict(data, resume=out, keep_columns="id", feature_columns="x")
        again = predictor.predict(
            data, resume=out, keep_columns="id", feature_columns="x", if_changed="restart", batch_size=10
        )
        assert np.array_equal(again.to_numpy()["y"], data["x"] * 3)
    with batch.BatchPredictor(3.0, lambda model, rows: {"y": rows["x"] + model}) as predictor:
        with pytest.raises(batch.PlanChangedError, match=r"predictor was \w+, is \w+"):
            predictor.predict(data, resume=out, keep_columns="id", feature_columns="x")
        mapped = batch.from_numpy(data).map_batches(lambda rows: rows)
        with pytest.raises(batch.PlanChangedError, match=r"step 1 \(map_batches"):
            predictor.predict(mapped, resume=out, keep_columns="id", feature_columns="x")


def test_other_data_is_refused_or_what_changed_is_done_anew(tmp_path):
    out = tmp_path / "out"
    with batch.BatchPredictor(2.0, lambda model, rows: {"y": rows["data"] * model}) as predictor:
        predictor.predict(np.arange(200_000.0), resume=out)
        other = np.arange(200_000.0) + 1
        with pytest.raises(batch.PlanChangedError, match=r"The data is not what it was.*piece 0 was"):
            predictor.predict(other, resume=out)
        again = predictor.predict(other, resume=out, if_changed="go_on")
        assert np.array_equal(again.to_numpy()["y"], other * 2)


def test_dead_letters_are_kept_with_the_output(tmp_path):
    def picky(model, rows):
        if np.isnan(rows["x"]).any():
            raise ValueError("not a number")
        return {"y": rows["x"] * model}

    x = np.arange(1000.0)
    x[[3, 4, 700]] = np.nan
    data = {"x": x, "id": np.arange(1000), "image": np.arange(4000.0).reshape(1000, 2, 2)}
    with batch.BatchPredictor(2.0, picky) as predictor:
        for _ in range(2):  # the second finds it done
            result = predictor.predict(
                data, resume=tmp_path / "out", on_error="dead_letter", keep_columns="id", feature_columns="x"
            )
            assert result.count() == 997 and result.num_failed == 3
            letters = result.dead_letters
            assert letters["id"].tolist() == [3, 4, 700] and set(letters["error"]) == {"ValueError: not a number"}
        assert np.array_equal(np.stack(letters["image"])[2], data["image"][700])
        with batch.BatchPredictor(0, lambda model, rows: {"y": np.nan_to_num(rows["x"])}) as mended:
            assert result.retry_failed(using=mended).to_numpy()["id"].tolist() == [3, 4, 700]


def test_what_cannot_be_gone_on_with_is_said(tmp_path):
    with batch.BatchPredictor(None, lambda model, rows: {"y": rows["id"]}) as predictor:
        with pytest.raises(OptionError, match="A plan with a `limit`"):
            predictor.predict(numbers().filter(lambda row: True).limit(10), resume=tmp_path / "out")
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letter.txt").write_text("dear")
        with pytest.raises(batch.JournalError, match="holds files and no journal"):
            predictor.predict(numbers(), resume=tmp_path / "mine")
