"""What a page is told over its websocket, from real clusters."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from pathlib import Path

import pytest
from pages import TIMEOUT, open_page
from tornado.httpclient import HTTPClientError

from shoal.launch import registry
from shoal_labextension.live import Page
from shoal_labextension.services import Services
from shoal_labextension.watches import LINGER

WORKING = (
    "import shoal, time\n"
    "shoal.init(name='perch', num_cpus=2)\n"
    "@shoal.remote\n"
    "def nap(seconds):\n"
    "    time.sleep(seconds)\n"
    "shoal.get([nap.options(cell='In[1]#a').remote(0.01) for _ in range(20)])\n"
    "stuck = nap.options(cell='In[2]#b').remote(600)\n"
)


@pytest.fixture
def services(jp_serverapp) -> Services:
    [point] = jp_serverapp.extension_manager.extension_apps["shoal_labextension"]
    return point.services


@pytest.fixture
def perch(start_driver):
    start_driver(WORKING, "shoal.shutdown()")
    [connection] = registry.list_clusters()
    return connection


async def test_a_page_alone_is_told_of_clusters_as_they_come_and_go(jp_ws_fetch, start_driver):
    page = await open_page(jp_ws_fetch)
    assert (await page.kind("clusters"))["clusters"] == []
    script = "import shoal\nshoal.init(name='late', num_cpus=1)"
    driver = await asyncio.to_thread(start_driver, script, "shoal.shutdown()")
    [row] = await page.listed(lambda rows: rows and rows[0]["state"] == "running")
    assert (row["name"], row["kind"], row["message"]) == ("late", "embedded", "")
    driver.kill()
    await page.listed(lambda rows: not rows)
    page.socket.close()


async def test_a_snapshot_then_what_changes(jp_ws_fetch, perch):
    page = await open_page(jp_ws_fetch)
    began = time.monotonic()
    page.send(type="watch", clusters=[perch.id], interval=5, grid=False)
    snapshot = (await page.kind("snapshot"))["snapshot"]
    assert time.monotonic() - began < 4, "the first snapshot waited for the interval"
    page.send(type="watch", clusters=[perch.id], interval=0.25, grid=False)
    assert snapshot["version"] == 2 and snapshot["cluster"]["name"] == "perch"
    await page.seen(perch.id, lambda shown: [cell["finished"] for cell in shown["cells"]] == [20, 0])
    before = len(page.messages)
    for _ in range(3):
        await page.kind("delta")
    # Nothing but what has changed, as often as was asked for and no more.
    assert all("cells" not in message["delta"] for message in page.messages[before:] if message["type"] == "delta")
    page.socket.close()


async def test_the_grid_shows_who_did_what(jp_ws_fetch, perch):
    page = await open_page(jp_ws_fetch)
    page.send(type="watch", clusters=[perch.id], interval=0.25, grid=True)
    grid = await page.until(lambda message: message["type"] == "grid" and message["executors"])
    assert grid["cluster"] == perch.id and grid["step"] == 1.0
    await page.seen(perch.id, lambda shown: True)
    nodes = {node["id"] for node in page.snapshots[perch.id]["nodes"]}
    for row in grid["executors"]:
        assert row["id"].startswith("exec-") and row["node"] in nodes and len(row["slices"]) == 60
        assert {name for name, busy in row["slices"] if name is not None and 0 < busy <= 1} == {"nap"}
    # The nap that has not ended is there as well, up to now.
    grid = await page.until(
        lambda message: (
            message["type"] == "grid" and any(row["slices"][-2:-1] == [["nap", 1.0]] for row in message["executors"])
        )
    )
    page.send(type="watch", clusters=[perch.id], grid=False)
    await page.until(lambda message: message["type"] == "delta")
    page.socket.close()


async def test_a_paused_page_gets_nothing_and_goes_on(jp_ws_fetch, perch, services):
    page = await open_page(jp_ws_fetch)
    page.send(type="watch", clusters=[perch.id], interval=0.25)
    await page.kind("snapshot")
    page.send(type="pause")
    async with asyncio.timeout(TIMEOUT):
        while services.find_watch(perch.id).num_users:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    # What was under way has arrived; after that, nothing does.
    with contextlib.suppress(TimeoutError):
        while True:
            await asyncio.wait_for(page.socket.read_message(), 0.5)
    page.socket.close()
    page = await open_page(jp_ws_fetch)
    page.send(type="pause")
    page.send(type="watch", clusters=[perch.id])
    page.send(type="resume")
    await page.kind("snapshot")
    page.socket.close()


async def test_pages_share_one_line_that_closes_after_the_last(jp_ws_fetch, perch, services):
    pages = await asyncio.gather(*(open_page(jp_ws_fetch) for _ in range(20)))
    for page in pages:
        page.send(type="watch", clusters=[perch.id], interval=0.25, grid=True)
    await asyncio.gather(*(page.kind("snapshot") for page in pages))
    await asyncio.gather(*(page.kind("delta") for page in pages))
    await asyncio.gather(*(page.kind("grid") for page in pages))
    assert len(services.open_watches) == 1 and services.find_watch(perch.id).num_users == 20
    for page in pages:
        page.socket.close()
    async with asyncio.timeout(LINGER + TIMEOUT):
        while len(services.open_watches) or services.pages:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_a_slow_page_skips_what_was_in_between(jp_serverapp, perch, services):
    """Its socket takes one message, and then none for a while."""
    gate, told = asyncio.Event(), []

    async def send(text: str) -> None:
        told.append(json.loads(text))
        if told[-1]["type"] == "snapshot":
            await gate.wait()

    page = Page(services, send)
    assert page.order(json.dumps({"type": "watch", "clusters": [perch.id], "interval": 0.25})) == ""
    serving = asyncio.create_task(page.run())
    try:
        async with asyncio.timeout(TIMEOUT):
            while not told or told[-1]["type"] != "snapshot":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            watch = services.find_watch(perch.id)
            version = watch.version
            while watch.version < version + 8:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            gate.set()
            before = len(told)
            while len(told) == before:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert told[before]["type"] == "delta"
        assert told[before]["delta"]["time"] >= watch.snapshot["time"] - 0.6, "it was told of what is long past"
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def test_the_end_of_a_cluster_is_told(jp_ws_fetch, start_driver):
    driver = await asyncio.to_thread(start_driver, "import shoal\nshoal.init(name='brief', num_cpus=1)")
    [connection] = registry.list_clusters()
    page = await open_page(jp_ws_fetch)
    page.send(type="watch", clusters=[connection.id])
    await page.kind("snapshot")
    driver.kill()
    ended = await page.kind("ended")
    assert ended["cluster"] == connection.id and ended["message"]
    page.socket.close()


async def test_a_cluster_that_is_not_there(jp_ws_fetch):
    page = await open_page(jp_ws_fetch)
    page.send(type="watch", clusters=["cluster-none", "..", "cluster-none"])
    ended = [(await page.kind("ended"))["cluster"] for _ in range(2)]
    assert ended == ["cluster-none", ".."]
    page.socket.close()


class Relay:
    """A port that passes bytes on to another, until it is cut."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._writers: set[asyncio.StreamWriter] = set()
        self.is_cut = False

    async def open(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self.is_cut:
            return writer.close()
        there, back = await asyncio.open_connection(*self._target)
        self._writers.add(back)
        await asyncio.gather(_pass(reader, back), _pass(there, writer))

    def cut(self) -> None:
        self.is_cut = True
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def close(self) -> None:
        self.cut()
        self._server.close()
        await self._server.wait_closed()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_a_line_that_breaks_is_opened_again(jp_ws_fetch, perch, register):
    host, port = perch.address.removeprefix("tls://").split(":")
    relay = Relay((host, int(port)))
    address = f"tls://127.0.0.1:{await relay.open()}"
    tls = {role: Path(path).read_text() for role, path in perch.tls_files().items()}  # noqa: ASYNC240
    register("cluster-relayed", address, name="relayed", tls_texts=tls)
    page = await open_page(jp_ws_fetch)
    page.send(type="watch", clusters=["cluster-relayed"], interval=0.25)
    await page.kind("snapshot")
    relay.cut()
    rows = await page.listed(lambda rows: any(row["state"] == "unreachable" for row in rows))
    assert next(row for row in rows if row["id"] == "cluster-relayed")["message"]
    relay.is_cut = False
    await page.kind("snapshot")
    await page.listed(lambda rows: all(row["state"] == "running" for row in rows))
    page.socket.close()
    await relay.close()


async def test_whatever_is_no_cluster_is_words(jp_ws_fetch, register, silent_listener):
    register("cluster-silent", f"tcp://127.0.0.1:{silent_listener.getsockname()[1]}")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    register("cluster-gone", f"tcp://127.0.0.1:{port}")
    page = await open_page(jp_ws_fetch)
    page.send(type="watch", clusters=["cluster-silent", "cluster-gone"])
    rows = await page.listed(lambda rows: len(rows) == 2 and all(row["state"] == "unreachable" for row in rows))
    assert all(row["message"] for row in rows)
    page.socket.close()


async def test_a_dask_cluster_without_shoal_shows_its_workers_and_says_so(
    jp_ws_fetch, jp_fetch, register, start_driver, tmp_path
):
    script = (
        "import pathlib\n"
        "from distributed import LocalCluster\n"
        "cluster = LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address='127.0.0.1:0',\n"
        "                       protocol='tcp')\n"
        f"pathlib.Path({str(tmp_path / 'address')!r}).write_text(cluster.scheduler_address)"
    )
    await asyncio.to_thread(start_driver, script, "cluster.close()")
    register("cluster-dask", (tmp_path / "address").read_text())
    page = await open_page(jp_ws_fetch)
    page.send(type="watch", clusters=["cluster-dask"])
    [row] = await page.listed(lambda rows: rows and rows[0]["message"])
    assert row["state"] == "running" and row["message"].startswith("Dask only: there is no shoal")
    await page.seen("cluster-dask", lambda shown: len(shown["history"]) > 1)
    shown = page.snapshots["cluster-dask"]
    [node] = shown["nodes"]
    assert shown["without_shoal"] and node["cpus"] == 2 and node["memory"] > 0 and node["memory_used"] > 0
    page.socket.close()
    # A page without a websocket is told the same.
    [listed] = json.loads((await jp_fetch("shoal", "api", "v1", "clusters")).body)["clusters"]
    assert (listed["state"], listed["message"]) == ("running", row["message"]) and listed["snapshot"]["nodes"]
    # What only shoal knows is refused with the same words.
    with pytest.raises(HTTPClientError, match="502") as caught:
        await jp_fetch("shoal", "api", "v1", "clusters", "cluster-dask", "executors")
    assert "Dask only" in json.loads(caught.value.response.body)["message"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"type": "launch"}',
        '{"type": "watch"}',
        '{"type": "watch", "clusters": "a"}',
        '{"type": "watch", "clusters": ["../a"]}',
        '{"type": "watch", "clusters": [], "interval": "fast"}',
        '{"type": "watch", "clusters": [], "interval": 0}',
        json.dumps({"type": "watch", "clusters": [f"c{number}" for number in range(100)]}),
        json.dumps({"type": "pause", "filler": "x" * 100_000}),
    ],
)
async def test_a_page_that_talks_nonsense_is_hung_up_on(jp_ws_fetch, text):
    page = await open_page(jp_ws_fetch)
    await page.socket.write_message(text)
    async with asyncio.timeout(TIMEOUT):
        while await page.read() is not None:
            pass
    assert page.socket.close_code == 1008 and page.socket.close_reason.startswith("Not understood")
    page.socket.close()


async def test_no_secret_is_told(jp_ws_fetch, jp_fetch, perch, caplog):
    """Every answer, every message, and the server's log at its most talkative."""
    caplog.set_level("DEBUG")
    pems = [Path(path).read_text() for path in perch.tls_files().values()]  # noqa: ASYNC240
    secrets = [line for pem in pems for line in pem.splitlines() if len(line) > 20]
    assert len(secrets) > 10
    page = await open_page(jp_ws_fetch)
    page.send(type="watch", clusters=[perch.id], interval=0.25, grid=True)
    await page.kind("snapshot")
    await page.kind("grid")
    owner = page.snapshots[perch.id]["owners"][0]["id"]
    texts = [json.dumps(page.messages)]
    names = ("pending", "failures", "memory", "executors", "timeline", "metrics", "logs", "stack", "why")
    query = {"owner": owner, "object": "x", "node": "n", "source": "s", "executor": "e"}
    for path in ("clusters", "specs", *(f"clusters/{perch.id}/{name}" for name in names)):
        try:
            response = await jp_fetch("shoal", "api", "v1", *path.split("/"), params=query, request_timeout=60)
            texts.append(response.body.decode())
        except HTTPClientError as error:
            texts.append(error.response.body.decode())
    texts.append(caplog.text)
    for text in texts:
        assert not any(secret in text for secret in secrets)
        assert "PRIVATE KEY" not in text
    page.socket.close()
