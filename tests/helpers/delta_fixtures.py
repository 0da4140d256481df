"""What the panel's reading of changes is tested with, made by the code that writes them.

``python tests/helpers/delta_fixtures.py`` writes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from simulated_cluster import SimulatedCluster

from shoal.observe.deltas import apply, diff

PATH = Path(__file__).parents[2] / "labextension" / "tests" / "deltas.json"


def make_cases() -> list[dict[str, Any]]:
    """Return cases: a snapshot (or tables of one), a delta, and what is after it."""
    cluster = SimulatedCluster(num_nodes=2, tasks_per_second=20, num_functions=2, num_actors=1)
    cases = []
    for step in range(4):
        before = cluster.snapshot
        if step == 2:
            cluster.fail(2)
            cluster.wait("waits for 2 CPUs")
            cluster.new_cell(3)
        delta = cluster.step(0.6)
        cases.append({"name": f"step {step}", "before": before, "delta": delta, "after": cluster.snapshot})
    for name, old, new in (
        ("rows go", [{"id": "a", "x": 1}, {"id": "b", "x": 2}], [{"id": "b", "x": 2}]),
        ("order", [{"id": "a"}, {"id": "b"}, {"id": "c"}], [{"id": "c"}, {"id": "a"}, {"id": "d"}]),
        ("a field becomes null", [{"id": "a", "x": 1}], [{"id": "a", "x": None}]),
        ("__proto__ is a name like any other", [], [{"id": "__proto__", "x": 1}]),
        ("nothing", [{"id": "a"}], [{"id": "a"}]),
    ):
        before, after = {"nodes": old, "time": 1.0}, {"nodes": new, "time": 2.0}
        cases.append({"name": name, "before": before, "delta": diff(before, after), "after": after})
    for case in cases:
        assert apply(case["before"], case["delta"]) == case["after"]
    return cases


def make_text() -> str:
    """Return the file's content."""
    return json.dumps({"cases": make_cases()}, separators=(",", ":"), sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(make_text())
