"""Metrics without a cluster, and on the dashboard of a Dask cluster."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from typing import Any

import pytest
from distributed import LocalCluster
from distributed.security import Security
from scraping import read, samples

import shoal
from shoal.errors import ConnectError, NotInitializedError, OptionError

TIMEOUT = 30.0

rows_read = shoal.metrics.Counter("rows_read", "Rows read.", tag_keys=("table",))


def values(name: str) -> dict[tuple[str, ...], float]:
    return {tuple(row.tags.values()): row.value for row in shoal.metrics.read(name)}


@shoal.remote
def count(table: str, amount: float) -> None:
    rows_read.inc(amount, tags={"table": table})


def test_inline():
    inline = shoal.metrics.Counter("inline_things")
    with shoal.init(inline=True):

        @shoal.remote
        def work() -> None:
            inline.inc(2)

        shoal.get([work.remote(), work.remote()])
        assert values("inline_things") == {(): 4.0}
        with pytest.warns(UserWarning, match="no TLS and no token"):
            endpoint = shoal.metrics.serve()
        found = samples(read(endpoint.url)[1])
        assert found["inline_things_total"] == 4.0
        assert found["shoal_task_duration_seconds_count"] == 2.0
    with pytest.raises(urllib.error.URLError):
        read(endpoint.url)


def test_without_a_cluster():
    with pytest.raises(NotInitializedError):
        shoal.metrics.read()
    with pytest.raises(NotInitializedError):
        shoal.metrics.serve()


@pytest.fixture
def plain() -> Any:
    """A Dask cluster without TLS, with its dashboard."""
    with LocalCluster(n_workers=1, threads_per_worker=2, protocol="tcp://", dashboard_address=":0") as dask_cluster:
        yield dask_cluster


def page(dask_cluster: LocalCluster, path: str) -> tuple[int, str]:
    return read(dask_cluster.dashboard_link.replace("/status", path))


@pytest.mark.filterwarnings("ignore:The cluster at:UserWarning")
def test_a_plain_dask_cluster_has_the_pages_on_its_dashboard(plain, wait_until: Callable[..., None]):
    assert page(plain, "/shoal/metrics")[0] == 404
    with shoal.init(plain, timeout=TIMEOUT):
        shoal.get([count.remote("dask", 1.0) for _ in range(5)], timeout=TIMEOUT)
        wait_until(lambda: values("rows_read").get(("dask",)) == 5.0, "the counters")
        status, text = page(plain, "/shoal/metrics")
        assert (status, samples(text)["shoal_tasks_ended_total"]) == (200, 5.0)
        assert 'rows_read_total{job_id="job-' in text
        status, html = page(plain, "/shoal/analysis")
        assert status == 200
        assert "5 tasks and calls have ended" in html
        with pytest.raises(OptionError, match="loopback only"):
            shoal.metrics.serve(host="0.0.0.0")
        with pytest.warns(UserWarning, match="no TLS and no token"):
            endpoint = shoal.metrics.serve()
        assert (endpoint.url.partition(":")[0], endpoint.token) == ("http", "")
        assert read(endpoint.url)[0] == 200
        guarded = shoal.metrics.serve(token="a-token-of-our-own")
        assert [read(guarded.url, token)[0] for token in ("", "a-token-of-others", "a-token-of-our-own")] == [
            401, 401, 200,
        ]  # fmt: skip


@pytest.mark.parametrize("allowed", ["", "1", "perhaps"])
def test_a_dask_cluster_with_tls_has_them_only_if_that_is_allowed(allowed, monkeypatch):
    monkeypatch.setenv("SHOAL_DASHBOARD_PAGES", allowed)
    options = {"security": Security.temporary(), "protocol": "tls://", "dashboard_address": ":0"}
    with LocalCluster(n_workers=1, threads_per_worker=1, **options) as dask_cluster:
        if allowed == "perhaps":
            with pytest.raises(ConnectError, match="must be 0 or 1"):
                shoal.init(dask_cluster, timeout=TIMEOUT)
            return
        with shoal.init(dask_cluster, timeout=TIMEOUT):
            assert page(dask_cluster, "/shoal/metrics")[0] == (200 if allowed else 404)
            assert page(dask_cluster, "/shoal/analysis")[0] == (200 if allowed else 404)
