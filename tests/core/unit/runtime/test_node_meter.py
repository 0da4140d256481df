"""What a node reports of itself once a second, accelerators among it (with a stand-in for their library)."""

from __future__ import annotations

import asyncio
import types
from pathlib import Path
from typing import Any

import pytest

from shoal.runtime.gpu_meter import GpuMeter
from shoal.runtime.node_meter import NodeMeter
from shoal.runtime.store import Limits, Store


class Nvml:
    """A stand-in for `pynvml` with two devices, of which one can fail."""

    def __init__(self) -> None:
        self.opened = 0
        self.broken: set[str] = set()

    def nvmlInit(self) -> None:
        self.opened += 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return ("GPU-aa", "GPU-bb")[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:
        return uuid

    def nvmlDeviceGetName(self, handle: str) -> Any:
        return b"Stand-in" if handle == "GPU-aa" else "Stand-in 2"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        if handle in self.broken:
            raise RuntimeError("fallen off the bus")
        return types.SimpleNamespace(total=16 << 30, used=4 << 30, free=12 << 30)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        return types.SimpleNamespace(gpu=75 if handle == "GPU-aa" else 0, memory=3)


def test_gpus_are_read_by_number_and_by_id() -> None:
    library = Nvml()
    meter = GpuMeter(["1", "GPU-aa"], lambda: library)
    assert library.opened == 0, "not before it is needed"
    for _ in range(2):
        assert meter.look() == (
            ("Stand-in 2", 0.0, 16 << 30, 4 << 30),
            ("Stand-in", 0.75, 16 << 30, 4 << 30),
        )
    assert library.opened == 1
    library.broken = {"GPU-bb"}
    assert [row[0] for row in meter.look()] == ["Stand-in"]
    library.broken = set()
    assert len(meter.look()) == 2, "it is back"


def test_without_devices_nothing_is_loaded() -> None:
    assert GpuMeter([], lambda: pytest.fail("loaded")).look() == ()


@pytest.mark.parametrize("error", [ImportError("no pynvml"), RuntimeError("no driver"), OSError("no library")])
def test_without_library_or_driver_there_are_no_rows(error: Exception) -> None:
    loads = []

    def load() -> Any:
        loads.append(1)
        raise error

    meter = GpuMeter(["0"], load)
    assert meter.look() == meter.look() == ()
    assert len(loads) == 1, "tried once"


def test_a_node_says_what_its_store_and_network_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_STORE_DIR", str(tmp_path))
    monkeypatch.setenv("SHOAL_SPILL_DIR", str(tmp_path))
    store = Store.create("node-1", "tcp://x", Limits(10 << 20, 20 << 20))
    received = 1_000
    meter = NodeMeter(store, lambda: received, lambda: (), GpuMeter([]))
    store.write("obj-1", [b"x" * 1_000_000])

    async def look(calls: dict[str, int]) -> Any:
        return await meter.look(3, calls)

    received += 10_000_000
    usage = asyncio.run(look({}))
    assert usage.store == 10 << 20 and 1_000_000 <= usage.store_used < 2_000_000 and usage.spilled == 0
    assert usage.received_per_second > 1_000_000 and usage.executors == 3 and usage.gpus == ()
    assert 0 <= usage.cpu_ratio <= 1 and 0 < usage.memory_used < usage.memory
    assert asyncio.run(look({})).received_per_second == 0
    store.remove()


def test_calls_are_told_again_and_again_but_nothing_only_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_STORE_DIR", str(tmp_path))
    store = Store.create("node-1", "tcp://x", Limits(10 << 20, 0))
    meter = NodeMeter(store, lambda: 0, lambda: (), GpuMeter([]))

    async def told(calls: dict[str, int]) -> tuple[tuple[str, int], ...]:
        return (await meter.look(1, calls)).pending_calls

    async def scene() -> None:
        assert await told({"a": 0, "b": 3}) == (("b", 3),)
        assert await told({"a": 0, "b": 3}) == (("b", 3),), "another node may have said something else of it"
        assert await told({"a": 1, "b": 0}) == (("a", 1), ("b", 0))
        assert await told({"a": 1, "b": 0}) == (("a", 1),)
        assert await told({}) == (("a", 0),), "it is gone"
        assert await told({}) == ()

    asyncio.run(scene())
    store.remove()
