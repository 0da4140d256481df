"""``shoal.state`` of clusters that have ended or were killed, that write no log, inline, and without pandas."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cells_of_work import Counter, double, run_cells
from trace_viewer import open_trace

import shoal
import shoal.state
from shoal.api.looking import look
from shoal.errors import OptionError
from shoal.observe.logged import read_log
from shoal.runtime import session

TIMEOUT = 30.0


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def test_inline_it_works_likewise():
    with shoal.init(inline=True):

        @shoal.remote
        def values():
            yield 1
            yield 2

        run_cells("In[1]#aa")
        generator = values.remote()
        frame = shoal.state.tasks()
        assert frame.state.value_counts().to_dict() == {"finished": 14, "failed": 1, "running": 1}
        assert set(frame.node) == set(shoal.state.nodes().id) == {"inline"}
        assert shoal.state.summary("cell").iloc[0].finished == 14
        assert len(shoal.state.leases()) == 0 and len(shoal.state.placement_groups()) == 0
        held = shoal.put(3)
        assert held.id in set(shoal.state.objects().object_id)
        assert len(open_trace(json.dumps(shoal.state.timeline())).arrows) == 15
        (group,) = look(session.get_owner(), "failures", "In[1]#aa")
        assert group[1:4] == ("fail", 1, "ValueError: not now")
        del generator


def test_a_cluster_that_has_ended_can_be_examined(wait_until, tmp_path):
    with shoal.init(num_cpus=2, name="past") as cluster:
        cluster_id = cluster.id
        run_cells("In[3]#aa")
        actor = Counter.options(name="ann").remote()
        shoal.get(actor.add.remote(1), timeout=TIMEOUT)
        told = shoal.state.tasks()
        assert cluster_id not in set(shoal.state.past().id), "it has not ended"
        # Every word of the last moments of executors is in the log: they are told at their next report.
        wait_until(lambda: shoal.snapshot()["records"] == len(told), "all records arrive")
    (row,) = shoal.state.past().query("id == @cluster_id").to_dict("records")
    assert (row["name"], row["tasks"], row["in_order"]) == ("past", len(told), True)
    assert row["started"] < row["ended"]
    past = shoal.state.open(cluster_id)
    assert "ended in order" in repr(past) and past.name == "past"
    assert set(past.tasks().task_id) == set(told.task_id)
    assert set(past.tasks(state="failed").error) == {"ValueError: not now"}
    assert len(past.tasks(state="pending")) == len(past.leases()) == len(past.objects()) == 0
    assert set(past.nodes().state) == {"left"} and set(past.tasks(function="double").node) == set(past.nodes().id)
    assert past.actors().query("name == 'ann'").state.tolist() == ["dead"]
    assert past.summary("cell").finished.tolist() == [14]
    assert len(past.jobs()) == 1 and {"node", "driver", "actor"} <= set(past.events().kind)
    shown = open_trace(past.timeline(tmp_path / "past.json").read_text())
    assert sum(piece.category == "task" for piece in shown.slices) == 15
    assert shoal.state.open(row["path"]).id == cluster_id


def test_a_driver_that_leaves_at_once_has_told_of_all_its_work():
    with shoal.init(num_cpus=1, name="hasty") as cluster:
        assert len(shoal.get([double.remote(number) for number in range(20)], timeout=TIMEOUT)) == 20
    assert len(shoal.state.open(cluster.id).tasks(function="double", state="finished")) == 20


def test_a_cluster_that_was_killed_can_be_examined(event_logs, wait_until):
    cluster = shoal.init(num_cpus=1, name="killed")
    try:
        run_cells("In[3]#aa")
        log = event_logs / cluster.id
        wait_until(lambda: logged(log) == 15, "the records are written")
        os.kill(cluster._session.head.pid, signal.SIGKILL)
        wait_until(lambda: not read_log(log).running, "it has ended")
    finally:
        shoal.shutdown()
    (row,) = shoal.state.past().query("id == @cluster.id").to_dict("records")
    assert (row["tasks"], row["in_order"]) == (15, False)
    past = shoal.state.open(cluster.id)
    assert "was killed" in repr(past) and len(past.tasks(cell="In[3]")) == 15 and len(past.nodes()) == 1


def logged(log: Path) -> int:
    try:
        return sum(batch.num_records for batch in read_log(log).batches)
    except (OSError, ValueError):
        return 0


def test_no_log_is_written_where_that_is_said(event_logs, tmp_path, monkeypatch):
    monkeypatch.setenv("SHOAL_EVENT_LOG", "0")
    before = set(event_logs.iterdir())
    with shoal.init(num_cpus=1):
        assert shoal.get(double.remote(2), timeout=TIMEOUT) == 4
        assert len(shoal.state.tasks()) == 1, "what the cluster remembers is another matter"
    assert set(event_logs.iterdir()) == before
    assert len(shoal.state.past()) == 0
    with pytest.raises(OptionError, match="no log"):
        shoal.state.open("cluster-none")
    monkeypatch.setenv("SHOAL_EVENT_LOG", "somewhere")
    with pytest.raises(OptionError, match="SHOAL_EVENT_LOG"):
        shoal.init(num_cpus=1)


def test_a_log_that_cannot_be_written_is_an_event(tmp_path, monkeypatch, wait_until):
    (tmp_path / "logs").mkdir()
    monkeypatch.setenv("SHOAL_EVENT_LOG", str(tmp_path / "logs"))
    cluster = shoal.init(num_cpus=1)
    try:
        (tmp_path / "logs" / cluster.id).write_text("in the way")
        assert shoal.get([double.remote(number) for number in range(3)], timeout=TIMEOUT) == [0, 2, 4]
        wait_until(lambda: "log" in {row["kind"] for row in shoal.state.events(as_rows=True)}, "somebody says so")
        (row,) = [row for row in shoal.state.events(as_rows=True) if row["kind"] == "log"]
        assert cluster.id in row["text"] and "incomplete" in row["text"]
    finally:
        shoal.shutdown()


def test_without_pandas_there_are_rows(event_logs):
    code = """
import sys
sys.modules["pandas"] = None
import shoal
with shoal.init(inline=True):
    shoal.get(shoal.remote(lambda: 1).remote())
    assert [row["state"] for row in shoal.state.tasks(as_rows=True)] == ["finished"]
    for name in ("actors", "cells", "events", "functions", "jobs", "leases", "nodes", "objects", "past",
                 "placement_groups", "summary"):
        assert isinstance(getattr(shoal.state, name)(as_rows=True), list), name
    try:
        shoal.state.tasks()
    except ImportError as error:
        print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "pip install pandas" in result.stdout
