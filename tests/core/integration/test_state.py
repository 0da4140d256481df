"""``shoal.state`` of clusters that run."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import datetime
from pathlib import Path

import numpy
import pytest
from cells_of_work import Counter, double, fail, run_cells, stuck
from trace_viewer import open_trace

import shoal
import shoal.state
from shoal.api.looking import look
from shoal.errors import OptionError, ShoalError, TaskCancelledError
from shoal.runtime import session

TIMEOUT = 30.0


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def test_tasks_are_told_at_once_wherever_they_were_submitted(cluster):
    tag = "In[3]#aa"
    run_cells(tag)
    frame = shoal.state.tasks(cell="In[3]", timeout=TIMEOUT)
    assert frame.attrs["unanswered"] == []
    assert frame.function.value_counts().to_dict() == {"double": 13, "nested": 1, "fail": 1}
    assert set(frame.state) == {"finished", "failed"} and set(frame.cell_id) == {tag}
    nodes = shoal.state.nodes()
    assert set(frame.node) <= set(nodes.id) and "" not in set(frame.executor)
    assert (frame.submitted <= frame.started).all() and (frame.started <= frame.ended).all()
    assert frame.ended.is_monotonic_decreasing, "the newest come first"
    (failed,) = shoal.state.tasks(cell=tag, state="failed", as_rows=True)
    assert (failed["error"], failed["attempt"], failed["kind"]) == ("ValueError: not now", 0, "task")
    inner = shoal.state.tasks(cell=tag, function="double", as_rows=True)
    (outer,) = shoal.state.tasks(function="nested", as_rows=True)
    assert {row["owner"] for row in inner} == {outer["owner"], outer["executor"]}
    assert len(shoal.state.tasks(cell=tag, limit=4)) == 4 and len(shoal.state.tasks(limit=0)) == 0


def test_what_is_pending_says_so(cluster, gate):
    refs = [stuck.options(cell="In[8]#cd").remote(gate) for _ in range(6)]
    try:
        deadline = time.monotonic() + TIMEOUT
        while len(shoal.state.tasks(function="stuck", state="running", timeout=TIMEOUT)) < 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        frame = shoal.state.tasks(cell="In[8]", state="pending", timeout=TIMEOUT)
        assert len(frame) == 6 and set(frame.state) == {"queued", "running"}
        assert frame.started.isna().all() and frame.seconds.isna().all()
        running = shoal.state.tasks(cell="In[8]", state="running", as_rows=True)[0]
        assert running["node"] and running["executor"] and running["ended"] is None
        assert len(shoal.state.tasks(cell="In[8]", state="finished")) == 0
        (lease,) = shoal.state.leases().query("executor == @running['executor']").to_dict("records")
        assert (lease["state"], lease["num_cpus"], lease["owner"]) == ("held", 1.0, running["owner"])
        (job,) = shoal.state.jobs(as_rows=True)
        assert job["queued"] >= 1 and job["queued"] + job["running"] == 6
    finally:
        for ref in refs:
            shoal.cancel(ref)
    for ref in refs:
        with pytest.raises(TaskCancelledError):
            shoal.get(ref, timeout=TIMEOUT)
    assert set(shoal.state.tasks(cell="In[8]").state) == {"cancelled"}


def test_the_other_tables(cluster):
    run_cells("In[4]#bb")
    actor = Counter.options(name="ann").remote()
    shoal.get([actor.add.remote(number) for number in range(5)], timeout=TIMEOUT)
    group = shoal.placement_group([{"num_cpus": 1}])
    shoal.get(group.ready(), timeout=TIMEOUT)
    large = shoal.put(numpy.ones(1_000_000))
    try:
        (row,) = shoal.state.actors().query("name == 'ann'").to_dict("records")
        assert (row["class_name"], row["state"]) == ("Counter", "alive") and row["node"] in set(shoal.state.nodes().id)
        assert "ann" in set(shoal.state.leases().actor)
        (row,) = shoal.state.placement_groups(as_rows=True)
        assert (row["state"], row["bundles"], row["strategy"]) == ("ready", ["num_cpus=1"], "PACK")
        biggest = shoal.state.objects(limit=1, timeout=TIMEOUT, as_rows=True)[0]
        assert (biggest["object_id"], biggest["made_by"]) == (large.id, "put") and biggest["nbytes"] > 8_000_000
        assert biggest["owner"] == session.get_owner().owner_id
        assert "driver" in set(shoal.state.events().kind)
        by_function = shoal.state.summary().set_index("function")
        assert by_function.loc["ann.add", "finished"] == 5
        (cell,) = shoal.state.summary("cell").query("cell == 'In[4]'").to_dict("records")
        assert (cell["finished"], cell["failed"], cell["running"]) == (14, 1, 0)
        states = shoal.state.summary("state").set_index("state")["count"]
        assert states["finished"] == shoal.state.functions().finished.sum() and states["queued"] == 0
    finally:
        shoal.remove_placement_group(group)
        shoal.kill(actor)


def test_a_timeline_is_a_file_that_viewers_open(cluster, tmp_path):
    run_cells("In[5]#ee")
    path = shoal.state.timeline(tmp_path / "trace.json", cell="In[5]")
    shown = open_trace(path.read_text())
    trace = json.loads(path.read_text())
    slices = [e for e in trace["traceEvents"] if e["ph"] == "X" and e["cat"] == "task"]
    assert sorted(e["name"] for e in slices) == [*["double"] * 13, "fail", "nested"]
    assert len({e["id"] for e in trace["traceEvents"] if e["ph"] == "s"}) == 15
    processes = [e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "process_name"]
    assert any(node in name for name in processes for node in shoal.state.nodes().id)
    # What the viewer shows is what the tables say, of each task, in their units.
    rows = {row["task_id"]: row for row in shoal.state.tasks(cell="In[5]", as_rows=True)}
    assert len(shown.arrows) == len(rows) and set(shown.work()) == set(rows)
    began = datetime.fromisoformat(trace["otherData"]["began"]).timestamp()
    for task, piece in shown.work().items():
        assert piece.end - piece.begin == pytest.approx(max(1, rows[task]["seconds"] * 1e9), abs=2)
        assert rows[task]["submitted"] - 1e-3 <= began + piece.begin / 1e9
        assert began + piece.end / 1e9 <= rows[task]["ended"] + 1e-3
    assert shoal.state.timeline(limit=0)["otherData"]["cluster"] == cluster.name


def test_owners_tell_of_failures_and_memory_and_let_go(cluster):
    owner = session.get_owner()
    refs = [fail.options(cell="In[6]#ff").remote(what) for what in ("now", "now", "never")]
    shoal.wait(refs, num_returns=3, timeout=TIMEOUT)
    rows = look(owner, "failures", "In[6]#ff", target=owner.owner_id, timeout=TIMEOUT)
    assert [row[:4] for row in rows] == [
        ("In[6]#ff", "fail", 2, "ValueError: not now"), ("In[6]#ff", "fail", 1, "ValueError: not never"),
    ]  # fmt: skip
    assert 'raise ValueError(f"not {what}' in rows[0][4] and "ValueError: not now\nand more\n" in rows[0][4]
    large = shoal.put(numpy.ones(2_000_000))
    found = look(owner, "memory", 1, target=owner.owner_id, timeout=TIMEOUT)
    assert found["objects"][0]["object_id"] == large.id and found["stores"] and found["more"][0] > 0
    assert look(owner, "release", target=owner.owner_id, timeout=TIMEOUT)["released"] is not None
    with pytest.raises(ShoalError, match="TypeError"):
        look(owner, "memory", "much", target=owner.owner_id, timeout=TIMEOUT)


def stop(pid: int) -> None:
    """Stop a process and wait until each of its threads stands: one that runs on for a moment may give an answer."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + TIMEOUT
    while any(_thread_state(path) != "T" for path in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _thread_state(task: Path) -> str:
    return (task / "stat").read_text().rpartition(")")[2].split()[0]


def test_who_gives_no_answer_is_named(cluster, gate):
    @shoal.remote
    def silent(path):
        shoal.get(double.remote(1))
        path.write_text(str(os.getpid()))
        return path.open().read()

    ref = silent.remote(gate)
    pid = int(gate.read_text())
    (row,) = shoal.state.tasks(function="silent", as_rows=True)
    stop(pid)
    try:
        frame = shoal.state.tasks(timeout=0.5)
        assert frame.attrs["unanswered"] == [row["executor"]]
        assert shoal.state.tasks(timeout=0.5, as_rows=True).unanswered == [row["executor"]]
        assert len(frame.query("function == 'silent' and state == 'running'")) == 1
    finally:
        os.kill(pid, signal.SIGCONT)
    gate.write_text("go on")
    assert shoal.get(ref, timeout=TIMEOUT) == "go on"


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: shoal.state.tasks(state="runing"), "did you mean.*running"),
        (lambda: shoal.state.tasks(state=3), "`state` must be one of"),
        (lambda: shoal.state.tasks(cell=""), "`cell` must be a name"),
        (lambda: shoal.state.tasks(function=double), "`function` must be a name"),
        (lambda: shoal.state.tasks(limit=-1), "`limit`"),
        (lambda: shoal.state.tasks(limit=True), "`limit`"),
        (lambda: shoal.state.tasks(timeout=0), "`timeout`"),
        (lambda: shoal.state.tasks(as_rows=1), "`as_rows`"),
        (lambda: shoal.state.objects(limit="all"), "`limit`"),
        (lambda: shoal.state.summary("cel"), "did you mean.*cell"),
        (lambda: shoal.state.timeline(cell=3), "`cell`"),
        (lambda: shoal.state.open("cluster-none"), "no log"),
    ],
)
def test_arguments_are_checked(cluster, call, what):
    with pytest.raises(OptionError, match=rf"(?i){what}"):
        call()


def test_inside_a_task_it_is_the_same_cluster(cluster):
    @shoal.remote
    def look_around():
        return len(shoal.state.nodes(as_rows=True)), shoal.state.tasks(function="look_around", as_rows=True)

    num_nodes, rows = shoal.get(look_around.remote(), timeout=TIMEOUT)
    assert num_nodes == len(shoal.state.nodes()) and [row["state"] for row in rows] == ["running"]


def test_memory_by_cell_is_told_over_time(cluster, wait_until):
    ref = shoal.remote(numpy.ones).options(cell="In[7]#memory").remote(1_000_000)
    shoal.wait([ref], timeout=TIMEOUT)

    def curve() -> list[float]:
        rows = look(session.get_owner(), "cell_memory", timeout=TIMEOUT)
        return [nbytes for row in rows if row["cell"] == "In[7]#memory" for _, nbytes in row["points"]]

    wait_until(lambda: curve() and curve()[-1] > 8_000_000, "its bytes are told")
    assert curve()[0] == 0
    page = shoal.plot.analysis().html
    assert "Memory by cell over time" in page
