"""A real Jupyter server in this process, with this user's registry of clusters in a temporary folder."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

# Not `pytest_plugins`: pytest allows that in the top conftest only, where pytest-jupyter's event loop would
# get into the browser tests.
from pytest_jupyter.jupyter_core import *  # noqa: F403
from pytest_jupyter.jupyter_server import *  # noqa: F403

from shoal.launch import registry
from shoal.launch.registry import Connection

END_TIMEOUT = 30.0


@pytest.fixture
def jp_server_config():
    """Our extension on; handlers without an authentication decorator refused."""
    return {
        "ServerApp": {
            "jpserver_extensions": {"shoal_labextension": True},
            "allow_unauthenticated_access": False,
        }
    }


@pytest.fixture
def register(jp_environ) -> Iterator[Callable[..., Connection]]:
    """Enter clusters into the registry as their drivers would; they count as alive until the test ends."""
    registrations = []

    def enter(cluster_id: str, address: str, tls_texts: dict[str, str] | None = None, **fields: object) -> Connection:
        connection = Connection(
            **{
                "id": cluster_id,
                "name": "",
                "address": address,
                "kind": "embedded",
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "created": time.time(),
                "notebook": "/notebooks/a.ipynb",
                "python": "3.11.7",
                **fields,
            }
        )
        registrations.append(registry.register(connection, tls_texts))
        return connection

    yield enter
    for registration in registrations:
        registration.remove()


@pytest.fixture
def silent_listener() -> Iterator[socket.socket]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture
def start_driver(jp_environ) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Run drivers: scripts that set something up, after which they wait until their stdin ends."""
    drivers = []

    def start(script: str, last_words: str = "") -> subprocess.Popen[str]:
        script = f"import sys\n{script}\nprint('ready', flush=True)\nsys.stdin.read()\n{last_words}\n"
        driver = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        drivers.append(driver)
        assert driver.stdout.readline() == "ready\n", f"the driver ended with {driver.wait(END_TIMEOUT)}"
        return driver

    yield start
    for driver in drivers:
        with driver:
            driver.stdin.close()
            try:
                driver.wait(END_TIMEOUT)
            except subprocess.TimeoutExpired:
                driver.kill()


@pytest.fixture
def live_cluster(start_driver) -> subprocess.Popen[str]:
    """A driver in a process of its own, with an embedded cluster called `minnow`."""
    script = (
        "import shoal\n"
        "shoal.init(name='minnow', num_cpus=2)\n"
        "twice = shoal.remote(lambda x: 2 * x)\n"
        "assert shoal.get(twice.remote(21)) == 42"
    )
    return start_driver(script, "shoal.shutdown()")
