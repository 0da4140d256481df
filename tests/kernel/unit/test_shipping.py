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
from shoal_kernel.packing import pack, unpack
from shoal_kernel.remote_value import RemoteValue
from shoal_kernel.shipping import KEPT_FOR, Shipment, Shipper, describe, nbytes_by_name

LARGE = 2_000_000


@pytest.fixture(scope="module", autouse=True)
def _session() -> Iterator[None]:
    with shoal.init(inline=True):
        yield


def ship(shipper: Shipper, **variables: Any) -> Shipment:
    return shipper.ship(pack(variables, variables, variables), 1e12)


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


def test_a_tensor_with_a_gradient_is_stored_anew() -> None:
    shipper, weight = Shipper(), torch.ones(LARGE // 4, requires_grad=True)
    weight.sum().backward()
    ship(shipper, weight=weight)
    assert ship(shipper, weight=weight).news, "the gradient may have changed"


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


def test_sizes_by_name() -> None:
    variables = {"x": 1, "array": np.ones(1_000), "tensor": torch.ones(500), "again": None}
    sizes = nbytes_by_name(pack(variables, variables, variables))
    assert list(sizes) == list(variables)
    assert 8_000 <= sizes["array"] < 8_500
    assert 2_000 <= sizes["tensor"] < 2_300
    assert describe((("array", 8_000_000),)).startswith("shoal: `array` (7.6 MiB) went to the object store")
