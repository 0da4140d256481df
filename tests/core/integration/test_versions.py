"""Driver and nodes that differ: a table before any work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shoal

#: A Dask worker that takes itself for another Python, from when it has been imported on.
OTHER_PYTHON = """
import collections, platform, sys
from distributed.cli.dask_worker import main
Version = collections.namedtuple("version_info", "major minor micro releaselevel serial")
sys.version_info = Version(3, 99, 1, "final", 0)
platform.python_version = lambda: "3.99.1"
main()
"""


@pytest.fixture
def dask_cluster(tmp_path, wait_until) -> Iterator[Callable[..., str]]:
    """Return a function that starts a Dask scheduler here and a worker by another program; it gives the address."""
    processes: list[subprocess.Popen[bytes]] = []
    where = tmp_path / "scheduler.json"

    def run(log: Path, *command: str, path: Path | None = None) -> None:
        environment = {**os.environ, "PYTHONPATH": str(path) if path else ""}
        options = ["--scheduler-file", str(where), "--no-dashboard"]
        with open(log, "wb") as file:
            process = subprocess.Popen([sys.executable, *command, *options], env=environment, stdout=file, stderr=file)
        processes.append(process)

    def start(*program: str, path: Path | None = None) -> str:
        scheduler = ("-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0")
        run(tmp_path / "scheduler.log", *scheduler)
        wait_until(lambda: where.exists() and where.read_text(), "the scheduler's start")
        log = tmp_path / "worker.log"
        run(log, *program, "--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path), path=path)
        wait_until(lambda: "Registered to" in log.read_text(), lambda: f"the worker's start: {log.read_text()}", 30)
        address: str = json.loads(where.read_text())["address"]
        return address

    yield start
    for process in reversed(processes):
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_another_shoal_version_draws_a_warning_with_a_table_and_works(dask_cluster, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(Path(shoal.__file__).parent, other / "shoal", ignore=shutil.ignore_patterns("__pycache__"))
    (other / "shoal" / "_version.py").write_text('__version__ = "0.0.9"\n')
    info = other / "shoal-0.0.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shoal\nVersion: 0.0.9\n")
    address = dask_cluster("-m", "distributed.cli.dask_worker", path=other)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        with shoal.init(address, timeout=30):
            assert shoal.get(shoal.remote(lambda: shoal.__version__).remote(), timeout=30) == "0.0.9"
    said = [str(warning.message) for warning in caught if "differ" in str(warning.message)]
    assert said and all("0.0.9" in text and shoal.__version__ in text for text in said)


def test_another_python_is_refused_with_a_table(dask_cluster):
    address = dask_cluster("-c", OTHER_PYTHON)
    with (
        pytest.warns(UserWarning, match="no TLS"),
        pytest.raises(shoal.errors.VersionMismatchError, match="different Python versions") as caught,
    ):
        shoal.init(address, timeout=30)
    assert "3.99.1" in caught.value.table
    assert not shoal.is_initialized()
