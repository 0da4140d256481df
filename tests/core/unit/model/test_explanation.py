"""Explanations travel, print as trees, and know a deadlock."""

from __future__ import annotations

from shoal.model.explanation import STATES, Explanation

TREE = Explanation(
    "`f` (obj-1)",
    "needs data",
    causes=(
        Explanation("`g` (task-2)", "waits", "on exec-1", "be patient", (Explanation("`h`", "runs", "for 2 s"),)),
        Explanation("`i`", "needs resources", "", "be patient"),
    ),
)


def test_the_way_there_and_back() -> None:
    assert Explanation.from_wire(TREE.to_wire()) == TREE


def test_it_prints_as_a_tree_with_each_advice_once() -> None:
    assert str(TREE).splitlines() == [
        "`f` (obj-1): needs data",
        "├─ `g` (task-2): waits (on exec-1)",
        "│  └─ `h`: runs (for 2 s)",
        "└─ `i`: needs resources",
        "What would help: be patient",
    ]
    assert repr(TREE) == str(TREE)


def test_a_deadlock_anywhere_is_one() -> None:
    assert not TREE.deadlock
    assert Explanation(
        "x", "waits", causes=(Explanation("y", "waits", causes=(Explanation("x", "deadlock"),)),)
    ).deadlock
    assert all(part.state in STATES for part in TREE.walk())
