"""Clusters from the panel, from their start to their end, with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import venv

import psutil
import pytest
from pages import TIMEOUT, open_page
from tornado.httpclient import HTTPClientError

from shoal.launch import registry
from shoal.launch.specs import check_spec, specs_directory
from shoal_labextension.services import Services

API = ("shoal", "api", "v1")
SMALL = {"options": {"num_cpus": 1}}
DASK = {
    "cluster_class": "dask.distributed.LocalCluster",
    "options": {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"},
}
JOIN = (
    "import shoal, sys\n"
    "cluster = shoal.init(sys.argv[1])\n"
    "print(cluster.kind, shoal.get(shoal.remote(lambda: 6 * 7).remote(), timeout=30))\n"
)


@pytest.fixture
def send(jp_fetch):
    """Send a request; returns status and answer."""

    async def fetch(method, *path, body=None, params=None):
        options = {"method": method, "allow_nonstandard_methods": True, "request_timeout": 90, "params": params or {}}
        try:
            response = await jp_fetch(*API, *path, body=None if body is None else json.dumps(body), **options)
        except HTTPClientError as error:
            return error.code, json.loads(error.response.body)
        return response.code, json.loads(response.body)

    return fetch


@pytest.fixture
def begin(send):
    """Start a cluster and wait until it is there; returns its connection. What is left over is ended."""
    begun = []

    async def start(spec, **fields):
        status, answer = await send("POST", "clusters", body={"spec": spec, **fields})
        assert status == 202, answer
        begun.append(answer["start"])
        async with asyncio.timeout(60):
            while True:
                status, start = await send("GET", "starts", answer["start"])
                assert status == 200 and start["state"] != "ended", start
                if start["state"] == "running":
                    break
                await asyncio.sleep(0.05)
        assert "ready: " in start["log"]
        return registry.find(answer["start"])

    yield start
    for cluster_id in begun:
        connection = registry.find(cluster_id)
        if connection is not None:
            os.killpg(connection.pid, 9)


async def joined(name: str) -> list[str]:
    """Join a cluster by name in a process of its own, and have it do something."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", JOIN, name), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode().split()


def processes_of(pid: int) -> list[psutil.Process]:
    """All that has come from a process, itself included."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


async def end(send, connection) -> None:
    """Stop a cluster, and see that nothing of it is left."""
    processes = processes_of(connection.pid)
    assert processes
    status, answer = await send("DELETE", "clusters", connection.id)
    assert (status, answer) == (200, {"message": f"`{connection.name}` has ended."})
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, TIMEOUT)
    assert not alive
    assert registry.find(connection.id) is None


async def test_from_start_to_end(send, begin, jp_ws_fetch):
    page = await open_page(jp_ws_fetch)
    starting = asyncio.create_task(begin({**SMALL, "name": "bream"}))
    rows = await page.listed(lambda rows: rows and rows[0]["state"] == "starting")
    connection = await starting
    [row] = await page.listed(lambda rows: rows and rows[0]["state"] == "running")
    assert row["id"] == rows[0]["id"] == connection.id and row["kind"] == "detached" and row["name"] == "bream"
    page.send(type="watch", clusters=[connection.id], interval=0.25)
    await page.seen(connection.id, lambda shown: len(shown["nodes"]) == 1)
    assert await joined("bream") == ["detached", "42"]
    await page.seen(connection.id, lambda shown: [event["kind"] for event in shown["events"]].count("driver") == 2)
    status, answer = await send("PATCH", "clusters", connection.id, body={"nodes": 2})
    assert (status, answer) == (200, {"nodes": 2, "kept": []})
    await page.seen(connection.id, lambda shown: len(shown["nodes"]) == 2)
    await end(send, connection)
    assert (await page.kind("ended"))["cluster"] == connection.id
    await page.listed(lambda rows: not rows)
    page.socket.close()


async def test_of_a_dask_class(send, begin):
    connection = await begin({**DASK, "name": "dace"})
    assert connection.tls and connection.address.startswith("tls://")
    assert await joined("dace") == ["detached", "42"]
    assert (await send("PATCH", "clusters", connection.id, body={"nodes": 2}))[1] == {"nodes": 2, "kept": []}
    body = {"adaptive": {"minimum": 1, "maximum": 2}}
    assert await send("PATCH", "clusters", connection.id, body=body) == (200, body)
    assert (await send("PATCH", "clusters", connection.id, body={"adaptive": None}))[0] == 200
    await end(send, connection)


async def test_a_dask_cluster_that_runs_is_joined_by_address(send, begin, start_driver, tmp_path):
    script = (
        "import pathlib\n"
        "from distributed import LocalCluster\n"
        "cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address='127.0.0.1:0')\n"
        f"pathlib.Path({str(tmp_path / 'address')!r}).write_text(cluster.scheduler_address)"
    )
    driver = await asyncio.to_thread(start_driver, script, "cluster.close()")
    connection = await begin({"address": (tmp_path / "address").read_text(), "name": "guest"})
    status, answer = await send("PATCH", "clusters", connection.id, body={"nodes": 2})
    assert status == 409 and "started elsewhere" in answer["message"]
    await end(send, connection)
    assert driver.poll() is None, "what was only joined goes on"


async def test_a_dask_cluster_that_takes_no_plugins_is_shown_as_it_is(send, begin, start_driver, tmp_path):
    script = (
        "import dask, pathlib\n"
        "from distributed import LocalCluster\n"
        "dask.config.set({'distributed.scheduler.blocked-handlers': ['register_scheduler_plugin']})\n"
        "cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address='127.0.0.1:0',\n"
        "                       protocol='tcp')\n"
        f"pathlib.Path({str(tmp_path / 'address')!r}).write_text(cluster.scheduler_address)"
    )
    driver = await asyncio.to_thread(start_driver, script, "cluster.close()")
    status, answer = await send(
        "POST", "clusters", body={"spec": {"address": (tmp_path / "address").read_text(), "name": "strict"}}
    )
    assert status == 202, answer
    async with asyncio.timeout(60):
        while (start := (await send("GET", "starts", answer["start"]))[1])["state"] == "starting":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert start["state"] == "running" and "takes no plugins" in start["log"], start
    [row] = (await send("GET", "clusters"))[1]["clusters"]
    assert row["state"] == "running" and row["message"].startswith("Dask only")
    assert [node["cpus"] for node in row["snapshot"]["nodes"]] == [1.0]
    await end(send, registry.find(answer["start"]))
    assert driver.poll() is None, "what was only looked at goes on"


async def test_more_nodes_for_more_work(send, begin, start_driver, jp_ws_fetch):
    connection = await begin({**SMALL, "name": "shad", "adaptive": {"minimum": 1, "maximum": 3}})
    script = (
        "import shoal, time\n"
        "shoal.init('shad')\n"
        "refs = [shoal.remote(lambda: time.sleep(600)).remote() for _ in range(9)]"
    )
    await asyncio.to_thread(start_driver, script, "import os; os._exit(0)")
    page = await open_page(jp_ws_fetch)
    page.send(type="watch", clusters=[connection.id], interval=0.25)
    await page.seen(connection.id, lambda shown: len(shown["nodes"]) == 3, 60)
    page.socket.close()
    await end(send, connection)


async def test_it_may_run_in_another_environment(send, begin, tmp_path):
    """A Python of another folder, with packages of its own: here, with a way to those of this one."""
    await asyncio.to_thread(venv.create, tmp_path / "other", symlinks=True)
    [packages] = (tmp_path / "other" / "lib").glob("python3.*/site-packages")
    (packages / "these.pth").write_text("\n".join(entry for entry in sys.path if entry))
    python = str(tmp_path / "other" / "bin" / "python")
    connection = await begin({**SMALL, "python": python, "name": "abroad"})
    assert connection.python == python != sys.executable
    assert await joined("abroad") == ["detached", "42"]
    await end(send, connection)


async def test_one_that_is_idle_says_so_and_ends(send, begin, jp_ws_fetch):
    connection = await begin({**SMALL, "name": "idler"})
    page = await open_page(jp_ws_fetch)
    page.send(type="watch", clusters=[connection.id], interval=0.25)
    await page.kind("snapshot")
    assert await send("PATCH", "clusters", connection.id, body={"idle_stop": 5}) == (200, {"idle_stop": 5})
    notice = await page.kind("notice")
    assert notice["cluster"] == connection.id and "There is no work: the cluster stops in" in notice["message"]
    await page.kind("ended")
    page.socket.close()
    assert registry.find(connection.id) is None


async def test_a_cluster_outlives_the_server_that_started_it(jp_serverapp):
    """And is stopped from another."""
    first = Services(str(jp_serverapp.root_dir), jp_serverapp.log)
    start = await first.starts.start(check_spec({**SMALL, "name": "heir"}))
    async with asyncio.timeout(60):
        while start.state == "starting":  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await first.close()
    connection = registry.find(start.id)
    assert connection is not None and psutil.pid_exists(connection.pid)
    assert await joined("heir") == ["detached", "42"]
    os.kill(connection.pid, 15)
    await asyncio.to_thread(os.waitpid, connection.pid, 0)
    assert registry.find(start.id) is None


async def test_a_start_that_is_under_way_ends_with_the_server(jp_serverapp):
    services = Services(str(jp_serverapp.root_dir), jp_serverapp.log)
    start = await services.starts.start(check_spec(DASK))
    await services.close()
    assert not psutil.pid_exists(start.process.pid)
    assert registry.list_clusters() == []


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"nodez": 3}, "there is no key `nodez`. Did you mean `nodes`?"),
        ({"nodes": "three"}, "`nodes` is to be a whole number"),
        ("nowhere", "There is no spec `nowhere`"),
        (7, "a spec is a mapping"),
        ("broken", "broken.yaml, line 2: there is no key `adress`. Did you mean `address`?"),
    ],
)
async def test_a_spec_with_a_fault_starts_nothing(send, jp_environ, spec, words):
    specs_directory().mkdir(parents=True)
    (specs_directory() / "broken.yaml").write_text("name: x\nadress: y\n")
    status, answer = await send("POST", "clusters", body={"spec": spec})
    assert status == 400 and words in answer["message"] and answer["reason"] == "bad spec"
    assert (await send("GET", "clusters"))[1]["clusters"] == []


async def test_named_specs_are_listed_without_their_options(send, begin, jp_environ):
    specs_directory().mkdir(parents=True)
    (specs_directory() / "small.yaml").write_text("options: {num_cpus: 1, labels: {password: hunter2}}\n")
    (specs_directory() / "broken.yaml").write_text("name: [x\n")
    status, answer = await send("GET", "specs")
    assert status == 200 and "hunter2" not in json.dumps(answer)
    found = {row["name"]: row for row in answer["specs"]}
    assert list(found) == ["local", "broken", "small"]
    assert found["broken"]["problem"].startswith("broken.yaml, line 2") and found["small"]["problem"] == ""
    first = await begin("small")
    second = await begin("small")
    assert (first.name, second.name) == ("small", "small-2")
    status, answer = await send("POST", "clusters", body={"spec": "small", "name": "small"})
    assert status == 409 and "There is a cluster `small` already" in answer["message"]
    await end(send, first)
    await end(send, second)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"cluster_class": "dask.distributed.LocalClustr"}, "no class `LocalClustr`. Did you mean `LocalCluster`?"),
        ({"cluster_class": "nowhere.at_all.Cluster"}, "cannot be imported"),
        ({"cluster_class": "builtins.dict"}, "is no Dask cluster class"),
        ({**DASK, "options": {"n_wrkers": 1}}, "n_wrkers"),
        ({**DASK, "options": {**DASK["options"], "processes": False, "protocol": "inproc"}}, "inside one process"),
        ({"python": "/bin/false"}, "ended with status 1 before the cluster was ready"),
    ],
)
async def test_a_start_that_fails_says_why(send, spec, words):
    status, answer = await send("POST", "clusters", body={"spec": spec})
    assert status == 202
    start_id = answer["start"]
    async with asyncio.timeout(60):
        while True:
            _, start = await send("GET", "starts", start_id)
            if start["state"] == "ended":
                break
            await asyncio.sleep(0.05)
    assert words in start["message"]
    [row] = (await send("GET", "clusters"))[1]["clusters"]
    assert (row["id"], row["state"], row["message"]) == (start_id, "ended", start["message"])
    assert (await send("DELETE", "starts", start_id))[0] == 200
    assert (await send("GET", "clusters"))[1]["clusters"] == []


async def test_a_start_can_be_taken_back(send):
    _, answer = await send("POST", "clusters", body={"spec": DASK})
    [row] = (await send("GET", "clusters"))[1]["clusters"]
    processes = processes_of(row["pid"])
    assert (await send("DELETE", "starts", answer["start"]))[0] == 200
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, TIMEOUT)
    assert not alive and (await send("GET", "starts", answer["start"]))[0] == 404


async def test_a_cluster_that_hangs_is_ended_all_the_same(send, begin):
    connection = await begin({**SMALL, "name": "stuck"})
    processes = processes_of(connection.pid)
    os.kill(connection.pid, 19)
    assert (await send("DELETE", "clusters", connection.id))[0] == 200
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, TIMEOUT)
    assert not alive


LOSING = (
    "import shoal, threading, time\n"
    "shoal.init(name='victim', num_cpus=1)\n"
    "ref = shoal.remote(lambda: time.sleep(600)).remote()\n"
    "def wait():\n"
    "    try:\n"
    "        shoal.get(ref)\n"
    "    except shoal.errors.ClusterLostError as error:\n"
    "        print('lost:', error, flush=True)\n"
    "threading.Thread(target=wait).start()"
)


async def test_an_embedded_cluster_is_stopped_and_its_driver_is_told(send, start_driver):
    driver = await asyncio.to_thread(start_driver, LOSING)
    [connection] = registry.list_clusters()
    status, answer = await send("PATCH", "clusters", connection.id, body={"nodes": 2})
    assert (status, answer["nodes"]) == (200, 2)
    status, answer = await send("PATCH", "clusters", connection.id, body={"idle_stop": 60})
    assert status == 409 and "without a driver" in answer["message"]
    status, answer = await send("DELETE", "clusters", connection.id)
    assert (status, answer["message"]) == (200, "`victim` has ended.")
    line = await asyncio.wait_for(asyncio.to_thread(driver.stdout.readline), TIMEOUT)
    assert line.startswith("lost: ")


ATTACHED = (
    "import shoal\n"
    "from distributed import LocalCluster\n"
    "from distributed.security import Security\n"
    "dask_cluster = LocalCluster(n_workers=1, threads_per_worker=1, security=Security.temporary(),\n"
    "                            dashboard_address='127.0.0.1:0')\n"
    "shoal.init({target}, name='tied')"
)


async def test_an_attached_cluster_is_scaled_and_stopped_by_its_driver(send, start_driver):
    driver = await asyncio.to_thread(start_driver, ATTACHED.format(target="dask_cluster"))
    [connection] = registry.list_clusters()
    assert connection.kind == "attached" and connection.owner
    status, answer = await send("PATCH", "clusters", connection.id, body={"nodes": 2})
    assert (status, answer) == (200, {"nodes": 2, "kept": []})
    workers = [child for child in psutil.Process(driver.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    status, answer = await send("DELETE", "clusters", connection.id)
    assert (status, answer["message"]) == (200, "`tied` has ended.")
    _, alive = await asyncio.to_thread(psutil.wait_procs, workers, TIMEOUT)
    assert not alive


async def test_one_that_was_joined_by_address_is_left_to_others(send, start_driver):
    target = "dask_cluster.scheduler_address, security=dask_cluster.security"
    await asyncio.to_thread(start_driver, ATTACHED.format(target=target), "dask_cluster.close()")
    [connection] = registry.list_clusters()
    for method, body in (("PATCH", {"nodes": 2}), ("DELETE", None)):
        status, answer = await send(method, "clusters", connection.id, body=body)
        assert status == 409 and "where it was started" in answer["message"]


async def test_values_are_released_one_by_one_by_their_owner(send, start_driver):
    script = (
        "import numpy as np, shoal\n"
        "shoal.init(name='full', num_cpus=1)\n"
        "free, needed = shoal.put(np.ones(1_000_000)), shoal.put(np.ones(500_000))\n"
        "outer = shoal.put([needed, np.ones(250_000)])\n"
    )
    check = (
        "try:\n"
        "    shoal.get(free)\n"
        "    raise SystemExit('it is still there')\n"
        "except shoal.errors.ObjectLostError as error:\n"
        "    assert 'released on demand' in str(error), error\n"
        "assert len(shoal.get(needed)) == 500_000 and free is not None\n"
        "shoal.shutdown()"
    )
    driver = await asyncio.to_thread(start_driver, script, check)
    [connection] = registry.list_clusters()
    [row] = (await send("GET", "clusters"))[1]["clusters"]
    owner = row["snapshot"]["owners"][0]["id"]

    async def held() -> dict[int, str]:
        status, report = await send("GET", "clusters", connection.id, "memory", params={"owner": owner})
        assert status == 200
        return {row["nbytes"] // 1_000_000: row["object_id"] for row in report["objects"] if row["where"] == "memory"}

    async def release(name: str) -> tuple[int, dict]:
        return await send("POST", "clusters", connection.id, "release", body={"owner": owner, "object": name})

    before = await held()
    assert set(before) == {8, 4, 2}
    status, answer = await release(before[4])
    assert status == 409 and "is needed by the value" in answer["message"], answer
    status, answer = await release(before[8])
    assert status == 200 and answer["released"] >= 8_000_000
    assert set(await held()) == {4, 2}
    for name in (before[8], "obj-nobody's", ""):
        assert (await release(name))[0] == 409
    assert (await send("POST", "clusters", connection.id, "release", body={"owner": owner, "object": 3}))[0] == 400
    driver.stdin.close()
    assert await asyncio.to_thread(driver.wait, TIMEOUT) == 0


async def test_an_executor_is_profiled_as_a_flame_graph(send, start_driver):
    script = (
        "import shoal, time\n"
        "shoal.init(name='hot', num_cpus=1)\n"
        "@shoal.remote\n"
        "class Oven:\n"
        "    def ping(self): return 1\n"
        "    def burn_for(self, seconds):\n"
        "        end = time.monotonic() + seconds\n"
        "        while time.monotonic() < end: pass\n"
        "oven = Oven.remote()\n"
        "shoal.get(oven.ping.remote())\n"
        "burning = oven.burn_for.remote(600)"
    )
    await asyncio.to_thread(start_driver, script, "import os; os._exit(0)")
    [connection] = registry.list_clusters()
    status, answer = await send("GET", "clusters", connection.id, "executors")
    [oven] = [row for row in answer["executors"] if row["actor"]]
    body = {"node": oven["node"], "executor": oven["id"], "seconds": 0.5}
    status, profile = await send("POST", "clusters", connection.id, "profile", body=body)
    assert status == 200 and profile["looks"] > 0
    assert "burn_for" in profile["html"] and "flame graph" in profile["html"] and "<script" not in profile["html"]


async def test_work_is_cancelled_explained_and_actors_end(send, start_driver):
    script = (
        "import shoal, time\n"
        "shoal.init(name='busy', num_cpus=2)\n"
        "@shoal.remote\n"
        "class Counter:\n"
        "    def ping(self): return 1\n"
        "counter = Counter.remote()\n"
        "shoal.get(counter.ping.remote())\n"
        "naps = [shoal.remote(lambda: time.sleep(600)).options(cell='In[1]#a').remote() for _ in range(3)]\n"
        "alone = shoal.remote(lambda: time.sleep(600)).remote()"
    )
    await asyncio.to_thread(start_driver, script, "import os; os._exit(0)")
    [connection] = registry.list_clusters()
    [row] = (await send("GET", "clusters"))[1]["clusters"]
    [owner] = [owner["id"] for owner in row["snapshot"]["owners"] if owner["is_driver"]]

    status, answer = await send("GET", "clusters", connection.id, "pending", params={"owner": owner})
    assert status == 200 and len(answer["pending"]) == 4
    alone = next(row for row in answer["pending"] if not row["cell"])
    assert set(alone) == {
        "task_id", "object_id", "kind", "function", "cell", "state", "submitted", "attempt", "executor"
    }  # fmt: skip
    query = {"owner": owner, "object": alone["object_id"]}
    status, answer = await send("GET", "clusters", connection.id, "why", params=query)
    assert status == 200 and answer["explanation"]["state"] and isinstance(answer["explanation"]["causes"], list)
    body = {"owner": owner, "cell": "In[1]#a", "force": False}
    assert await send("POST", "clusters", connection.id, "cancel", body=body) == (200, {"cancelled": 3})
    body = {"owner": owner, "task": alone["task_id"], "force": True}
    assert await send("POST", "clusters", connection.id, "cancel", body=body) == (200, {"cancelled": 1})
    status, answer = await send("POST", "clusters", connection.id, "cancel", body={"owner": "driver-x", "cell": "a"})
    assert status == 409 and "not in this cluster" in answer["message"]
    for body in ({}, {"owner": owner}, {"owner": owner, "cell": "a", "task": "b"}, {"owner": owner, "cell": 3}, [1]):
        assert (await send("POST", "clusters", connection.id, "cancel", body=body))[0] == 400
    [actor] = [actor["id"] for actor in row["snapshot"]["actors"]]
    assert (await send("POST", "clusters", connection.id, "actors", actor, body={"action": "pet"}))[0] == 400
    assert (await send("POST", "clusters", connection.id, "actors", actor, body={"action": "kill"}))[0] == 200
    assert (await send("POST", "clusters", connection.id, "actors", actor, body={"action": "kill"}))[0] == 404
    for body in ({}, {"nodes": -1}, {"nodes": 1.5}, {"nodes": 2, "idle_stop": 1}, {"size": 2}, {"nodes": True}):
        assert (await send("PATCH", "clusters", connection.id, body=body))[0] == 400, body
