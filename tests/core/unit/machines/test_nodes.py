"""The node index finds what a search through all nodes would, and labels match."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.machines.nodes import Ledger, NodeIndex
from shoal.model.resources import fits, give, make_resources, take

AMOUNTS = st.fixed_dictionaries({"num_cpus": st.integers(0, 4)}, optional={"num_gpus": st.integers(1, 3)})


@given(st.lists(AMOUNTS, min_size=1, max_size=8), st.lists(st.tuples(AMOUNTS, st.booleans()), max_size=40))
def test_room_is_found_wherever_there_is_some(
    totals: list[dict[str, float]], wishes: list[tuple[dict[str, float], bool]]
) -> None:
    index = NodeIndex()
    nodes = [Ledger.of(f"node-{n}", make_resources(total)) for n, total in enumerate(totals)]
    for node in nodes:
        index.add(node)
    taken: list[tuple[Ledger, tuple[tuple[str, float], ...]]] = []
    for number, (amounts, back) in enumerate(wishes):
        asked = make_resources(amounts)
        fitting = [node for node in nodes if fits(asked, node.free)]
        for found in (index.with_most_room(asked), index.with_fewest_leases(asked)):
            assert (found is None) == (not fitting)
            assert found is None or found in fitting
        chosen = index.with_most_room(asked)
        if chosen is not None:
            take(asked, chosen.free)
            chosen.leases[str(number)] = None
            index.changed(chosen)
            taken.append((chosen, asked))
        if back and taken:
            node, amount = taken.pop(0)
            give(amount, node.free)
            node.leases.popitem()
            index.changed(node)


def test_the_fewest_leases_come_first_and_nodes_can_be_left_out() -> None:
    index = NodeIndex()
    nodes = [Ledger.of(f"node-{n}", make_resources({"num_cpus": 4})) for n in range(3)]
    for number, node in enumerate(nodes):
        node.leases.update(dict.fromkeys(map(str, range(number))))
        index.add(node)
    assert index.with_fewest_leases(()) is nodes[0]
    index.remove(nodes[0])
    assert index.with_fewest_leases(()) is nodes[1]
    index.changed(nodes[0])
    assert nodes[0] not in list(index.by_room(()))


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ((), True),
        ((("zone", "a"),), True),
        ((("zone", "b"),), False),
        ((("zone", "!b"),), True),
        ((("zone", "!a"),), False),
        ((("disk", "!ssd"),), True),
        ((("disk", "ssd"),), False),
        ((("zone", "a"), ("rack", "2")), False),
    ],
)
def test_labels(selector: tuple[tuple[str, str], ...], matches: bool) -> None:
    node = Ledger.of("node", (), labels={"zone": "a", "rack": "1"})
    assert node.matches(selector) is matches
