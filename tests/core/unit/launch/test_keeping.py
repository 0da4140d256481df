"""When a detached cluster has been idle long enough, and how many nodes its work fills."""

from __future__ import annotations

from shoal.launch.keeping import Idleness, nodes_needed


def tasks(queued=0, running=0, finished=0):
    return {"queued": queued, "running": running, "finished": finished, "failed": 0, "cancelled": 0}


def test_it_is_announced_once_and_then_it_stops():
    idle = Idleness(300, 0.0)
    told = {now: idle.look(tasks(), float(now)) for now in range(0, 302)}
    assert [now for now, word in told.items() if word == "announce"] == [240]
    assert [now for now, word in told.items() if word == "stop"] == [300, 301]


def test_work_puts_it_off_and_is_announced_anew():
    idle = Idleness(100, 0.0)
    assert idle.look(tasks(), 0.0) == ""
    assert idle.look(tasks(), 60.0) == "announce"
    assert idle.look(tasks(running=1), 99.0) == ""
    assert idle.look(tasks(finished=1), 150.0) == ""  # it has ended just now
    assert idle.look(tasks(finished=1), 199.0) == ""
    assert idle.look(tasks(finished=1), 200.0) == "announce"
    assert idle.left(200.0) == 50.0
    assert idle.look(tasks(finished=1), 250.0) == "stop"


def test_short_work_between_two_looks_counts():
    idle = Idleness(10, 0.0)
    for now in range(100):
        assert idle.look(tasks(finished=now), float(now)) == ""


def test_without_a_limit_nothing_ends():
    idle = Idleness(0, 0.0)
    assert idle.look(tasks(), 1e9) == ""
    idle.set_limit(10, 1e9)
    assert idle.look(tasks(), 1e9 + 9) == "announce"
    idle.set_limit(0, 1e9 + 9.5)
    assert idle.look(tasks(), 2e9) == ""


def snapshot(nodes, queued=0, waiting=()):
    return {
        "nodes": [{"cpus": cpus, "cpus_used": used} for cpus, used in nodes],
        "tasks": tasks(queued=queued),
        "waiting": [{"count": count} for count in waiting],
    }


def test_nodes_for_the_work():
    assert nodes_needed(snapshot([(4, 0)])) == 0
    assert nodes_needed(snapshot([(4, 4)], queued=1)) == 2
    assert nodes_needed(snapshot([(4, 4), (4, 1)], queued=12)) == 5
    assert nodes_needed(snapshot([(2, 2)], queued=1, waiting=(1, 5))) == 4
    assert nodes_needed(snapshot([], queued=3)) == 3
    assert nodes_needed(snapshot([])) == 0
