"""Variables travel between namespaces."""

from __future__ import annotations

import functools
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shoal_kernel.packing import Package, UnpicklableVariable, pack, unpack


def notebook(source: str, **variables: Any) -> dict[str, Any]:
    """Return the namespace that *source* makes, as a notebook's."""
    namespace: dict[str, Any] = {"__name__": "__main__", **variables}
    exec(compile(source, "<notebook>", "exec", dont_inherit=True), namespace)
    return namespace


def sent(package: Package) -> Package:
    """What arrives at the other side of a message: buffers inside it are read-only."""
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(package, protocol=5, buffer_callback=buffers.append)
    received: Package = pickle.loads(data, buffers=[bytes(buffer) for buffer in buffers])
    return received


def travel(names: list[str], home: dict[str, Any], away: dict[str, Any] | None = None) -> dict[str, Any]:
    away = {"__name__": "__main__"} if away is None else away
    assert unpack(sent(pack(names, home, home)), away) == {}
    return away


def test_functions_see_the_namespace_they_arrive_in() -> None:
    away = travel(["f"], notebook("def f(): return later"))
    away["later"] = 5
    assert away["f"]() == 5
    assert away["f"].__globals__ is away


def test_what_functions_read_comes_along_under_its_own_name() -> None:
    home = notebook("a, b, unused = 1, 2, 3\ndef f(): return g() + a\ndef g(): return [b for _ in [1]][0]")
    away = travel(["f"], home)
    assert away["f"]() == 3
    assert {"a", "b", "f", "g"} <= away.keys() and "unused" not in away


def test_deep_functions_are_bound_too() -> None:
    home = notebook(
        """
import functools
def logged(function):
    @functools.wraps(function)
    def wrapper(*args): return function(*args), tag
    return wrapper
@logged
def f(x): return x + k
class A:
    @property
    def p(self): return k
    @staticmethod
    def s(): return k
    @classmethod
    def c(cls): return k
    def m(self): return k
a = A()
part = functools.partial(f, 1)
table = {"f": [f]}
def fact(n): return 1 if n < 2 else n * fact(n - 1)
def recursive():
    def inner(n): return 0 if n == 0 else inner(n - 1) + k
    return inner
r = recursive()
""",
    )
    away = travel(["f", "a", "part", "table", "fact", "r"], home)
    away.update(k=7, tag="!")
    assert away["f"](1) == (8, "!")
    assert (away["a"].p, away["a"].s(), away["a"].c(), away["a"].m()) == (7, 7, 7, 7)
    assert away["part"]() == (8, "!") and away["table"]["f"][0](0) == (7, "!")
    assert away["fact"](5) == 120 and away["r"](2) == 14


def test_a_function_keeps_what_it_is() -> None:
    home = notebook('def f(a: int, b=[1], *, c="x") -> str:\n    "doc"\n    return a\nf.note = {"k": f}')
    f = travel(["f"], home)["f"]
    assert (f.__name__, f.__qualname__, f.__doc__, f.__module__) == ("f", "f", "doc", "__main__")
    assert (f.__defaults__, f.__kwdefaults__, f.__annotations__) == (([1],), {"c": "x"}, {"a": int, "return": str})
    assert f.note["k"] is f


def test_an_empty_closure_cell_stays_empty() -> None:
    f = travel(["f"], notebook("def make():\n    def f(): return x\n    return f\n    x = 1\nf = make()"))["f"]
    with pytest.raises(NameError):
        f()


def test_shared_objects_stay_shared() -> None:
    away = travel(["a", "b"], notebook("a = []; b = {'a': a}"))
    assert away["b"]["a"] is away["a"]


@pytest.mark.parametrize("size", [3, 50_000])
def test_arrays_arrive_writable_and_are_copies(size: int) -> None:
    home = {"x": np.arange(size)}
    away = travel(["x"], home)
    away["x"][0] = 99
    assert home["x"][0] == 0 and away["x"].shape == (size,)


def test_arrays_stay_out_of_the_pickle() -> None:
    package = pack(["x"], {"x": np.zeros(1_000_000)}, {})
    assert memoryview(package.stream).nbytes < 1_000
    assert sum(memoryview(buffer).nbytes for buffer in package.buffers) == 8_000_000


def test_an_unpicklable_variable_is_named_with_its_reader() -> None:
    home = notebook("def f(): return lock", lock=threading.Lock())
    with pytest.raises(UnpicklableVariable) as caught:
        pack(["f"], home, home)
    assert (caught.value.name, caught.value.reader) == ("lock", "f")
    assert isinstance(caught.value.__cause__, TypeError)


class Stubborn:
    """Packs, and does not unpack."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return _refuse, ("no",)


def _refuse(word: str) -> None:
    raise ImportError(word)


def test_what_cannot_be_rebuilt_does_not_take_the_rest_with_it() -> None:
    shared = ["shared"]
    home = {"a": [np.arange(3), shared], "bad": [np.ones(2), Stubborn()], "c": [np.arange(4), shared]}
    away: dict[str, Any] = {}
    failures = unpack(sent(pack(["a", "bad", "c"], home, {})), away)
    assert list(failures) == ["bad"] and str(failures["bad"]) == "no"
    assert away["c"][0].tolist() == [0, 1, 2, 3] and away["c"][1] is away["a"][1]


def test_what_shares_with_something_lost_is_lost_too() -> None:
    bad = [np.ones(2), Stubborn()]
    away: dict[str, Any] = {}
    failures = unpack(sent(pack(["bad", "b", "c"], {"bad": bad, "b": [bad[0]], "c": ["x", "x"]}, {})), away)
    assert failures.keys() == {"bad", "b"} and "shares" in str(failures["b"]) and away == {"c": ["x", "x"]}


def test_names_that_are_missing_or_skipped_stay() -> None:
    package = pack(["a", "gone", "own"], {"a": 1, "own": 2}, {}, skip=lambda name, value: name == "own")
    assert package.names == ("a",)


def test_follow_can_be_turned_off() -> None:
    home = notebook("k = 1\ndef f(): return k")
    assert pack(["f"], home, home, follow=False).names == ("f",)


def test_partials_of_the_library_are_left_alone() -> None:
    away = travel(["f"], {"f": functools.partial(max, 1)})
    assert away["f"](3) == 3
