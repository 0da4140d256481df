"""How reports are put together, whose fault a failure is, and what is refused early."""

from __future__ import annotations

import pickle

import pytest

from shoal.errors import ActorDiedError, OptionError
from shoal_ml.train import CheckpointConfig, FailureConfig, ReportError, RunConfig, ScalingConfig
from shoal_ml.train.group.failures import cause, is_crash
from shoal_ml.train.group.reports import RankReport, ReportBook, Saved
from shoal_ml.train.live_view import describe_round, stragglers
from shoal_ml.train.options import mesh_sizes
from shoal_ml.train.shards import DataShard


def report(rank, number, *, seconds=1.0, checkpoint=False, saved=None):
    lap = {"seconds": seconds, "rss": 1e6, "num_rows": 0.0}
    return RankReport(rank, number, {"loss": 0.5}, lap, checkpoint, saved)


def test_a_round_is_complete_when_all_ranks_have_reported():
    book = ReportBook(3)
    assert book.add(report(2, 1), 10.0) is None and book.add(report(0, 1), 10.5) is None
    done = book.add(report(1, 1), 12.0)
    assert done is not None and [one.rank for one in done.reports] == [0, 1, 2] and done.late == [0.5, 2.0, 0.0]


def test_a_rank_that_has_ended_is_not_waited_for():
    book = ReportBook(2, start=4)
    book.add(report(0, 5), 0.0)
    with pytest.raises(ReportError, match="loop of rank 1 has ended after 4") as caught:
        book.end(1)
    assert pickle.loads(pickle.dumps(caught.value)).reports == (5, 4)
    other = ReportBook(2)
    other.end(0)
    with pytest.raises(ReportError, match="Rank 1 waits in report 1"):
        other.add(report(1, 1), 0.0)


def test_a_checkpoint_is_there_when_all_its_parts_are():
    book = ReportBook(2)
    book.add(report(0, 1, checkpoint=True), 0.0)
    book.add(report(1, 1, checkpoint=True), 0.0)
    book.add_saved(1, 1, Saved({}))
    assert book.take_saved() == []
    book.add_saved(0, 1, Saved({}))
    ((done, parts),) = book.take_saved()
    assert done.number == 1 and set(parts) == {0, 1} and book.take_saved() == []


def test_one_that_comes_late_is_marked():
    book = ReportBook(2)
    book.add(report(0, 1), 0.0)
    done = book.add(report(1, 1), 0.6)
    assert stragglers(done) == [1] and "waited for rank 1" in describe_round(done)


def test_the_rank_at_fault_is_the_one_that_did_not_fail_because_of_another():
    echo, own = RuntimeError("gloo: Connection closed by peer"), ValueError("mine")
    assert cause({0: echo, 1: own}, set()) == (1, own)
    died = ActorDiedError("gone")
    assert cause({0: echo, 1: died}, set()) == (1, died) and is_crash(died) and not is_crash(own)
    rank, error = cause({0: echo}, {1})
    assert rank == 0 and isinstance(error, ReportError) and error.__cause__ is echo


def test_a_mesh_has_to_multiply():
    assert mesh_sizes({"data": -1, "pipe": 2}, 6) == {"data": 3, "pipe": 2}
    with pytest.raises(OptionError, match=r"data 2 x pipe 2 does not multiply to 6 ranks"):
        mesh_sizes({"data": 2, "pipe": 2}, 6)
    with pytest.raises(OptionError, match="does not multiply"):
        ScalingConfig(num_workers=3, mesh={"data": 2})
    with pytest.raises(OptionError, match="size from 1 up"):
        ScalingConfig(num_workers=2, mesh={"data": 0})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ScalingConfig(num_workers=-1), "num_workers"),
        (lambda: ScalingConfig(num_workers=(3, 2)), "num_workers"),
        (lambda: ScalingConfig(placement="NEAR"), "placement"),
        (lambda: ScalingConfig(backend="mpi"), "backend"),
        (lambda: CheckpointConfig(keep=0), "keep"),
        (lambda: CheckpointConfig(mode="best"), "mode"),
        (lambda: FailureConfig(max_failures=-2), "max_failures"),
        (lambda: FailureConfig(hang_timeout=0), "hang_timeout"),
        (lambda: RunConfig(name="a/b"), "name"),
    ],
)
def test_values_that_make_no_sense_are_refused(make, words):
    with pytest.raises(OptionError, match=words):
        make()


def test_shards_cover_all_rows_and_are_equally_long():
    shards = [DataShard(list(range(10)), rank, 4) for rank in range(4)]
    assert [len(one) for one in shards] == [3, 3, 3, 3]
    assert {row for one in shards for row in one} == set(range(10))
    assert list(shards[3].iter_batches(2)) == [[3, 7], [1]]
