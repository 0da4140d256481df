"""Processes are killed in the middle of a run: no row is lost, and none is there twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import LocalCluster
from distributed.security import Security

import shoal
import shoal_ml.batch as batch

ROWS = 20_000
BATCH = 100


class Falls(batch.Predictor):
    """Kills a process, once, when it meets a row: its own, or the Dask worker above it."""

    def __init__(self, rows: tuple[int, ...], who: str) -> None:
        self.rows, self.who = rows, who

    def load(self, model):
        self.directory = Path(model)

    def predict(self, rows):
        for row in set(self.rows) & set(rows["id"].tolist()):
            marker = self.directory / str(row)
            if not marker.exists():
                marker.touch()
                # an executor's parent is the template, and the template's the Dask worker
                victim = os.getpid() if self.who == "replica" else psutil.Process().parents()[1].pid
                os.kill(victim, signal.SIGKILL)
                signal.pause()
        return {"y": rows["id"] * 2}


def blocks():
    return ({"id": np.arange(start, start + 500)} for start in range(0, ROWS, 500))


def assert_whole(result) -> None:
    found = result.to_numpy()
    assert np.array_equal(found["id"], np.arange(ROWS))
    assert np.array_equal(found["y"], np.arange(ROWS) * 2)


@pytest.fixture(scope="class")
def embedded() -> Iterator[None]:
    with shoal.init(num_cpus=2):
        yield


@pytest.fixture(scope="class")
def two_workers() -> Iterator[None]:
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            security=Security.temporary(),
            dashboard_address=":0",
            protocol="tls://",
        ) as dask_cluster,
        shoal.init(dask_cluster, timeout=30),
    ):
        yield


@pytest.mark.usefixtures("embedded")
class TestReplicas:
    def test_killed_replicas_lose_and_double_no_row(self, tmp_path):
        falls = Falls((0, 4_321, ROWS - 1), "replica")
        with batch.BatchPredictor(str(tmp_path), falls) as predictor:
            result = predictor.predict(
                batch.from_batches(blocks), batch_size=BATCH, keep_columns="id", concurrency=2, on_error="dead_letter"
            )
            assert_whole(result)
        assert len(list(tmp_path.iterdir())) == 3 and result.num_failed == 0

    def test_killed_replicas_write_each_row_once(self, tmp_path):
        (tmp_path / "marks").mkdir()
        with batch.BatchPredictor(str(tmp_path / "marks"), Falls((7, 9_999), "replica")) as predictor:
            assert_whole(
                predictor.predict(batch.from_batches(blocks), resume=tmp_path / "out", keep_columns="id", concurrency=2)
            )
        assert len(list((tmp_path / "marks").iterdir())) == 2

    def test_replicas_that_died_while_they_waited_are_replaced(self, tmp_path):
        def pid(model, rows):
            return {"pid": np.full(len(rows["id"]), os.getpid()), "y": rows["id"] * 2}

        with batch.BatchPredictor(None, pid) as predictor:
            first = predictor.predict(batch.from_batches(blocks), keep_columns="id", concurrency=2).to_numpy()
            for one in set(first["pid"].tolist()):
                os.kill(one, signal.SIGKILL)
            second = predictor.predict(batch.from_batches(blocks), keep_columns="id", concurrency=2)
            assert_whole(second)
            assert not set(first["pid"].tolist()) & set(second.to_numpy()["pid"].tolist())


@pytest.mark.usefixtures("two_workers")
class TestNodes:
    def test_a_killed_dask_worker_loses_and_doubles_no_row(self, tmp_path):
        (tmp_path / "marks").mkdir()
        with batch.BatchPredictor(str(tmp_path / "marks"), Falls((4_321,), "node")) as predictor:
            rows = batch.range(ROWS)
            assert_whole(predictor.predict(rows, batch_size=BATCH, keep_columns="id", concurrency=2))
        assert len(list((tmp_path / "marks").iterdir())) == 1

    def test_a_killed_dask_worker_writes_each_row_once(self, tmp_path):
        (tmp_path / "marks").mkdir()
        with batch.BatchPredictor(str(tmp_path / "marks"), Falls((4_321,), "node")) as predictor:
            result = predictor.predict(batch.range(ROWS), resume=tmp_path / "out", keep_columns="id", concurrency=2)
            assert_whole(result)
        assert len(list((tmp_path / "marks").iterdir())) == 1
