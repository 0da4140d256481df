"""Metrics of a cluster: added up for each job, gauges for each process, within limits."""

from __future__ import annotations

from shoal.observe.metric_book import MAX_ENDED_JOBS, MetricBook, metric_rows
from shoal.observe.metrics import COUNTER, GAUGE, HISTOGRAM, MAX_SERIES

READ = ("read", COUNTER, "", ("table",), ())
LEVEL = ("level", GAUGE, "", (), ())
SIZES = ("sizes", HISTOGRAM, "", (), (1.0, 2.0))


def values(book: MetricBook) -> dict[tuple[str, ...], float]:
    return {(row.name, row.job, row.process, *row.tags.values()): row.value for row in metric_rows(book.rows())}


def test_counters_and_histograms_survive_a_process_and_gauges_go_with_it() -> None:
    book = MetricBook()
    for process, amount in (("exec-1", 3.0), ("exec-2", 4.0)):
        changes = (("read", ("a",), (amount,)), ("level", (), (amount,)), ("sizes", (), (amount, 0, 1, 2)))
        assert book.add(process, "job-1", (READ, LEVEL, SIZES), changes) == []
    book.add("exec-3", "job-2", (READ,), (("read", ("a",), (1.0,)),))
    book.process_left("exec-1")
    assert values(book) == {
        ("read", "job-1", "", "a"): 7.0,
        ("read", "job-2", "", "a"): 1.0,
        ("level", "job-1", "exec-2"): 4.0,
        ("sizes", "job-1", ""): 7.0,
    }
    (sizes,) = [row for row in metric_rows(book.rows()) if row.kind == HISTOGRAM]
    assert (sizes.num_observed, sizes.buckets) == (6, {1.0: 0, 2.0: 2, float("inf"): 6})


def test_who_means_something_else_by_a_name_is_not_counted_and_that_is_said_once() -> None:
    book = MetricBook()
    book.add("exec-1", "job-1", (READ,), (("read", ("a",), (1.0,)),))
    other = ("read", GAUGE, "", ("table",), ())
    (complaint,) = book.add("exec-2", "job-1", (other,), (("read", ("a",), (50.0,)),))
    assert complaint == "the metric `read` exists as a counter, not a gauge: what `exec-2` reports is not counted"
    assert book.add("exec-2", "job-1", (), (("read", ("a",), (50.0,)),)) == []
    assert values(book) == {("read", "job-1", "", "a"): 1.0}


def test_what_does_not_fit_a_metric_is_not_counted() -> None:
    book = MetricBook()
    book.add("exec-1", "job-1", (READ, SIZES), (("read", (), (1.0,)), ("sizes", (), (1.0,)), ("unknown", (), (1.0,))))
    assert values(book) == {}


def test_series_are_bounded_for_each_job() -> None:
    book = MetricBook()
    changes = [("read", (str(number),), (1.0,)) for number in range(MAX_SERIES + 3)]
    (complaint,) = book.add("exec-1", "job-1", (READ,), changes)
    assert complaint.startswith("the metric `read` has 1,000 combinations of tag values in one job")
    assert book.add("exec-1", "job-1", (), (("read", ("more",), (1.0,)), ("read", ("0",), (1.0,)))) == []
    assert len(values(book)) == MAX_SERIES
    assert values(book)["read", "job-1", "", "0"] == 2.0
    assert book.add("exec-2", "job-2", (), (("read", ("0",), (1.0,)),)) == []


def test_the_newest_jobs_that_have_ended_are_kept() -> None:
    book = MetricBook()
    for number in range(MAX_ENDED_JOBS + 2):
        book.add(f"driver-{number}", f"job-{number}", (READ,), (("read", ("a",), (1.0,)),))
        book.job_ended(f"job-{number}")
    kept = {row.job for row in metric_rows(book.rows())}
    assert len(kept) == MAX_ENDED_JOBS
    assert "job-1" not in kept
    assert "job-2" in kept
