"""Large variables go to the object store once; small ones travel with the cell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from IPython.core.error import UsageError

import shoal
from shoal_kernel.packing import Package, pack, unpack
from shoal_kernel.remote_value import RemoteValue
from shoal_kernel.shipping import KEPT_FOR, MAX_PIECES, Shipment, Shipper, describe, nbytes_by_name
from shoal_kernel.shipping import LARGE as LIMIT

LARGE = 2_000_000


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    with shoal.init(inline=True):
        yield


def ship(shipper: Shipper, **variables: Any) -> Shipment:
    return shipper.ship(pack(variables, variables, variables, apart=LIMIT), 1e12)


def names_stored(shipper: Shipper, **variables: Any) -> list[str]:
    """Return which variables are stored anew when a cell reads all of these, which arrive whole."""
    shipment = ship(shipper, **variables)
    assert sorted(arrive(shipment)) == sorted(variables)
    return [name for name, _ in shipment.news]


def arrive(shipment: Shipment) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    assert not unpack(shipment.package.filled(shoal.get(list(shipment.stored))), namespace)
    return namespace


def test_what_is_small_is_not_stored() -> None:
    shipment = ship(Shipper(), x=1, a=np.ones(10))
    assert (shipment.stored, shipment.news) == ((), ())
    assert arrive(shipment)["x"] == 1


def test_what_is_large_is_stored_once_as_long_as_it_is_the_same() -> None:
    shipper, array = Shipper(), np.arange(LARGE, dtype=np.uint8)
    first = ship(shipper, x=1, array=array)
    assert [(name, nbytes >= LARGE) for name, nbytes in first.news] == [("array", True)]
    second = ship(shipper, x=2, array=array)
    assert second.news == ()
    assert second.stored == first.stored
    assert arrive(second)["x"] == 2
    array[5] = 0
    third = ship(shipper, array=array)
    assert third.news
    assert third.stored != first.stored
    assert (arrive(first)["array"][5], arrive(third)["array"][5]) == (5, 0)


def test_what_arrives_can_be_written_to_and_is_nobody_elses() -> None:
    shipper, array = Shipper(), np.zeros(LARGE, np.uint8)
    one = arrive(ship(shipper, array=array))["array"]
    one[:] = 1
    assert arrive(ship(shipper, array=array))["array"].sum() == 0


def test_objects_that_variables_share_stay_shared() -> None:
    array = np.zeros(LARGE, np.uint8)
    arrived = arrive(ship(Shipper(), a=array, box={"same": array}))
    arrived["a"][0] = 1
    assert arrived["box"]["same"][0] == 1


@pytest.mark.parametrize("value", ["x" * LARGE, ["y" * 1000 + str(n) for n in range(LARGE // 1000)], b"z" * LARGE])
def test_large_text_and_lists_too(value: Any) -> None:
    shipper = Shipper()
    assert ship(shipper, value=value).news
    again = ship(shipper, value=value)
    assert again.stored
    assert not again.news
    assert arrive(again)["value"] == value


def test_only_the_large_list_that_has_changed_is_stored_anew() -> None:
    shipper = Shipper()
    table: dict[str, Any] = {f"key {n}": [n, "same"] for n in range(100_000)}
    words, text, small = [f"word {n}" for n in range(200_000)], "x" * LARGE, {"lr": 0.1}
    named = {"table": table, "words": words, "text": text, "small": small}
    assert sorted(names_stored(shipper, **named)) == ["table", "text", "words"]
    assert names_stored(shipper, **named) == []
    small["lr"] = 0.2
    assert names_stored(shipper, **named) == []
    table["key 5"].append("more")
    assert names_stored(shipper, **named) == ["table"]
    assert names_stored(shipper, first=[1, 2], **{**named, "text": text + "y"}) == ["text"]
    assert arrive(ship(shipper, **named))["table"]["key 5"] == [5, "same", "more"]


def test_only_the_array_that_has_changed_is_named() -> None:
    shipper, one, two = Shipper(), np.zeros(LARGE, np.uint8), np.ones(LARGE, np.uint8)
    assert names_stored(shipper, one=one, two=two) == ["one", "two"]
    one[0] = 5
    assert names_stored(shipper, one=one, two=two) == ["one"]


def test_what_large_lists_share_stays_shared() -> None:
    shared = [0]
    one, two = [shared, *range(400_000)], [*range(400_000, 800_000), shared]
    arrived = arrive(ship(Shipper(), one=one, two=two, alone=list(range(400_000)), box={"same": shared}))
    assert arrived["one"][0] is arrived["two"][-1] is arrived["box"]["same"]
    assert arrived["alone"] == list(range(400_000))


class Thing:
    """One that is found by its name."""

    def __init__(self, number: int) -> None:
        self.number, self.kind = number, np.dtype(np.float64)


def test_classes_that_large_lists_have_in_common_are_nothing_they_share() -> None:
    shipper = Shipper()
    one, two = [Thing(n) for n in range(80_000)], [Thing(-n) for n in range(80_000)]
    assert names_stored(shipper, one=one, two=two) == ["one", "two"]
    two[5].number = 7
    assert names_stored(shipper, one=one, two=two) == ["two"]


def test_functions_in_a_large_list_see_where_they_arrive() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__", "k": 5}
    exec("def f(): return k", namespace)
    variables = {"many": [namespace["f"], *range(400_000)]}
    shipment = Shipper().ship(pack(variables, {**namespace, **variables}, namespace, apart=LIMIT), 1e12)
    assert shipment.package.apart and "k" in shipment.package.names
    assert arrive(shipment)["many"][0]() == 5


def test_refs_and_kept_values_in_a_large_list() -> None:
    shipper = Shipper()
    many = [shoal.put(1), RemoteValue(shoal.put([2]), "In[3]"), *range(400_000)]
    assert names_stored(shipper, many=many, small=1) == ["many"]
    assert names_stored(shipper, many=many, small=2) == []
    arrived = arrive(ship(shipper, many=many))["many"]
    assert (shoal.get(arrived[0]), arrived[1]) == (1, [2])


def test_only_the_tensor_that_has_changed_is_stored_anew() -> None:
    shipper = Shipper()
    frozen, head, tail = torch.ones(LARGE), torch.zeros(LARGE), torch.zeros(10)
    model = {"frozen": frozen, "part": frozen[5:], "head": head, "tail": tail}
    first = ship(shipper, model=model)
    head[0] = 1
    tail[0] = 2
    second = ship(shipper, model=model)
    assert len(first.stored) == len(second.stored) == 2
    assert len(set(first.stored) & set(second.stored)) == 1
    arrived = arrive(second)["model"]
    assert (arrived["head"][0], arrived["tail"][0]) == (1, 2)
    arrived["frozen"][5] = 9
    assert arrived["part"][0] == 9


def test_many_small_tensors_are_stored_together_and_many_large_ones_in_some_pieces() -> None:
    small = {n: torch.full((LARGE // 40,), n) for n in range(30)}
    assert len(ship(Shipper(), small=small).stored) == 1
    large = {n: torch.full((LIMIT,), n % 100, dtype=torch.uint8) for n in range(MAX_PIECES + 10)}
    shipment = ship(Shipper(), large=large)
    assert len(shipment.stored) <= MAX_PIECES
    assert [int(tensor[0]) for tensor in arrive(shipment)["large"].values()] == [n % 100 for n in large]


def test_tensors_keep_what_they_share_and_are_stored_once() -> None:
    shipper = Shipper()
    model = torch.nn.Sequential(torch.nn.Linear(1_000, 1_000), torch.nn.Linear(1_000, 1_000))
    model[1].weight = model[0].weight
    assert ship(shipper, model=model, small=1).news
    again = ship(shipper, model=model, small=2)
    assert again.stored
    assert not again.news
    arrived = arrive(again)["model"]
    assert torch.equal(arrived[0].weight, model[0].weight)
    assert arrived[1].weight.data_ptr() == arrived[0].weight.data_ptr()
    with torch.no_grad():
        model[0].weight[0, 0] = 7
    changed = ship(shipper, model=model)
    assert changed.news
    assert arrive(changed)["model"][0].weight[0, 0] == 7


def test_a_gradient_stays_here_and_makes_no_difference() -> None:
    shipper, weight = Shipper(), torch.nn.Parameter(torch.ones(LARGE // 4))
    assert names_stored(shipper, weight=weight) == ["weight"]
    weight.sum().backward()
    again = ship(shipper, weight=weight)
    assert not again.news
    assert arrive(again)["weight"].grad is None


def test_a_tensor_with_attributes_is_stored_anew() -> None:
    shipper, weight, other = Shipper(), torch.ones(LARGE), torch.ones(LARGE)
    weight.note = [1]  # type: ignore[attr-defined]
    names_stored(shipper, weight=weight, other=other)
    assert names_stored(shipper, weight=weight, other=other) == ["weight", "other"]
    assert arrive(ship(shipper, weight=weight))["weight"].note == [1]


def test_values_that_stayed_in_the_cluster_arrive_as_themselves() -> None:
    shipment = ship(Shipper(), kept=RemoteValue(shoal.put([1, 2]), "In[3]"), ref=shoal.put(5))
    arrived = arrive(shipment)
    assert arrived["kept"] == [1, 2]
    assert isinstance(arrived["ref"], shoal.ObjectRef)


def test_what_no_cell_reads_any_more_is_let_go() -> None:
    shipper = Shipper()
    ship(shipper, array=np.ones(LARGE))
    for _ in range(KEPT_FOR):
        ship(shipper, x=1)
    assert len(shipper.refs()) == 1
    ship(shipper, x=1)
    assert shipper.refs() == []


def test_too_much_is_refused_with_the_sizes() -> None:
    variables = {"big": np.ones(1_000_000), "medium": np.ones(100_000), "x": 1}
    with pytest.raises(UsageError) as raised:
        Shipper().ship(pack(variables, variables, variables), 1e6)
    assert re.search(r"reads 8\.4 MiB .* allows \(977 KiB\)\. Nothing was sent", str(raised.value).replace("\n", " "))
    assert str(raised.value).index("big") < str(raised.value).index("medium")


def test_what_each_part_has_of_its_own_counts_and_is_packed_no_further_than_that() -> None:
    packed: list[int] = []

    def own() -> Iterator[Package | None]:
        for number in range(1_000):
            packed.append(number)
            variables = {"x": "x" * 100_000}
            yield pack(variables, variables, variables)

    variables = {"y": "y" * 200_000}
    with pytest.raises(UsageError) as raised:
        Shipper().ship(pack(variables, variables, variables), 550_000, own())
    said = str(raised.value).replace("\n", " ")
    assert re.search(r"reads at least 586 KiB .* allows \(537 KiB\)\. Nothing was sent", said)
    assert re.search(r"391 KiB +x, of all runs +195 KiB +y", said)
    assert len(packed) == 4


def test_sizes_by_name() -> None:
    variables = {"x": 1, "array": np.ones(1_000), "tensor": torch.ones(500), "again": None}
    sizes = nbytes_by_name(pack(variables, variables, variables))
    assert list(sizes) == list(variables)
    assert 8_000 <= sizes["array"] < 8_500
    assert 2_000 <= sizes["tensor"] < 2_300
    assert describe((("array", 8_000_000),)).startswith("shoal: `array` (7.6 MiB) went to the object store")
