"""Watching a cluster from outside: the snapshot as it changes, records, and questions to anybody in it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import shoal
from shoal.errors import ConnectError, ShoalError
from shoal.launch import registry
from shoal.launch.dask_cluster import security_from
from shoal.launch.watching import ClusterWatch
from shoal.observe.records import Batch, records_of

TIMEOUT = 30.0


@pytest.fixture(scope="module")
def cluster():
    with shoal.init(name="lookout", num_cpus=2) as joined:
        yield joined


class Watched:
    """A watch and what it has seen."""

    def __init__(self, connection: registry.Connection, **options: Any) -> None:
        self.deltas: list[dict[str, Any] | None] = []
        self.batches: list[Batch] = []
        self.ends: list[str] = []
        security = security_from(connection.tls_files())
        options = {"interval": 0.1, "on_records": self.batches.append, **options}
        self.watch = ClusterWatch(
            connection.address, security, lambda _, delta: self.deltas.append(delta), self.ends.append, **options
        )

    async def until(self, true: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        async with asyncio.timeout(TIMEOUT):
            while not true(self.watch.snapshot):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return self.watch.snapshot


def watch(scene: Callable[[Watched], Awaitable[None]], name: str = "lookout", **options: Any) -> None:
    (connection,) = [found for found in registry.list_clusters() if found.name == name]

    async def main() -> None:
        watched = Watched(connection, **options)
        await watched.watch.open(TIMEOUT)
        try:
            await scene(watched)
        finally:
            await watched.watch.close()

    asyncio.run(main())


def test_what_changes_arrives_and_records_come_along(cluster):
    @shoal.remote
    def add(x):
        return x + 1

    @shoal.remote(max_retries=0)
    def fail():
        raise ValueError("what was wrong\nand more")

    async def scene(watched: Watched) -> None:
        assert watched.watch.snapshot["cluster"]["name"] == "lookout"
        before = watched.watch.snapshot["records"]
        refs = [add.options(cell="In[7]#ab").remote(number) for number in range(50)]
        failing = fail.options(cell="In[7]#ab").remote()
        shown = await watched.until(lambda snapshot: snapshot["records"] == before + 51)
        (cell,) = [cell for cell in shown["cells"] if cell["id"] == "In[7]#ab"]
        assert (cell["name"], cell["finished"], cell["failed"], cell["owner"]) == (
            "In[7]", 50, 1, shown["owners"][0]["id"],
        )  # fmt: skip
        # The time always moves on; tables that have not changed are not sent.
        assert any(delta is not None and set(delta) == {"time"} for delta in watched.deltas)
        records = [record for record in records_of(watched.batches) if record.cell == "In[7]#ab"]
        assert [record.outcome for record in records].count("finished") == 50
        (failed,) = [record for record in records if record.outcome == "failed"]
        assert failed.error == "ValueError: what was wrong" and failed.function == "fail"
        ended = [record for record in records if record.executor]
        assert len(ended) == 51 and all(r.submitted <= r.started <= r.ended for r in ended)
        del refs, failing

    watch(scene)


def test_who_comes_later_can_have_the_records(cluster):
    shoal.get(shoal.remote(lambda: os.getpid()).options(name="early").remote())

    async def scene(watched: Watched) -> None:
        await watched.until(lambda snapshot: any(f["name"] == "early" for f in snapshot["functions"]))
        batches = [Batch(*row) for row in await watched.watch.ask("records", 1000)]
        assert [record.function for record in records_of(batches)].count("early") == 1

    watch(scene)


def test_questions_reach_owners_and_a_cell_can_be_cancelled(cluster, tmp_path):
    os.mkfifo(tmp_path / "gate")

    @shoal.remote
    def stuck(path):
        path.open().read()

    refs = [stuck.options(cell="In[9]#cd").remote(tmp_path / "gate") for _ in range(2)]

    async def scene(watched: Watched) -> None:
        shown = await watched.until(
            lambda snapshot: [cell["running"] for cell in snapshot["cells"] if cell["id"] == "In[9]#cd"] == [2]
        )
        driver = shown["owners"][0]["id"]
        rows = await watched.watch.ask("pending", 10, target=driver)
        assert {row[3:6] for row in rows} == {("stuck", "In[9]#cd", "running")}
        state = (await watched.watch.ask("explain", "object", rows[0][1], target=driver))[1]
        assert state == "runs"
        assert await watched.watch.ask("cancel_cell", "In[9]#cd", False, target=driver) == 2
        await watched.until(
            lambda snapshot: [cell["cancelled"] for cell in snapshot["cells"] if cell["id"] == "In[9]#cd"] == [2]
        )

    watch(scene)
    for ref in refs:
        with pytest.raises(shoal.errors.TaskCancelledError):
            shoal.get(ref, timeout=TIMEOUT)


def test_what_waits_for_a_place_says_why(cluster):
    @shoal.remote(num_cpus=2)
    class Greedy:
        def ping(self):
            return 1

    first = Greedy.remote()
    shoal.get(first.ping.remote(), timeout=TIMEOUT)
    second = Greedy.remote()

    async def scene(watched: Watched) -> None:
        shown = await watched.until(lambda snapshot: snapshot["waiting"])
        (row,) = shown["waiting"]
        assert row["what"] == "actor `Greedy`" and "0 of 2 num_cpus free" in row["reason"]
        alive = [actor["id"] for actor in shown["actors"] if actor["state"] == "alive"]
        await watched.watch.ask("kill_actor", alive[0], "the panel ended it", False)
        await watched.until(lambda snapshot: not snapshot["waiting"])

    watch(scene)
    assert shoal.get(second.ping.remote(), timeout=TIMEOUT) == 1
    shoal.kill(second)


def test_questions_to_nobody_and_about_nothing(cluster):
    async def scene(watched: Watched) -> None:
        with pytest.raises(ShoalError, match="driver-gone` is not in this cluster"):
            await watched.watch.ask("pending", 10, target="driver-gone")
        driver = watched.watch.snapshot["owners"][0]["id"]
        with pytest.raises(ShoalError, match="knows nothing of `weather`"):
            await watched.watch.ask("weather", target=driver)
        with pytest.raises(ShoalError):
            await watched.watch.ask("pending", target=driver)

    watch(scene)


def test_nobody_is_there():
    async def main() -> None:
        watch = ClusterWatch("tcp://127.0.0.1:9", security_from({}), lambda *_: None, lambda _: None)
        with pytest.raises(ConnectError):
            await watch.open(5.0)

    asyncio.run(main())


def test_the_end_of_the_cluster_is_told_once(cluster):
    """The last test here: it ends the cluster of all."""

    async def scene(watched: Watched) -> None:
        await asyncio.to_thread(cluster.shutdown)
        async with asyncio.timeout(TIMEOUT):
            while not watched.ends:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert watched.ends == ["The cluster has ended."]
        with pytest.raises(ConnectError, match="has ended"):
            await watched.watch.ask("records", 1)

    watch(scene)
