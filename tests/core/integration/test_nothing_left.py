"""However a session ends, no process, socket, file or shared memory of ours outlives it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import LocalCluster
from distributed.security import Security
from jupyter_client.manager import KernelManager

import shoal
from shoal.launch import registry
from shoal.runtime.store import Store

# A driver that has used everything: tasks, an actor, a large object in shared memory, a child process of a task.
DRIVER = """
import subprocess, sys, time
import numpy as np
import shoal

shoal.init(num_cpus=2)

@shoal.remote
def work(array):
    subprocess.Popen(["sleep", "300"])
    return array * 2

@shoal.remote
class Holder:
    def hold(self, array):
        self.array = array
        return float(array.sum())

ref = shoal.put(np.ones(500_000))
doubled = work.remote(ref)
holder = Holder.remote()
assert shoal.get(holder.hold.remote(doubled), timeout=30) == 1_000_000

@shoal.remote
def forever():
    while True:
        time.sleep(0.1)

running = forever.remote()
time.sleep(0.1)
print("ready", flush=True)
"""
GATE = "sys.stdin.readline()\n"


#: Local sockets of the drivers started here.
SOCKETS: set[str] = set()


def local_sockets() -> set[str]:
    """Return the sockets in Linux's abstract namespace that shoal listens on."""
    table = Path("/proc/net/unix")
    names = (line.split()[-1] for line in table.read_text().splitlines()[1:]) if table.exists() else ()
    return {name for name in names if name.startswith("@shoal-")}


def sockets_of(driver: psutil.Process) -> set[str]:
    """Return those that *driver* and its descendants listen on: each is named after a port of theirs."""
    ports = {
        str(connection.laddr.port)
        for process in (driver, *driver.children(recursive=True))
        for connection in connections_of(process)
        if connection.status == psutil.CONN_LISTEN
    }
    return {name for name in local_sockets() if name.rpartition(":")[2] in ports}


def connections_of(process: psutil.Process) -> list[Any]:
    try:
        return process.net_connections(kind="inet")
    except psutil.Error:  # it has just ended
        return []


def start(ending: str) -> subprocess.Popen[str]:
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER + GATE + textwrap.dedent(ending)],
        stdout=subprocess.PIPE,
        text=True,
        stdin=subprocess.PIPE,
    )
    assert driver.stdout is not None and driver.stdin is not None
    assert driver.stdout.readline() == "ready\n"
    found = sockets_of(psutil.Process(driver.pid))
    assert sys.platform != "linux" or len(found) >= 4, "driver, two executors and an actor"
    SOCKETS.update(found)
    driver.stdin.write("\n")
    driver.stdin.flush()
    return driver


def sleepers() -> set[int]:
    return {
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if process.info["cmdline"] == ["sleep", "300"] and process.status() != psutil.STATUS_ZOMBIE
    }


@pytest.fixture
def nothing_left(traces, wait_until):
    """Take stock before, and see it unchanged after."""
    before, sleeping = traces(), sleepers()
    yield
    wait_until(lambda: traces() <= before, lambda: f"an end of {traces() - before}", 20)
    wait_until(lambda: sleepers() <= sleeping, "an end of the tasks' own children")
    wait_until(lambda: not local_sockets() & SOCKETS, "an end of the local sockets")
    SOCKETS.clear()


def test_after_shutdown(nothing_left):
    driver = start("shoal.shutdown(); print('down', flush=True); sys.stdin.read()")
    assert driver.stdout.readline() == "down\n"
    children = psutil.Process(driver.pid).children(recursive=True)
    assert children == [], "shutdown returns when everything has ended"
    driver.communicate(timeout=20)
    assert driver.returncode == 0


def test_after_a_driver_that_just_ends(nothing_left):
    driver = start("")
    driver.communicate(timeout=20)
    assert driver.returncode == 0


def test_after_an_error_in_the_driver(nothing_left):
    driver = start("sys.stderr.close(); raise SystemExit(3)")
    driver.communicate(timeout=20)
    assert driver.returncode == 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_after_the_driver_is_killed(nothing_left, number):
    driver = start("sys.stdin.read()")
    driver.send_signal(number)
    driver.communicate(timeout=20)
    assert driver.returncode == -number


def test_after_the_head_is_killed(nothing_left):
    driver = start(
        """
        try:
            shoal.get(running, timeout=20)
        except shoal.errors.ClusterLostError as error:
            print("lost:", error, flush=True)
        """
    )
    (head,) = [child for child in psutil.Process(driver.pid).children() if "shoal.launch.head" in child.cmdline()]
    head.kill()
    said, _ = driver.communicate(timeout=30)
    assert said.startswith("lost: The connection to the cluster")


def test_after_the_template_is_killed(nothing_left):
    """The executors go with it; another template takes over, and lost work is done again."""
    driver = start(
        """
        sys.stdin.readline()
        print(shoal.get(work.remote(ref), timeout=30).sum(), flush=True)
        sys.stdin.read()
        """
    )
    (head,) = [child for child in psutil.Process(driver.pid).children() if "shoal.launch.head" in child.cmdline()]
    (template,) = head.children()
    template.kill()
    said, _ = driver.communicate("\n", timeout=40)
    assert said == "1000000.0\n"


def test_after_everything_is_killed_at_once(nothing_left, wait_until, traces):
    """Nobody is left to clean up: the next cluster on this machine does."""
    before = traces()
    driver = start("shoal.put(np.ones(1_000_000)); print('put', flush=True); sys.stdin.read()")
    assert driver.stdout.readline() == "put\n"
    family = [*psutil.Process(driver.pid).children(recursive=True), psutil.Process(driver.pid)]
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in family:
            process.send_signal(number)
    driver.communicate(timeout=20)
    wait_until(lambda: not any(isinstance(trace, int) for trace in traces() - before), "an end of the processes")
    left = {Path(trace) for trace in traces() - before}
    assert len(left) == 4, "store, logs, the head's own files, connection"
    for path in left:
        for lock in path.glob(".claimed"):
            os.utime(lock, (0, 0))  # a while ago
    with shoal.init(num_cpus=1):
        wait_until(lambda: not any(path.exists() for path in left if path.parent.name != "shoal"), "a sweep")
        assert [connection.pid for connection in registry.list_clusters()] == [os.getpid()]


def test_after_a_start_that_failed(nothing_left, monkeypatch, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("from distributed import Worker\nWorker.__init__ = None\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(shoal.errors.ConnectError, match="did not start: its process ended"):
        shoal.init(num_cpus=1)


def test_work_that_comes_between_two_templates(nothing_left, monkeypatch, wait_until):
    """Executors asked for while the next template comes up are started by it: nobody would repeat the request."""
    connecting, go_on = threading.Event(), threading.Event()

    async def connect_slowly(*args: Any, **kwargs: Any) -> Any:
        connecting.set()
        await asyncio.to_thread(go_on.wait, 15)
        return await connect(*args, **kwargs)

    connect = asyncio.open_unix_connection
    # In one process with this test, the worker's agent can be held in the middle of what it does.
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address=":0"
        ) as dask_cluster,
        pytest.warns(UserWarning, match="TLS"),
        shoal.init(dask_cluster, timeout=30),
    ):
        one = shoal.remote(lambda: 1)
        assert shoal.get(one.remote(), timeout=30) == 1
        monkeypatch.setattr(asyncio, "open_unix_connection", connect_slowly)
        templates = [
            child for child in psutil.Process().children() if "shoal.runtime.template" in " ".join(child.cmdline())
        ]
        assert len(templates) == 1
        templates[0].kill()
        assert connecting.wait(15)
        late = one.options(memory=1_000).remote()
        with pytest.raises(TimeoutError):
            shoal.get(late, timeout=0.5)
        go_on.set()
        assert shoal.get(late, timeout=30) == 1


def run_in_kernel(client, code: str) -> None:
    reply = client.execute_interactive(code, timeout=60, output_hook=lambda message: None)
    assert reply["content"]["status"] == "ok", reply["content"]


@pytest.mark.parametrize("how", ["restart", "kill -9", "shutdown"])
def test_after_the_kernel_ends(nothing_left, how, tmp_path):
    manager = KernelManager()
    manager.start_kernel(extra_arguments=["--HistoryManager.enabled=False"])
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        run_in_kernel(client, DRIVER)
        before = psutil.Process(manager.provisioner.pid).children(recursive=True)
        assert len(before) >= 4, "head, template and executors"
        if how == "restart":
            manager.restart_kernel(now=False)
            client.wait_for_ready(timeout=60)
            _, alive = psutil.wait_procs(before, timeout=15)
            assert alive == []
        elif how == "kill -9":
            os.kill(manager.provisioner.pid, signal.SIGKILL)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=how == "kill -9")
        manager.cleanup_resources()


def test_after_leaving_a_dask_cluster(nothing_left, wait_until, traces):
    """Nothing of the driver's stays there; the nodes themselves end with their Dask workers."""
    with LocalCluster(
        n_workers=1, threads_per_worker=1, security=Security.temporary(), dashboard_address=":0", protocol="tls://"
    ) as dask_cluster:
        with shoal.init(dask_cluster, timeout=30):
            shoal.get(shoal.remote(lambda: 1).remote(), timeout=30)
            store = shoal.api.session._session.owner.store
            kept = shoal.put(bytes(300_000))
            assert store.segments()
        wait_until(lambda: not store.segments(), "release of what the driver had put")
        del kept


def test_after_a_driver_of_a_dask_cluster_is_killed(nothing_left, wait_until, tmp_path):
    security = Security.temporary()
    with LocalCluster(
        n_workers=1, threads_per_worker=1, security=security, dashboard_address=":0", protocol="tls://"
    ) as dask_cluster:
        for role, part in {"ca": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}.items():
            (tmp_path / role).write_text(getattr(security, part))
        driver = subprocess.Popen(
            [
                sys.executable,
                "-c",
                textwrap.dedent(
                    f"""
                    import os, sys, time, shoal
                    from distributed.security import Security
                    ca, cert, key = (os.path.join({str(tmp_path)!r}, name) for name in ("ca", "cert", "key"))
                    security = Security(tls_ca_file=ca, tls_client_cert=cert, tls_client_key=key, tls_worker_cert=cert,
                                        tls_worker_key=key, require_encryption=True)
                    shoal.init({dask_cluster.scheduler_address!r}, security=security, timeout=30)
                    kept = shoal.put(bytes(300_000))
                    pid = shoal.remote(lambda: os.getpid())
                    busy = shoal.remote(lambda: time.sleep(300)).remote()
                    print(shoal.get(shoal.remote(num_cpus=0)(lambda: os.getpid()).remote(), timeout=30),
                          shoal.api.session._session.owner.store.directory, flush=True)
                    sys.stdin.read()
                    """
                ),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        pid, directory = driver.stdout.readline().split()
        store = Store(directory, "")
        assert store.segments()
        driver.kill()
        driver.communicate(timeout=20)
        wait_until(lambda: not store.segments(), "release of what the dead driver had put")
        wait_until(lambda: not psutil.pid_exists(int(pid)), "an end of the dead driver's executors")
        # Nobody was left to remove its connection file: whoever lists clusters next proves it dead and does.
        assert registry.list_clusters() == []


def test_only_loopback_listens(embedded):
    """Whatever listens of ours is bound to this machine."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = [
        connection.laddr
        for process in processes
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) >= 3, "driver, scheduler and worker, and the executors"
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_a_stranger_without_certificate_is_refused(embedded):
    host, port = embedded.address.removeprefix("tls://").split(":")
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(b"\x00" * 64)
        connection.settimeout(5)
        try:
            answer = connection.recv(1024)
        except ConnectionResetError:
            answer = b""
        # A TLS alert, or nothing: never an answer of Dask's protocol.
        assert answer[:1] in (b"", b"\x15")
