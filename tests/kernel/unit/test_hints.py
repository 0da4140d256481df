"""When a hint is given, and when it would be wrong."""

from __future__ import annotations

import pytest

from shoal.observe.cell_progress import FunctionProgress, Progress
from shoal.observe.habits import Facts, Repeat
from shoal_kernel.hints import choose, gets_in_loop

NOTHING = Facts()
LOOP = "for i in range(20):\n    results.append(shoal.get(f.remote(i)))"


def progress(finished: int, seconds: float, elapsed: float, lanes: int = 2, name: str = "f") -> Progress:
    row = FunctionProgress(name, finished, 0, finished, 0, 0, 0, seconds, 0.0, 0.0)
    return Progress("cell", (row,), elapsed, lanes)


def kinds(facts: Facts = NOTHING, work: Progress | None = None, source: str = "", spilled: int = 0) -> list[str]:
    return [hint.kind for hint in choose(facts, work, source, spilled)]


def test_nothing_to_say() -> None:
    assert kinds() == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (LOOP, True),
        ("[shoal.get(f.remote(i)) for i in range(9)]", True),
        ("for i in x:\n    ref = f.remote(i)\n    total += get(ref)", True),
        ("while work:\n    print(get(f.remote(1)))", True),
        # Each needs the one before.
        ("for i in x:\n    w = shoal.get(f.remote(w))", False),
        ("for i in x:\n    w = g(shoal.get(f.remote(i, w)))", False),
        ("for i in x:\n    y = load(i)\n    shoal.get(f.remote(y))", False),
        # All of a batch run together.
        ("for b in x:\n    shoal.get([f.remote(i) for i in b])", False),
        # Everything has been submitted.
        ("refs = [f.remote(i) for i in x]\nfor ref in refs:\n    shoal.get(ref)", False),
        ("shoal.get(f.remote(1))", False),
        ("for i in x:\n    d.get(i)", False),
        ("%%remote\n" + LOOP, False),
    ],
)
def test_loops(source: str, expected: bool) -> None:
    assert gets_in_loop(source) is expected


def test_get_in_a_loop() -> None:
    assert kinds(Facts(20, 2.0), source=LOOP) == ["get in a loop"]
    assert kinds(Facts(5, 2.0), source=LOOP) == []
    assert kinds(Facts(20, 0.2), source=LOOP) == []
    assert kinds(Facts(20, 2.0), source="work()") == []


def test_small_tasks() -> None:
    assert kinds(work=progress(5000, seconds=1.0, elapsed=2.0)) == ["small tasks"]
    assert kinds(work=progress(500, seconds=0.1, elapsed=2.0)) == []
    assert kinds(work=progress(5000, seconds=100.0, elapsed=200.0)) == []
    assert kinds(work=progress(5000, seconds=1.0, elapsed=0.6)) == []
    assert kinds(work=progress(5000, seconds=40.0, elapsed=22.0)) == []
    assert kinds(work=progress(5000, seconds=1.0, elapsed=2.0, name="Actor.method")) == []
    assert kinds(work=Progress("cell", (), 0.0, 1)) == []


def test_the_same_argument() -> None:
    assert kinds(Facts(repeats=(Repeat("f", 100_000_000, 10),))) == ["same argument"]
    assert kinds(Facts(repeats=(Repeat("f", 100_000_000, 2),))) == []
    assert kinds(Facts(repeats=(Repeat("f", 1_000_000, 10),))) == []


def test_many_pending() -> None:
    assert kinds(Facts(most_pending=60_000)) == ["many pending"]
    assert kinds(Facts(most_pending=10_000)) == []


def test_spilled() -> None:
    assert kinds(spilled=300_000_000) == ["spilled"]
    assert kinds(spilled=1_000_000) == []
    assert kinds(spilled=-300_000_000) == []
