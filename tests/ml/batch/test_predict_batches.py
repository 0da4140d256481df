"""Batch inference on the embedded cluster."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

import shoal
from shoal_ml.batch import predict_batches


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with shoal.init(num_cpus=2):
        yield


@shoal.remote
class Doubler:
    def predict(self, batch):
        return batch * 2


@shoal.remote
class Picky:
    def predict(self, batch):
        if 5 in batch:
            raise ValueError("five")
        return batch


def test_rows_come_back_in_order_and_every_replica_works():
    data = np.arange(1_000).reshape(500, 2)
    done = predict_batches([Doubler.remote(), Doubler.remote()], data, batch_size=7)
    assert np.array_equal(np.concatenate(done.batches), data * 2)
    assert [len(batch) for batch in done.batches[-2:]] == [7, 500 % 7]
    assert {record.replica for record in done.records} == {0, 1}
    assert sorted((record.start, record.stop) for record in done.records)[-1] == (497, 500)
    for replica in (0, 1):
        mine = [record for record in done.records if record.replica == replica]
        assert all(0 <= record.began <= record.ended <= done.seconds for record in mine)
        assert all(a.ended == b.began for a, b in itertools.pairwise(mine))


def test_no_rows_are_no_batches():
    assert predict_batches([Doubler.remote()], []).batches == []


def test_an_error_in_a_model_is_raised_as_it_is():
    with pytest.raises(ValueError, match="five"):
        predict_batches([Picky.remote()], np.arange(10), batch_size=1)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "2", True])
def test_batch_size_is_checked(batch_size):
    with pytest.raises(shoal.errors.OptionError, match="`batch_size`"):
        predict_batches([Doubler.remote()], [1], batch_size=batch_size)
    with pytest.raises(shoal.errors.OptionError, match="`replicas`"):
        predict_batches([], [1])
