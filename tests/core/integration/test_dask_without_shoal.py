"""Dask clusters that shoal cannot be brought into: what a driver is told, and what can be shown all the same."""

from __future__ import annotations

import asyncio
import threading

import dask
import pytest
from distributed import Client, LocalCluster
from distributed.security import Security

import shoal
from shoal.errors import ConnectError, ShoalMissingError
from shoal.launch.dask_view import DaskWatch
from shoal.launch.probe import snapshot_at

TIMEOUT = 30.0
#: What holds a Dask task; its worker is in this process.
GATE = threading.Event()


def wait_at_the_gate():
    return GATE.wait(TIMEOUT)


@pytest.fixture(scope="module")
def strict():
    """A Dask cluster whose administrator lets nobody add plugins to the scheduler."""
    with (
        dask.config.set({"distributed.scheduler.blocked-handlers": ["register_scheduler_plugin"]}),
        LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0"
        ) as cluster,
    ):
        yield cluster


def test_a_driver_is_told_what_is_missing_and_what_to_do(strict):
    with pytest.warns(UserWarning, match="uses no TLS"), pytest.raises(ShoalMissingError) as caught:
        shoal.init(strict.scheduler_address)
    said = str(caught.value)
    assert "takes no plugins" in said and "blocked-handlers" in said and "by address" in said
    assert caught.value.address == strict.scheduler_address
    assert isinstance(caught.value, ConnectError) and not shoal.is_initialized()


def test_its_workers_and_tasks_are_shown_and_its_end_is_told(strict):
    shown, ends = [], []

    async def until(true):
        async with asyncio.timeout(TIMEOUT):
            while not (shown and true(shown[-1])):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return shown[-1]

    async def main():
        with pytest.raises(ShoalMissingError):
            await snapshot_at(strict.scheduler_address, Security(), TIMEOUT)
        watch = DaskWatch(strict.scheduler_address, Security(), lambda seen, _: shown.append(seen), ends.append)
        await watch.open(TIMEOUT)
        assert shown[0]["without_shoal"] and [node["cpus"] for node in shown[0]["nodes"]] == [2.0]
        with Client(strict, set_as_default=False) as client:
            future = client.submit(wait_at_the_gate, pure=False)
            found = await until(lambda seen: seen["tasks"]["running"] == 1)
            assert found["nodes"][0]["cpus_used"] == 1.0 and found["nodes"][0]["memory_used"] > 0
            GATE.set()
            await asyncio.to_thread(future.result, TIMEOUT)
            await until(lambda seen: seen["tasks"]["running"] == 0 and len(seen["history"]) > 1)
        await asyncio.to_thread(strict.close)
        async with asyncio.timeout(TIMEOUT):
            while not ends:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await watch.close()
        with pytest.raises(ConnectError, match=r"No answer from|did not answer"):
            await DaskWatch(strict.scheduler_address, Security(), lambda *_: None, ends.append).open(1.0)

    asyncio.run(main())
    assert len(ends) == 1 and "ended" in ends[0]
