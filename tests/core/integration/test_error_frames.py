"""The variables of remote frames arrive with errors, from every kind of work, on both kinds of cluster."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import shoal
from shoal.runtime.frames import has_travelled, has_variables, task_of
from shoal.runtime.stand_ins import StandIn

Cluster = shoal.Cluster


def frame_of(name: str, call: Callable[[], Any]) -> FrameType:
    """Return the frame of function *name* that an error has passed through."""
    with pytest.raises(ZeroDivisionError) as caught:
        call()
    return _frame(caught.value, name)


def _frame(error: BaseException, name: str) -> FrameType:
    link = error.__traceback__
    while link is not None:
        if link.tb_frame.f_code.co_name == name and has_travelled(link.tb_frame):
            return link.tb_frame
        link = link.tb_next
    pytest.fail(f"no frame of `{name}` has travelled")


@shoal.remote(max_retries=0)
def divide(a: int, b: int) -> float:
    total = a + b
    return total / b


@shoal.remote
class Model:
    def __init__(self) -> None:
        self.size = 4

    def train(self, rate: int) -> float:
        return self.size / rate


@shoal.remote
class Waiting:
    size = 4

    async def later(self, rate: int) -> float:
        await asyncio.sleep(0)
        return self.size / rate


class Settings:
    """Travels by reference to this module, where it can be imported, and by value where it cannot."""

    def __init__(self, depth: int) -> None:
        self.depth = depth


class DiesWhenShown:
    def __reduce__(self) -> Any:
        os._exit(7)

    def __repr__(self) -> str:
        os._exit(7)


class HangsWhenShown:
    def __reduce__(self) -> Any:
        time.sleep(600)

    def __repr__(self) -> str:
        time.sleep(600)
        return ""


def test_of_tasks(cluster: Cluster) -> None:
    frame = frame_of("divide", lambda: shoal.get(divide.remote(7, 0)))
    assert dict(frame.f_locals) == {"a": 7, "b": 0, "total": 7}
    assert has_variables(frame) and task_of(frame).startswith("task-")


def test_of_calls_of_actors(cluster: Cluster) -> None:
    model = Model.remote()
    frame = frame_of("train", lambda: shoal.get(model.train.remote(0)))
    assert frame.f_locals["self"].size == 4 and frame.f_locals["rate"] == 0


def test_of_calls_that_wait(cluster: Cluster) -> None:
    model = Waiting.remote()
    frame = frame_of("later", lambda: shoal.get(model.later.remote(0)))
    assert frame.f_locals["self"].size == 4


def test_of_generators(cluster: Cluster) -> None:
    @shoal.remote
    def count(n: int) -> Iterator[float]:
        for step in range(n):
            yield step / (step - 1)

    def take_all() -> None:
        for ref in count.remote(3):
            shoal.get(ref)

    assert dict(frame_of("count", take_all).f_locals) == {"n": 3, "step": 1}


def test_of_tasks_in_tasks(cluster: Cluster) -> None:
    @shoal.remote(num_cpus=0)
    def outer(a: int) -> Any:
        settings = Settings(a)
        return shoal.get(divide.remote(settings.depth, 0))

    error = frame_of("divide", lambda: shoal.get(outer.remote(5)))
    assert error.f_locals["total"] == 5
    frame = frame_of("outer", lambda: shoal.get(outer.remote(6)))
    assert frame.f_locals["settings"].depth == 6


def test_of_arguments_in_the_store(cluster: Cluster) -> None:
    np = pytest.importorskip("numpy")

    @shoal.remote
    def use(data: Any, ref: Any) -> float:
        return data.shape[0] / len(ref[0:0])

    frame = frame_of("use", lambda: shoal.get(use.remote(shoal.put(np.ones((300, 300))), [shoal.put(1)])))
    data = frame.f_locals["data"]
    assert isinstance(data, StandIn) and data.shape == (300, 300) and data.dtype == "float64"
    assert isinstance(frame.f_locals["ref"][0], StandIn)


def test_values_that_hang_or_kill_do_neither(cluster: Cluster) -> None:
    @shoal.remote(max_retries=0)
    def fail(good: int) -> float:
        dies, hangs = DiesWhenShown(), HangsWhenShown()
        return good / len([dies, hangs][2:])

    begin = time.monotonic()
    frame = frame_of("fail", lambda: shoal.get(fail.remote(3)))
    assert time.monotonic() - begin < 10.0
    assert frame.f_locals["good"] == 3
    assert "DiesWhenShown" in repr(frame.f_locals["dies"]) and "HangsWhenShown" in repr(frame.f_locals["hangs"])


def test_many_errors_do_not_fill_the_driver(embedded: Cluster) -> None:
    @shoal.remote(max_retries=0)
    def fail(number: int) -> float:
        def sink(depth: int) -> float:
            ballast = bytes([depth]) * 60_000
            return sink(depth - 1) if depth else number / (len(ballast) - 60_000)

        return sink(17)

    errors = shoal.get([fail.remote(number) for number in range(300)], return_exceptions=True)
    having = [error for error in errors if has_variables(_frame(error, "fail"))]
    assert 2 <= len(having) < 300, "each process sends some with variables, and then few"


class CountsLooks:
    """Notes each time that it is pickled, which takes another process than the task's."""

    def __init__(self, log: str) -> None:
        self.log = log

    def __reduce__(self) -> Any:
        with open(self.log, "a") as file:
            file.write("x")
        return CountsLooks, (self.log,)


def test_only_the_last_attempt_sends_variables(cluster: Cluster, tmp_path: Path) -> None:
    log = str(tmp_path / "looks")

    @shoal.remote(max_retries=2, retry_exceptions=True)
    def fail(path: str) -> float:
        it = CountsLooks(path)
        return 1 / len(it.log[:0])

    frame = frame_of("fail", lambda: shoal.get(fail.remote(log)))
    assert frame.f_locals["it"].log == log
    assert Path(log).read_text() == "x"


def test_breakpoints_in_executors_say_what_to_do(cluster: Cluster) -> None:
    @shoal.remote(max_retries=0)
    def stop_here() -> None:
        breakpoint()

    with pytest.raises(RuntimeError, match=r"nobody can talk to one in an executor.*--inline"):
        shoal.get(stop_here.remote())
