"""Metrics from drivers, tasks and actors to Prometheus, guarded as the cluster is."""

from __future__ import annotations

import os
import pickle
import signal
import ssl
import urllib.error

import numpy as np
import pytest
from distributed.security import Security
from scraping import read, samples

import shoal
from shoal.errors import OptionError
from shoal.launch import registry

TIMEOUT = 30.0

rows_read = shoal.metrics.Counter("rows_read", "Rows read.", tag_keys=("table",))
loss = shoal.metrics.Gauge("loss", "The newest loss.")
latency = shoal.metrics.Histogram("latency_seconds", boundaries=(0.1, 1.0))


def values(name: str) -> dict[tuple[str, ...], float]:
    return {tuple(row.tags.values()): row.value for row in shoal.metrics.read(name)}


@shoal.remote
def count(table: str, amount: float) -> int:
    rows_read.inc(amount, tags={"table": table})
    loss.set(amount)
    latency.observe(amount)
    return os.getpid()


@shoal.remote
class Reader:
    def __init__(self) -> None:
        self._rows = shoal.metrics.Counter("rows_read", tag_keys=("table",))
        self._rows.set_default_tags({"table": "actor"})

    def count(self, amount: float) -> int:
        self._rows.inc(amount)
        loss.set(amount)
        return os.getpid()


def test_what_drivers_tasks_and_actors_count_is_added_up(embedded, wait_until):
    reader = Reader.remote()
    rows_read.inc(1, tags={"table": "a"})
    shoal.get([count.remote("a", 2.0) for _ in range(10)] + [reader.count.remote(5)], timeout=TIMEOUT)
    wait_until(lambda: values("rows_read") == {("a",): 21.0, ("actor",): 5.0}, lambda: f"{values('rows_read')}")
    (row,) = [row for row in shoal.metrics.read("latency_seconds")]
    assert (row.num_observed, row.value, row.buckets) == (10, 20.0, {0.1: 0, 1.0: 0, float("inf"): 10})
    assert {row.value for row in shoal.metrics.read("loss")} == {2.0, 5.0}
    assert len({row.job for row in shoal.metrics.read()}) == 1
    shoal.kill(reader)


def test_a_process_that_is_killed_keeps_its_counters_and_loses_its_gauges(embedded, wait_until):
    mark = shoal.metrics.Gauge("mark")
    kept = shoal.metrics.Counter("kept")

    @shoal.remote
    class Doomed:
        def work(self) -> int:
            kept.inc(4)
            mark.set(1)
            return os.getpid()

    doomed = Doomed.remote()
    pid = shoal.get(doomed.work.remote(), timeout=TIMEOUT)
    wait_until(lambda: values("mark") == {(): 1.0}, "the gauge")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: values("mark") == {}, "the end of the gauge")
    assert values("kept") == {(): 4.0}


def test_nested_and_short_lived(embedded, wait_until):
    seen = shoal.metrics.Counter("seen", tag_keys=("depth",))

    @shoal.remote
    def inner() -> None:
        seen.inc(tags={"depth": "2"})

    @shoal.remote
    def outer() -> float:
        seen.inc(tags={"depth": "1"})
        shoal.get(inner.remote())
        return sum(row.value for row in shoal.metrics.read("seen") if row.tags["depth"] == "1")

    assert shoal.get(outer.remote(), timeout=TIMEOUT) == 1.0
    wait_until(lambda: values("seen") == {("1",): 1.0, ("2",): 1.0}, "both")


def test_a_metric_travels_with_its_default_tags():
    metric = shoal.metrics.Counter("travelling", "It travels.", tag_keys=("a", "b"))
    metric.set_default_tags({"a": "1"})
    again = pickle.loads(pickle.dumps(metric))
    assert (again.name, again.description, again.tag_keys) == ("travelling", "It travels.", ("a", "b"))
    again.inc(tags={"b": "2"})
    with pytest.raises(OptionError, match="needs a value for the tag `b`"):
        again.inc()


def test_wrong_use_is_refused_in_words():
    for wrong in (-1, float("nan"), float("inf"), "many", None):
        with pytest.raises(OptionError, match="a number from 0 up"):
            rows_read.inc(wrong, tags={"table": "a"})
    with pytest.raises(OptionError, match=r"has no tag 'tabel' \(it has `table`\)"):
        rows_read.inc(tags={"tabel": "a"})
    with pytest.raises(OptionError, match="must be a string"):
        rows_read.inc(tags={"table": 3})
    with pytest.raises(OptionError, match="must be a dict"):
        rows_read.inc(tags="a")
    with pytest.raises(OptionError, match="exists in this process as a counter"):
        shoal.metrics.Gauge("rows_read", tag_keys=("table",))
    with pytest.raises(OptionError, match="sequence of names"):
        shoal.metrics.Counter("other", tag_keys="table")
    with pytest.raises(OptionError, match="finite number"):
        latency.observe(float("nan"))
    with pytest.raises(OptionError, match="rising numbers"):
        shoal.metrics.Histogram("other", boundaries=("a",))


# -- the page for Prometheus -------------------------------------------------------------------------------------------


def trusting(files: dict[str, str], *, show: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files["ca"])
    context.check_hostname = False
    if show:
        context.load_cert_chain(files["cert"], files["key"])
    return context


def test_a_cluster_with_tls_asks_for_a_token_or_a_certificate(embedded, tmp_path, wait_until):
    (connection,) = [found for found in registry.list_clusters() if found.id == embedded.id]
    files = connection.tls_files()
    shoal.get(count.remote("served", 1.0), timeout=TIMEOUT)
    wait_until(lambda: ("served",) in values("rows_read"), "the counter")
    with shoal.metrics.serve() as endpoint:
        assert endpoint.url.startswith("https://127.0.0.1:")
        assert endpoint.token in repr(endpoint)
        assert read(endpoint.url, context=trusting(files))[0] == 401
        assert read(endpoint.url, "wrong" * 5, context=trusting(files))[0] == 401
        status, text = read(endpoint.url, endpoint.token, trusting(files))
        assert (status, samples(text)["shoal_nodes"]) == (200, 1.0)
        assert "served" in text
        assert read(endpoint.url, context=trusting(files, show=True))[0] == 200
        assert read(endpoint.url.replace("/metrics", "/other"), endpoint.token, trusting(files))[0] == 404
        stranger = Security.temporary()
        strange = {"ca": files["ca"]}
        for role, text in (("cert", stranger.tls_client_cert), ("key", stranger.tls_client_key)):
            (tmp_path / role).write_text(text)
            strange[role] = str(tmp_path / role)
        with pytest.raises(OSError):
            read(endpoint.url, endpoint.token, trusting(strange, show=True))
        with pytest.raises(OSError):
            read(endpoint.url.replace("https", "http"), endpoint.token)
    with pytest.raises(urllib.error.URLError):
        read(endpoint.url, endpoint.token, trusting(files))
    endpoint.stop()


@pytest.mark.parametrize(
    "options", [{"port": -1}, {"port": "80"}, {"host": ""}, {"token": "short"}, {"token": "ä" * 20}]
)
def test_what_cannot_be_served(embedded, options):
    with pytest.raises(OptionError):
        shoal.metrics.serve(**options)


def test_the_page_of_a_notebook(embedded, tmp_path):
    refs = [shoal.remote(np.zeros).options(cell="In[3]#ab", name="zeros").remote(300_000) for _ in range(4)]
    shoal.get(refs, timeout=TIMEOUT)
    drawn = shoal.plot.analysis()
    html = drawn.save(tmp_path / "page.html").read_text()
    assert "zeros" in html
    assert "In[3]" in html
    assert drawn._repr_html_().startswith("<iframe")
    for limit in (0, 200_001, "all"):
        with pytest.raises(OptionError, match="`limit`"):
            shoal.plot.analysis(limit)
