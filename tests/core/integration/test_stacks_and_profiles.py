"""Stacks and profiles of executors: of those that work, that wait, that are stuck in C code, and that are stopped."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from distributed import LocalCluster
from distributed.security import Security

import shoal
from shoal.runtime import py_spy

TIMEOUT = 30.0


def may_look() -> bool:
    """Whether py-spy is installed and may look into processes here."""
    try:
        asyncio.run(py_spy.dump(os.getpid()))
    except py_spy.NotPossibleError:
        return False
    return True


class Scene(NamedTuple):
    cluster: shoal.Cluster
    #: Whether py-spy may be used.
    with_py_spy: bool


@pytest.fixture(scope="module", params=["embedded", "embedded without py-spy", "dask without py-spy"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Everything has to work whether py-spy may be used or not; the cluster's processes inherit which."""
    kind, *rest = request.param.split()
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("SHOAL_PY_SPY", "0" if rest else "1")
        if kind == "embedded":
            cluster = stack.enter_context(shoal.init(num_cpus=2))
        else:
            dask_cluster = stack.enter_context(
                LocalCluster(
                    n_workers=1, threads_per_worker=2, security=Security.temporary(), dashboard_address=":0",
                    protocol="tls://",
                )
            )  # fmt: skip
            cluster = stack.enter_context(shoal.init(dask_cluster, timeout=30))
        yield Scene(cluster, not rest and may_look())


@shoal.remote
class Worker:
    def pid(self) -> int:
        return os.getpid()

    def spin(self, gate: Path) -> int:
        turns = 0
        while not gate.exists():
            turns += self._turn()
        return turns

    def _turn(self) -> int:
        return len([number for number in range(1_000) if number % 3])

    def stuck(self, begun: Path) -> int:
        begun.touch()
        ctypes.PyDLL(None).sleep(8)  # C code that lets no other thread run; a signal ends it sooner
        return 1


@shoal.remote
class AsyncWorker:
    async def wait(self) -> None:
        await self._for_ever()

    async def _for_ever(self) -> None:
        await asyncio.Event().wait()

    async def ping(self) -> int:
        return 1


@shoal.remote(max_concurrency=2)
class ThreadedWorker:
    def wait(self, gate: Path) -> None:
        while not gate.exists():
            time.sleep(0.01)

    def ping(self) -> int:
        return 1


@pytest.fixture
def worker(scene: Scene):
    """An actor that does as it is told, and still does so after the test: nothing was stopped or killed."""
    made = Worker.remote()
    pid = shoal.get(made.pid.remote(), timeout=TIMEOUT)
    yield made
    assert shoal.get(made.pid.remote(), timeout=60) == pid
    assert psutil.Process(pid).status() != psutil.STATUS_STOPPED


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_busy_main_thread_is_described_with_the_users_frames(worker, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    ref = worker.spin.options(cell="In[4]#ab").remote(gate)
    wait_for(lambda: "runs `Worker.spin` (task-" in shoal.stack(worker))
    texts = [shoal.stack(worker), shoal.stack(ref)]
    gate.touch()
    for text in texts:
        first = text.split("\n\n")[1].splitlines()
        assert first[0].startswith("thread MainThread runs `Worker.spin` (task-") and "cell In[4]" in first[0]
        assert first[1].startswith(f'> File "{__file__}", line ') and first[1].endswith("in Worker.spin")
        assert "lanes.py" not in text, "what leads to the user's code is left out"
    assert shoal.get(ref, timeout=TIMEOUT) > 0
    with pytest.raises(shoal.errors.OptionError, match="in an executor"):
        shoal.stack(ref)


def test_coroutines_and_threads_of_actors_are_described(scene: Scene, tmp_path: Path) -> None:
    worker = AsyncWorker.remote()
    waiting = [worker.wait.remote() for _ in range(3)]
    shoal.get(worker.ping.remote(), timeout=TIMEOUT)
    wait_for(lambda: shoal.stack(worker).count("coroutine runs `AsyncWorker.wait`") == 3)
    assert "AsyncWorker._for_ever" in shoal.stack(worker)
    threaded = ThreadedWorker.remote()
    shoal.get(threaded.ping.remote(), timeout=TIMEOUT)
    calls = [threaded.wait.remote(tmp_path / "gate") for _ in range(2)]
    wait_for(lambda: shoal.stack(threaded).count("runs `ThreadedWorker.wait`") == 2)
    (tmp_path / "gate").touch()
    shoal.get(calls, timeout=TIMEOUT)
    for ref in waiting:
        shoal.cancel(ref)


def test_an_interpreter_that_is_stuck_in_c_is_looked_into_all_the_same(worker, scene: Scene, tmp_path: Path) -> None:
    ref = worker.stuck.remote(tmp_path / "begun")
    wait_for((tmp_path / "begun").exists)
    text = shoal.stack(worker)
    assert "its interpreter answers nothing" in text
    assert ("by py-spy" if scene.with_py_spy else "by its fault handler") in text
    (frame,) = [line for line in text.splitlines() if line.startswith(">")]
    assert "stuck" in frame and "test_stacks_and_profiles.py" in frame
    assert shoal.get(ref, timeout=120) == 1


def test_a_stopped_process_is_told_and_not_waited_for(worker, scene: Scene) -> None:
    pid = shoal.get(worker.pid.remote(), timeout=TIMEOUT)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        began = time.monotonic()
        text = shoal.stack(worker)
        assert time.monotonic() - began < 10
        assert "it is stopped (SIGSTOP" in text and f"kill -CONT {pid}" in text
        if not scene.with_py_spy:
            assert "Its stacks cannot be shown: py-spy is not installed there" in text
            with pytest.raises(shoal.errors.ShoalError, match="gave no profile: it is stopped"):
                shoal.profile(worker, 0.2)
        assert psutil.Process(pid).status() == psutil.STATUS_STOPPED, "it stays as it was"
    finally:
        os.kill(pid, signal.SIGCONT)


def test_one_that_ends_meanwhile_is_no_error_of_the_cluster(scene: Scene, tmp_path: Path) -> None:
    worker, other = Worker.remote(), Worker.remote()
    shoal.get(other.pid.remote(), timeout=TIMEOUT)
    pid = shoal.get(worker.pid.remote(), timeout=TIMEOUT)
    row = next(row for row in shoal.snapshot()["actors"] if row["state"] == "alive" and row["id"] == worker._actor_id)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    with pytest.raises(shoal.errors.OptionError, match=r"runs in an executor"):
        while True:
            shoal.stack(row["id"])
    assert shoal.stack().startswith("executor exec-"), "the others are there"


def test_a_profile_shows_where_the_time_goes(worker, scene: Scene, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    ref = worker.spin.remote(gate)
    wait_for(lambda: "runs `Worker.spin`" in shoal.stack(worker))
    profile = shoal.profile(worker, seconds=1, rate=50)
    gate.touch()
    assert profile.samples.how == ("py-spy" if scene.with_py_spy else "the process itself")
    assert 0.5 < profile.samples.seconds < 5 and profile.samples.busy > 0
    rows = {row.function.rpartition(".")[2]: row for row in profile.top(30)}
    assert rows["spin"].total > 0.2 and rows["spin"].file == __file__
    assert not any("shoal/runtime" in row.file for row in rows.values())
    assert "spin" in profile.html and "spin" in repr(profile)
    written = json.loads(profile.speedscope(tmp_path / "profile.json").read_text())
    assert written["profiles"][0]["endValue"] > 0.2
    assert shoal.get(ref, timeout=TIMEOUT) > 0


def test_a_profile_of_somebody_who_waits_is_empty(worker) -> None:
    profile = shoal.profile(worker, seconds=0.3)
    assert "no thread was at work" in repr(profile)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seconds": 0}, "`seconds`"),
        ({"seconds": 61}, "up to 60"),
        ({"seconds": "long"}, "`seconds`"),
        ({"rate": 0}, "`rate`"),
        ({"rate": 5_000}, "1 to 1000"),
    ],
)
def test_bad_options_are_refused_at_once(worker, options, words: str) -> None:
    with pytest.raises(shoal.errors.OptionError, match=words):
        shoal.profile(worker, **options)


def test_a_profile_is_of_one_executor_and_stacks_of_any(worker) -> None:
    other = Worker.remote()
    shoal.get(other.pid.remote(), timeout=TIMEOUT)
    with pytest.raises(shoal.errors.OptionError, match="name one of them"):
        shoal.profile(None)
    assert shoal.stack().count("executor exec-") >= 2
    with pytest.raises(TypeError, match="`stack` takes a ref"):
        shoal.stack(7)
