"""Where the bundles of a placement group go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shoal.machines.bundles import plan
from shoal.machines.nodes import Ledger
from shoal.model.placement import STRATEGIES
from shoal.model.resources import fits, make_resources, take


def cpus(*amounts: float) -> list[tuple[tuple[str, float], ...]]:
    return [make_resources({"num_cpus": amount}) for amount in amounts]


def nodes_with(*amounts: float) -> list[Ledger]:
    return [Ledger.of(f"node-{n}", make_resources({"num_cpus": amount})) for n, amount in enumerate(amounts)]


def place(bundles: list[tuple[tuple[str, float], ...]], strategy: str, nodes: list[Ledger]) -> list[str] | None:
    chosen = plan(bundles, strategy, nodes, lambda node: node.free)
    return None if chosen is None else [node.node_id for node in chosen]


def test_packing_uses_few_nodes_and_spreading_many() -> None:
    nodes = nodes_with(4, 4, 4)
    assert len(set(place(cpus(1, 1, 1), "PACK", nodes) or [])) == 1
    assert len(set(place(cpus(1, 1, 1), "SPREAD", nodes) or [])) == 3
    assert len(set(place(cpus(3, 3, 2), "PACK", nodes) or [])) == 3
    assert len(set(place(cpus(1, 1, 1, 1), "SPREAD", nodes) or [])) == 3


def test_strict_ones_have_it_their_way_or_not_at_all() -> None:
    assert place(cpus(2, 2), "STRICT_PACK", nodes_with(3, 4, 8)) == ["node-1", "node-1"]
    assert place(cpus(3, 2), "STRICT_PACK", nodes_with(4, 4)) is None
    assert sorted(place(cpus(1, 1), "STRICT_SPREAD", nodes_with(1, 8)) or []) == ["node-0", "node-1"]
    assert place(cpus(1, 1), "STRICT_SPREAD", nodes_with(8)) is None


def test_what_is_taken_already_counts() -> None:
    nodes = nodes_with(4, 4)
    assert plan(cpus(1), "STRICT_SPREAD", nodes, lambda node: node.free, taken=["node-0"]) == [nodes[1]]
    assert plan(cpus(1), "STRICT_PACK", nodes, lambda node: node.free, taken=["node-1"]) == [nodes[1]]
    assert plan(cpus(1), "STRICT_SPREAD", nodes, lambda node: node.free, taken=["node-0", "node-1"]) is None


@given(
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 3.0]), min_size=1, max_size=6),
    st.lists(st.integers(0, 5), min_size=1, max_size=5),
    st.sampled_from(STRATEGIES),
)
def test_a_plan_always_fits_and_keeps_its_strategy(wanted: list[float], sizes: list[int], strategy: str) -> None:
    nodes = nodes_with(*map(float, sizes))
    chosen = plan(cpus(*wanted), strategy, nodes, lambda node: node.free)
    if chosen is None:
        assert sum(sizes) < sum(wanted) or len(wanted) > 1 or max(sizes) < wanted[0]
        return
    free = {node.node_id: dict(node.free) for node in nodes}
    for bundle, node in zip(cpus(*wanted), chosen, strict=True):
        assert fits(bundle, free[node.node_id])
        take(bundle, free[node.node_id])
    different = len({node.node_id for node in chosen})
    assert strategy != "STRICT_PACK" or different == 1
    assert strategy != "STRICT_SPREAD" or different == len(wanted)
