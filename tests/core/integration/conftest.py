"""Two real clusters to run everything on, and the processes and files they may leave behind."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from distributed import Client, LocalCluster
from distributed.security import Security
from variables import Names

import shoal
from shoal.runtime.environment import store_root
from shoal.runtime.variables import set_namespace


@pytest.fixture(scope="session", autouse=True)
def runtime_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Connection files, stores and logs of the tests stay apart from everybody else's."""
    directory = tmp_path_factory.mktemp("runtime")
    store = tmp_path_factory.mktemp("tmp")
    tempfile.tempdir = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_RUNTIME_DIR", str(directory))
        patch.setenv("TMPDIR", str(store))
        patch.setenv("SHOAL_STORE_DIR", str(store))
        yield directory
    tempfile.tempdir = None


@pytest.fixture(scope="module", params=["embedded", "dask"])
def cluster(request: pytest.FixtureRequest) -> Iterator[shoal.Cluster]:
    """The embedded cluster, then a Dask cluster of two workers with nannies and TLS."""
    if request.param == "embedded":
        with shoal.init(num_cpus=2) as joined:
            yield joined
    else:
        with (
            LocalCluster(
                n_workers=2,
                threads_per_worker=1,
                security=Security.temporary(),
                dashboard_address=":0",
                protocol="tls://",
            ) as dask_cluster,
            shoal.init(dask_cluster, timeout=30) as joined,
        ):
            yield joined


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """The driver's machine and three others."""
    with separate_machines(3, tmp_path_factory.mktemp("machines")) as made:
        yield made


@pytest.fixture(scope="module")
def embedded() -> Iterator[shoal.Cluster]:
    with shoal.init(num_cpus=2) as joined:
        yield joined


class Machines(NamedTuple):
    """A cluster whose nodes cannot see each other's stores; the first is the driver's own machine."""

    cluster: shoal.Cluster
    #: Processes of the Dask workers on other machines; the *n*-th has the resource ``far-n``.
    far: list[subprocess.Popen[bytes]]


@contextlib.contextmanager
def separate_machines(num_far: int, directory: Path, **worker_environment: str) -> Iterator[Machines]:
    """Start a cluster whose far nodes each have a file system of their own where stores are."""
    if os.getuid() or subprocess.run(["unshare", "--mount", "true"]).returncode:
        pytest.skip("only root can give processes a file system of their own")
    security = Security.temporary()
    tls = {"ca-file": security.tls_ca_file, "cert": security.tls_client_cert, "key": security.tls_client_key}
    for name, text in tls.items():
        (directory / name).write_text(str(text))
    with contextlib.ExitStack() as stack:
        dask_cluster = stack.enter_context(
            LocalCluster(
                n_workers=1, threads_per_worker=1, security=security, dashboard_address=":0", protocol="tls://"
            )
        )
        far = []
        for number in range(num_far):
            command = [sys.executable, "-m", "distributed.cli.dask_worker", dask_cluster.scheduler_address]
            command += ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--resources", f"far-{number}=1,far=1"]
            command += [word for name in tls for word in (f"--tls-{name}", str(directory / name))]
            command += ["--local-directory", str(directory)]
            mount = f'mount -t tmpfs tmpfs "$SHOAL_STORE_DIR" && exec {shlex.join(command)}'
            process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", mount],
                env=os.environ | worker_environment,
                stderr=subprocess.DEVNULL,
            )
            far.append(process)
            stack.callback(process.wait, 20)
            stack.callback(process.terminate)
        client = stack.enter_context(Client(dask_cluster, set_as_default=False))
        client.wait_for_workers(1 + num_far, timeout=60)
        yield Machines(stack.enter_context(shoal.init(dask_cluster, timeout=30)), far)


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., None]:
    """Return a function that waits until a condition holds, and fails after 15 seconds."""

    def wait(condition: Callable[[], object], what: str | Callable[[], str], timeout: float = 15.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"{what if isinstance(what, str) else what()} did not happen within {timeout:g} s")
            time.sleep(0.02)

    return wait


@pytest.fixture
def names() -> Iterator[Callable[..., None]]:
    """A function that says which variables there are."""
    yield lambda **values: set_namespace(Names(**values))
    set_namespace(None)
    vars(sys).pop("last_exc", None)


@pytest.fixture
def traces(runtime_directory: Path) -> Callable[[], set[object]]:
    """Return a function that lists the processes and files of shoal that these tests have brought about."""
    return lambda: {*shoal_processes(str(runtime_directory)), *shoal_files()}


def shoal_processes(runtime_directory: str) -> set[int]:
    """Return the ids of every process of shoal's runtime that these tests have started."""
    found = set()
    for process in psutil.process_iter(["cmdline", "status"]):
        command = " ".join(process.info["cmdline"] or ())
        if process.info["status"] != psutil.STATUS_ZOMBIE and (
            "shoal.launch.head" in command or "shoal.runtime.template" in command
        ):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("JUPYTER_RUNTIME_DIR") == runtime_directory:
                    found.add(process.pid)
    return found


def shoal_files() -> set[str]:
    """Return what lies in shared memory, temporary and connection directories."""
    places = {store_root(), Path(tempfile.gettempdir())}
    found = {str(path) for place in places for path in place.glob("shoal-*")}
    return found | {str(path) for path in Path(os.environ["JUPYTER_RUNTIME_DIR"]).glob("shoal/*")}
