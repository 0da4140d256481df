"""What refs, generators, actors, groups, nodes, functions and the cluster say of themselves."""

from __future__ import annotations

import os
import signal
import time

import numpy
import psutil
import pytest

import shoal

LIMIT = 0.5


@pytest.fixture
def cluster():
    with shoal.init(name="plover", num_cpus=2) as joined:
        yield joined


def shown(value: object) -> str:
    """Return the text that a notebook shows; the HTML has to say as much, and both have to come soon."""
    begin = time.monotonic()
    bundle = value._repr_mimebundle_()
    assert time.monotonic() - begin < LIMIT
    assert "<script" not in bundle["text/html"] and "shoal-" in bundle["text/html"]
    return bundle["text/plain"]


def wait_for(state: str, value: object) -> str:
    deadline = time.monotonic() + 30
    while state not in shown(value).splitlines()[0]:
        assert time.monotonic() < deadline, shown(value)
        time.sleep(0.02)
    return shown(value)


@pytest.fixture
def gate(tmp_path):
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


def test_a_ref_says_where_it_stands(cluster, gate):
    @shoal.remote
    def make(path):
        path.open().read()
        return numpy.ones(100_000)

    ref = make.options(cell="In[7]").remote(gate)
    text = wait_for("pending", ref)
    assert "made by: `make` in In[7]" in text
    gate.open("w").close()
    text = wait_for("ready", ref)
    assert "size: 781 KiB" in text and "place: object store of this machine" in text
    assert "made by: `make` in In[7]" in text


def test_small_values_know_who_made_them_too(cluster):
    ref = shoal.remote(lambda: 1).options(name="one", cell="In[2]").remote()
    shoal.wait([ref], timeout=30)
    assert "made by: `one` in In[2]" in shown(ref) and "place: in this process" in shown(ref)


def test_a_failed_ref_shows_its_error(cluster):
    ref = shoal.remote(lambda: 1 / 0).options(max_retries=0).remote()
    shoal.wait([ref], timeout=30)
    assert shown(ref).splitlines()[0].endswith(": failed")
    assert "error: ZeroDivisionError: division by zero" in shown(ref)


def test_refs_and_actors_of_a_session_that_has_ended_are_lost():
    with shoal.init(num_cpus=1) as cluster:
        ref, actor = shoal.put(1), shoal.remote(dict).remote()
        group = shoal.placement_group([{"num_cpus": 1}])
    for value in (ref, actor, group):
        assert "lost" in shown(value).splitlines()[0]
    assert shown(cluster).endswith("does not answer")


def test_a_generator_counts_its_values(cluster):
    @shoal.remote
    def count():
        yield from range(3)

    values = count.remote()
    next(values)
    assert "values: 3 have arrived, 1 were taken" in wait_for("ended", values)


@shoal.remote
class Counter:
    """Counts."""

    def wait(self, path):
        return path.open().read()


def test_an_actor_says_where_it_lives_and_what_waits(cluster, gate):
    counter = Counter.options(name="tally", max_restarts=1).remote()
    calls = [counter.wait.remote(gate) for _ in range(2)]
    text = wait_for("alive", counter)
    (node,) = shoal.nodes()
    for part in ("actor tally", f"node: {node.id}", "restarts: 0", "methods: wait", "calls: 2 of this process"):
        assert part in text
    shoal.kill(counter)
    text = wait_for("dead", counter)
    assert "cause: it was killed" in text
    del calls


def test_a_placement_group_says_what_is_reserved_where(cluster):
    group = shoal.placement_group([{"num_cpus": 1}, {"num_cpus": 1}])
    text = wait_for("reserved", group)
    (node,) = shoal.nodes()
    assert text.count(node.id) == 2 and "num_cpus=1" in text and "strategy: PACK" in text
    waits = shoal.placement_group([{"num_cpus": 2}])
    assert "pending" in shown(waits).splitlines()[0] and "nowhere" in shown(waits)
    group.remove()
    wait_for("removed", group)


def test_nodes_are_a_table(cluster):
    nodes = shoal.nodes()
    lines = shown(nodes).splitlines()
    assert lines[0] == "1 node" and lines[1].split()[:2] == ["node", "Dask"] and nodes[0].id in lines[2]
    assert isinstance(nodes, list) and "2 of 2" in lines[2]


def test_functions_and_classes_say_how_to_call_them():
    @shoal.remote(num_cpus=2, max_retries=0)
    def train(rate, *, epochs=3):
        """Train a model.

        At length.
        """

    text = shown(train)
    for part in ("train.remote(rate, *, epochs=3)", "num_cpus=2", "max_retries=0", "Train a model."):
        assert part in text
    assert "At length" not in text
    assert "actor class Counter" in shown(Counter) and "Counts." in shown(Counter)


def test_a_cluster_that_says_nothing_is_shown_as_it_was(cluster):
    assert "embedded, TLS, 1 node" in shown(cluster)
    (head,) = [child for child in psutil.Process().children() if "shoal.launch.head" in child.cmdline()]
    actor = Counter.remote()
    wait_for("alive", actor)
    head.send_signal(signal.SIGSTOP)
    try:
        assert "s ago: it is too busy to answer" in shown(cluster)
        assert "unknown" in shown(actor).splitlines()[0]
    finally:
        head.send_signal(signal.SIGCONT)


def test_a_cluster_that_was_lost_says_so(cluster):
    (head,) = [child for child in psutil.Process().children() if "shoal.launch.head" in child.cmdline()]
    ref = shoal.remote(lambda: time.sleep(600)).remote()
    actor = Counter.remote()
    head.kill()
    assert "was lost" in wait_for("lost", ref)
    assert "lost" in wait_for("lost", actor)
    assert shown(cluster) == "shoal cluster plover: does not answer"
