"""What the panel is told about clusters, through a real server from real connection files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time

import pytest

from shoal.launch import registry
from shoal_labextension.clusters import FETCH_TIMEOUT

CLUSTERS = ("shoal", "api", "v1", "clusters")


async def fetch_clusters(jp_fetch):
    response = await jp_fetch(*CLUSTERS, request_timeout=30)
    assert response.headers["Content-Type"].startswith("application/json")
    assert response.headers["Cache-Control"] == "no-store"
    return json.loads(response.body)["clusters"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def test_no_cluster(jp_fetch):
    assert await fetch_clusters(jp_fetch) == []


async def test_cluster_that_refuses_is_listed_with_a_message(jp_fetch, register):
    register("cluster-gone", f"tcp://127.0.0.1:{free_port()}", name="minnow")
    [cluster] = await fetch_clusters(jp_fetch)
    assert cluster["id"] == "cluster-gone"
    assert cluster["name"] == "minnow"
    assert cluster["notebook"] == "/notebooks/a.ipynb"
    assert cluster["state"] == "unreachable"
    assert cluster["message"]
    assert cluster["snapshot"] is None


async def test_clusters_that_are_stuck_do_not_hold_up_the_answer(jp_fetch, register):
    with contextlib.ExitStack() as stack:
        for number in range(5):
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            register(f"cluster-{number}", f"tcp://127.0.0.1:{listener.getsockname()[1]}")
        started = time.monotonic()
        clusters = await fetch_clusters(jp_fetch)
        assert time.monotonic() - started < 2 * FETCH_TIMEOUT + 2, "the five looks ran one after the other"
    assert [cluster["state"] for cluster in clusters] == ["unreachable"] * 5


async def test_pages_share_one_look(jp_fetch, register, silent_listener):
    port = silent_listener.getsockname()[1]
    register("cluster-stuck", f"tcp://127.0.0.1:{port}")
    answers = await asyncio.gather(*(fetch_clusters(jp_fetch) for _ in range(8)))
    assert [len(clusters) for clusters in answers] == [1] * 8
    accepted = 0
    while True:
        try:
            silent_listener.accept()[0].close()
        except BlockingIOError:
            break
        accepted += 1
    assert accepted == 1


async def test_damaged_entry_hides_nothing(jp_fetch, register, jp_runtime_dir):
    register("cluster-good", f"tcp://127.0.0.1:{free_port()}")
    damaged = registry.registry_directory() / "cluster-damaged"
    damaged.mkdir()
    (damaged / "connection.json").write_text("{")
    good, bad = await fetch_clusters(jp_fetch)
    assert (good["id"], bad["id"]) == ("cluster-good", "cluster-damaged")
    assert bad["state"] == "unreachable" and "connection file cannot be read" in bad["message"]
    # Nobody can use it, so it can be taken away.
    await jp_fetch(*CLUSTERS, "cluster-damaged", method="DELETE")
    assert [cluster["id"] for cluster in await fetch_clusters(jp_fetch)] == ["cluster-good"]
    assert not damaged.exists()


@pytest.mark.parametrize("address", ["", "nonsense", "ftp://127.0.0.1:1", "tls://127.0.0.1:1", "tcp://"])
async def test_odd_address_is_words_not_a_server_error(jp_fetch, register, address):
    register("cluster-odd", address)
    [cluster] = await fetch_clusters(jp_fetch)
    assert cluster["state"] == "unreachable"
    assert cluster["message"]


async def test_killed_driver_leaves_the_list(jp_fetch, start_driver):
    driver = start_driver(
        "import socket\n"
        "from shoal.launch.registry import Connection, register\n"
        "entry = register(Connection('cluster-dead', '', 'tcp://127.0.0.1:1', 'embedded', 1,"
        " socket.gethostname(), 1.0, '', ''))"
    )
    assert [cluster["id"] for cluster in await fetch_clusters(jp_fetch)] == ["cluster-dead"]
    driver.kill()
    driver.wait(30)
    assert await fetch_clusters(jp_fetch) == []
    assert not (registry.registry_directory() / "cluster-dead").exists()


async def test_live_cluster(jp_fetch, live_cluster):
    # the figures of a node are sent now and then: the first ones come a moment after the cluster is up
    async with asyncio.timeout(20):
        while True:
            [cluster] = await fetch_clusters(jp_fetch)
            assert cluster["state"] == "running", cluster["message"]
            snapshot = cluster["snapshot"]
            if snapshot["tasks"]["finished"] and all(node["memory_used"] for node in snapshot["nodes"]):
                break
            await asyncio.sleep(0.05)
    assert cluster["name"] == "minnow"
    assert cluster["message"] == ""
    assert snapshot["version"] == 2
    assert snapshot["cluster"]["id"] == cluster["id"]
    [node] = snapshot["nodes"]
    assert node["cpus"] == 2
    assert 0 <= node["cpu_ratio"] <= 1
    assert 0 < node["memory_used"] < node["memory"]
    assert snapshot["drivers"] == 1


async def test_answer_holds_no_secret(jp_fetch, live_cluster):
    response = await jp_fetch(*CLUSTERS, request_timeout=30)
    text = response.body.decode()
    assert "PRIVATE KEY" not in text
    assert "CERTIFICATE" not in text


async def test_cluster_killed_meanwhile_is_no_server_error(jp_fetch, live_cluster):
    assert len(await fetch_clusters(jp_fetch)) == 1
    looks = [asyncio.ensure_future(fetch_clusters(jp_fetch)) for _ in range(3)]
    live_cluster.kill()
    for clusters in await asyncio.gather(*looks):
        assert all(cluster["state"] in ("running", "unreachable") for cluster in clusters)
