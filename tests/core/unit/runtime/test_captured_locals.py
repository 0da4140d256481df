"""The variables of an error's frames travel with it, as far as they can."""

from __future__ import annotations

import gc
import os
import pdb
import pickle
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from shoal.runtime import captured_locals, remote_errors
from shoal.runtime.allowance import Allowance
from shoal.runtime.context import TaskContext, set_current
from shoal.runtime.refs import ObjectRef
from shoal.runtime.stand_ins import StandIn

Frames = dict[str, types.FrameType]

#: What stands for a notebook cell.
SOURCE = """\
import math
scale = 3
def inner(x):
    words = [x, "b"]
    return scale * words["c"]
def outer(y):
    inner(y + 1)
outer(1)
"""


@pytest.fixture(autouse=True)
def in_a_task(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(captured_locals, "_allowance", Allowance(burst=60.0, share=1.0))
    # However busy the machine is: what the limits do is for the tests that ask for them.
    monkeypatch.setattr(captured_locals, "MAX_SECONDS", 60.0)
    monkeypatch.setattr(captured_locals, "PATIENCE", 60.0)
    set_current(TaskContext("task-1", "f", "", None, "", 0, 0))
    yield
    set_current(None)


LIMITS = {name: getattr(captured_locals, name) for name in ("MAX_SECONDS", "PATIENCE")}


@pytest.fixture
def limits(in_a_task: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be as impatient as promised."""
    for name, value in LIMITS.items():
        monkeypatch.setattr(captured_locals, name, value)


@pytest.fixture
def wide_limits(in_a_task: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Be patient with a busy machine, but not for ever."""
    for name, value in LIMITS.items():
        monkeypatch.setattr(captured_locals, name, 6 * value)


def travel(function: Callable[..., Any], *args: Any) -> Frames:
    """Return the frames, by the name of their code, of the error that a call ends with."""
    return frames_of(remote_errors.load(error_of(function, *args)))


def error_of(function: Callable[..., Any], *args: Any) -> bytes:
    try:
        function(*args)
    except BaseException as error:
        assert error.__traceback__ is not None
        error.__traceback__ = error.__traceback__.tb_next  # as the task's process leaves out what leads to the task
        Nasty.armed = True
        try:
            return remote_errors.dump(error)
        finally:
            Nasty.armed = False
    pytest.fail("nothing was raised")


def frames_of(error: BaseException | None) -> Frames:
    assert error is not None
    found, link = {}, error.__traceback__
    while link is not None:
        found[link.tb_frame.f_code.co_name] = link.tb_frame
        link = link.tb_next
    return found


def value_of(value: Any) -> Any:
    """Return a value as the debugger finds it that was a local variable when an error was raised."""

    def fail(x: Any) -> None:
        raise KeyError

    return travel(fail, value)["fail"].f_locals["x"]


@pytest.fixture
def cell() -> Frames:
    namespace = {"__name__": "__main__"}
    return travel(exec, compile(SOURCE, "<cell>", "exec", dont_inherit=True), namespace)


def test_each_frame_has_its_variables(cell: Frames) -> None:
    assert dict(cell["inner"].f_locals) == {"x": 2, "words": [2, "b"]}
    assert dict(cell["outer"].f_locals) == {"y": 1}
    assert set(cell["<module>"].f_locals) == {"math", "scale", "inner", "outer"}


def test_expressions_are_evaluated_with_real_values(cell: Frames) -> None:
    inner = cell["inner"]
    for expression, value in [
        ("x + len(words)", 4),
        ("scale * x", 6),
        ("[x * k for k in range(3)]", None),
        ("(lambda: scale)()", 3),
        ("sorted(locals())", ["words", "x"]),
    ]:
        if value is not None:
            assert eval(expression, inner.f_globals, inner.f_locals) == value
    module = cell["<module>"]
    assert eval("[scale * k for k in (1, 2)]", module.f_globals, module.f_locals) == [3, 6]
    assert eval("math.sqrt(4)", module.f_globals, module.f_locals) == 2.0
    with pytest.raises(NameError):
        eval("missing", inner.f_globals, inner.f_locals)


def test_variables_can_be_changed_for_a_while(cell: Frames) -> None:
    inner = cell["inner"]
    exec("x = 5; z = x + 1; del words", inner.f_globals, inner.f_locals)
    assert dict(inner.f_locals) == {"x": 5, "z": 6} and "words" not in inner.f_locals
    with pytest.raises(NameError):
        eval("words", inner.f_globals, inner.f_locals)


def test_pdb_walks_and_prints(cell: Frames, capsys: pytest.CaptureFixture[str]) -> None:
    traceback = None
    for frame in reversed(list(cell.values())):
        traceback = types.TracebackType(traceback, frame, frame.f_lasti, frame.f_lineno)
    debugger = pdb.Pdb(nosigint=True, readrc=False)
    debugger.cmdqueue = ["p x, words", "pp words", "whatis words", "up", "p y", "up", "p scale", "down", "p y", "q"]
    debugger.reset()
    debugger.interaction(None, traceback)
    said = capsys.readouterr().out
    for line in ("(2, [2, 'b'])", "<class 'list'>", "<cell>(7)outer()"):
        assert line in said
    assert said.count("\n1\n") == 2 and "\n3\n" in said


# -- frames of all kinds -----------------------------------------------------------------------------------------


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def far(self, by: int) -> float:
        return self.x / by


def test_methods_closures_and_star_arguments() -> None:
    free = "from outside"

    def fail(*args: int, key: str, **rest: int) -> str:
        late = None
        Point(3).far(0)
        return f"{free}{late}"

    found = travel(lambda: fail(1, 2, key="k", other=3))
    assert dict(found["fail"].f_locals) == {
        "args": (1, 2),
        "key": "k",
        "rest": {"other": 3},
        "late": None,
        "free": "from outside",
    }
    assert found["far"].f_locals["self"].x == 3 and found["far"].f_locals["by"] == 0


def test_class_bodies_generators_and_comprehensions() -> None:
    def body() -> None:
        class Broken:
            size = 4
            rest = size / 0

    def generate() -> Iterator[int]:
        step = 2
        yield step
        yield step // 0

    def comprehend() -> list[float]:
        n = 0
        return [item / n for item in (7, 8)]

    assert travel(body)["Broken"].f_locals["size"] == 4
    assert travel(lambda: list(generate()))["generate"].f_locals["step"] == 2
    found = travel(comprehend)
    frame = found.get("<listcomp>", found["comprehend"])  # a frame of its own up to Python 3.11
    assert frame.f_locals["item"] == 7 and frame.f_locals["n"] == 0 and ".0" not in frame.f_locals


def test_the_chain_has_its_variables_too() -> None:
    def first() -> None:
        why = "first"
        raise KeyError(why)

    def second() -> None:
        try:
            first()
        except KeyError as error:
            what = "second"
            raise ValueError(what) from error

    error = remote_errors.load(error_of(second))
    assert frames_of(error)["second"].f_locals["what"] == "second"
    assert frames_of(error.__cause__)["first"].f_locals["why"] == "first"


def test_values_in_several_frames_stay_one_value() -> None:
    def inner(thing: Any) -> None:
        raise KeyError

    def outer(it: Any) -> None:
        inner(it)

    found = travel(outer, Point(1))
    assert found["inner"].f_locals["thing"] is found["outer"].f_locals["it"]


def test_frames_of_libraries_come_after_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    def user(point: Any) -> Any:
        return pickle._loads(b"")  # type: ignore[attr-defined]

    assert travel(user, Point(2))["_loads"].f_locals["s"] == b""
    monkeypatch.setattr(captured_locals, "MAX_VALUES", 2)
    found = travel(user, Point(2))
    assert found["user"].f_locals["point"].x == 2 and "s" not in found["_loads"].f_locals


# -- what travels as it is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1, "text", b"bytes", [1, {"a": (2, None)}], {1, 2}, 10**40, types, np.float64(2.5)])
def test_plain_values(value: Any) -> None:
    assert value_of(value) == value


def test_arrays_and_tensors_come_writable() -> None:
    array = value_of(np.arange(6).reshape(2, 3))
    array[0, 0] = 9
    assert array.tolist() == [[9, 1, 2], [3, 4, 5]]
    tensor = value_of({"t": torch.ones(2, 2)})["t"]
    tensor += 1
    assert tensor.sum().item() == 8.0
    row = value_of(torch.zeros(1_000, 1_000)[3, :5])
    assert row.shape == (5,), "a small view of a large tensor is small"


def test_plain_values_need_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        pytest.fail("a child was asked")

    monkeypatch.setattr(captured_locals, "run_guarded", refuse)
    assert value_of([1, {"a": np.ones(2)}])[0] == 1


def test_classes_of_a_notebook_travel_by_value() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("class Mine:\n    def twice(self, n):\n        return 2 * n\nmine = Mine()", namespace)
    assert value_of(namespace["mine"]).twice(4) == 8


# -- what does not -------------------------------------------------------------------------------------------------


def stand_in_of(value: Any) -> StandIn:
    found = value_of(value)
    assert isinstance(found, StandIn)
    return found


def test_large_values_are_described() -> None:
    array = stand_in_of(np.zeros((1000, 1000)))
    assert (array.kind, array.shape, array.dtype, array.size) == ("numpy.ndarray", (1000, 1000), "float64", "7.6 MiB")
    assert repr(array).startswith(
        "<numpy.ndarray (shape (1000, 1000), float64, 7.6 MiB) stayed remote: it is large> array([[0., 0., 0., ..."
    )
    tensor = stand_in_of(torch.zeros(1000, 300))
    assert (tensor.shape, tensor.dtype, tensor.size) == ((1000, 300), "torch.float32", "1.1 MiB")
    assert repr(stand_in_of(list(range(10**6)))).startswith(
        "<list (1,000,000 items) stayed remote: it is large> [0, 1,"
    )
    text = repr(stand_in_of("x" * 10**7))
    assert "str (9.5 MiB)" in text and len(text) < 600


def test_a_strided_view_of_much_is_not_copied() -> None:
    assert stand_in_of(np.zeros((3000, 3000))[:, ::2]).shape == (3000, 1500)


def test_what_does_not_pickle_is_described() -> None:
    lock = stand_in_of(threading.Lock())
    assert "does not pickle (TypeError)" in repr(lock) and "unlocked _thread.lock" in repr(lock)
    assert stand_in_of([1, threading.Lock()]).text.startswith("[1, <unlocked")


class Silent:
    """Stands where an owner would."""

    dropped: list[str]

    def __init__(self) -> None:
        self.dropped = []

    def drop_nowait(self, object_id: str) -> None:
        self.dropped.append(object_id)

    def location_of(self, object_id: str) -> None: ...


def test_refs_stay_and_are_let_go() -> None:
    owner = Silent()
    ref = ObjectRef("obj-1", "tls://127.0.0.1:1", owner)  # type: ignore[arg-type]
    found = value_of({"ref": ref, "n": 1})
    assert found["n"] == 1 and isinstance(found["ref"], StandIn) and "ObjectRef" in repr(found["ref"])
    del ref
    gc.collect()  # the error's frames
    assert owner.dropped == ["obj-1"]


class Nasty:
    """Does what the test says when it is looked at in any way, while an error is on its way."""

    armed = False

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def __reduce__(self) -> Any:
        return self.act()

    def __repr__(self) -> str:
        return str(self.act()) if self.armed else "Nasty"


def run_for_ever() -> None:
    while True:
        pass


def exit_at_once() -> None:
    os._exit(1)


@pytest.mark.parametrize("act", [run_for_ever, exit_at_once, lambda: time.sleep(600), lambda: sys.exit(1)])
def test_code_that_hangs_or_kills_is_survived(wide_limits: None, act: Callable[[], Any]) -> None:
    def fail(good: int, bad: Any, also: Any) -> None:
        raise KeyError("the error")

    begin = time.monotonic()
    found = travel(fail, 1, Nasty(act), Point(2))
    assert time.monotonic() - begin < 12.0
    frame = found["fail"]
    assert frame.f_locals["good"] == 1 and frame.f_locals["also"].x == 2
    assert isinstance(frame.f_locals["bad"], StandIn) and "Nasty" in repr(frame.f_locals["bad"])


def test_no_error_takes_more_than_a_second(limits: None) -> None:
    def fail(*bad: Any) -> None:
        a, b, c, d, e, f, g, h = bad
        raise KeyError(len([a, b, c, d, e, f, g, h]))

    begin = time.monotonic()
    found = travel(fail, *(Nasty(run_for_ever) for _ in range(8)))
    assert time.monotonic() - begin < 2.0
    assert isinstance(found["fail"].f_locals["h"], StandIn)


def test_an_error_has_an_upper_size() -> None:
    def fail(parts: Any) -> None:
        a, b, c, d, e, f, g, h, i, j, k, m, n, o, p, q, r, s, t, u = parts
        raise KeyError(len(a + b + c + d + e + f + g + h + i + j + k + m + n + o + p + q + r + s + t + u))

    data = error_of(fail, [bytes([number]) * 60_000 for number in range(20)])
    assert len(data) < captured_locals.MAX_TOTAL + 20_000
    variables = frames_of(remote_errors.load(data))["fail"].f_locals
    assert variables["b"] == b"\x01" * 60_000 and "no more room" in repr(variables["t"])


def test_it_holds_when_values_hang_or_end_the_process_that_looks_at_them(wide_limits: None) -> None:
    def fail(*parts: Any) -> None:
        a, b, c, d, e, f, g, h, i, j, k, m = parts
        raise KeyError(len([a, b, c, d, e, f, g, h, i, j, k, m]))

    parts: list[Any] = []
    for number in range(3):
        parts += [*([bytes([16 * number + part]) * 9_000 for part in range(6)] for _ in range(3)), Nasty(exit_at_once)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captured_locals, "MAX_TOTAL", 200_000)
        data = error_of(fail, *parts)
    assert len(data) < 200_000 + 20_000
    variables = frames_of(remote_errors.load(data))["fail"].f_locals
    assert variables["c"] == parts[2], "before the first that ends the process"
    assert "ended the process" in repr(variables["d"]) and "ended the process" in repr(variables["h"])
    assert "no more room" in repr(variables["k"]), "after the second"


def test_names_and_texts_count_as_well() -> None:
    long = type("é" * 5_000, (), {"__repr__": lambda self: "€" * 10_000, "__reduce__": lambda self: 1 / 0})
    source = "\n".join([f"v{number} = kind()" for number in range(390)] + ["raise KeyError(1)"])

    def fail() -> None:
        exec(compile(source, "<cell>", "exec"), {"kind": long})

    data = error_of(fail)
    assert len(data) < captured_locals.MAX_TOTAL + 60_000
    variables = frames_of(remote_errors.load(data))["<module>"].f_locals
    assert all(isinstance(variables[f"v{number}"], StandIn) for number in (0, 200, 389))


class NotHere:
    """Cannot be rebuilt where the error arrives."""

    def __reduce__(self) -> Any:
        return __import__, ("a_module_that_nobody_has",)


def test_a_value_that_cannot_be_rebuilt_says_why_when_it_is_looked_at() -> None:
    assert "cannot be rebuilt here (ModuleNotFoundError" in repr(value_of(NotHere()))


def test_nothing_is_rebuilt_until_somebody_looks() -> None:
    def fail(it: Any) -> None:
        raise KeyError

    assert isinstance(remote_errors.load(error_of(fail, NotHere())), KeyError)
    frames = travel(fail, NotHere())
    assert list(frames["fail"].f_locals) == ["it"]


# -- when nothing travels ------------------------------------------------------------------------------------------


def test_it_can_be_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOAL_ERROR_LOCALS", "0")
    assert dict(travel(Point(1).far, 0)["far"].f_locals) == {}


def test_outside_of_tasks_nothing_is_captured() -> None:
    set_current(None)
    assert dict(travel(Point(1).far, 0)["far"].f_locals) == {}


def test_a_process_that_fails_all_the_time_stops_capturing(limits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured_locals, "_allowance", Allowance(burst=1e-9, share=0.0))
    assert travel(Point(1).far, 0)["far"].f_locals["by"] == 0
    assert dict(travel(Point(1).far, 0)["far"].f_locals) == {}


def test_no_error_is_lost_because_of_its_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(captured_locals, "capture", broken)
    assert isinstance(remote_errors.load(error_of(Point(1).far, 0)), ZeroDivisionError)
