"""The path to the part of a value that does not pickle."""

from __future__ import annotations

import threading
from typing import Any

import cloudpickle
import pytest

from shoal.runtime import pickle_path
from shoal.runtime.pickle_path import explain


class Holder:
    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)

    def method(self) -> None: ...


class Slotted:
    __slots__ = ("__weakref__", "empty", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()


class Base:
    __slots__ = "inherited"


class Derived(Base):
    __slots__ = ()


class Refuses:
    def __reduce__(self) -> Any:
        raise ValueError("I stay here")


def with_closure() -> Any:
    lock = threading.Lock()
    return lambda: lock


def with_default() -> Any:
    def work(x: int, lock: Any = threading.Lock()) -> Any:  # noqa: B008 - that is the point
        return x, lock

    return work


def with_keyword_default() -> Any:
    def work(x: int, *, lock: Any = threading.Lock()) -> Any:  # noqa: B008 - that is the point
        return x, lock

    return work


def derived() -> Derived:
    value = Derived()
    value.inherited = threading.Lock()  # type: ignore[misc]
    return value


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (threading.Lock(), "it"),
        (Holder(logger=Holder(_lock=threading.Lock())), "it.logger._lock"),
        ([1, {"a": (2, threading.Lock())}], "it[1]['a'][1]"),
        ({threading.Lock()}, "it{…}"),
        (Slotted(), "it.lock"),
        (derived(), "it.inherited"),
        (with_closure(), "it → lock (captured)"),
        (with_default(), "it → lock (default)"),
        ([1, with_closure()], "it[1] → lock (captured)"),
        (with_keyword_default(), "it → lock (default)"),
        (Holder(lock=threading.Lock()).method, "it.__self__.lock"),
        (Holder(deep=[Refuses()]), "it.deep[0]"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_path_leads_to_the_smallest_part(value: Any, path: str) -> None:
    found, reason = explain(value, "it")
    assert found == path
    assert "I stay here" in reason or "lock" in reason


def test_globals_that_a_function_uses_are_searched() -> None:
    namespace: dict[str, Any] = {"LOCK": threading.Lock(), "__name__": "__main__"}
    exec("def work():\n    return LOCK", namespace)
    assert explain(namespace["work"], "work")[0] == "work → LOCK (global)"


def test_parts_that_pickle_are_passed_over() -> None:
    value = Holder(first=[1, 2], second={"a": "b"}, last=threading.Lock())
    assert explain(value, "model")[0] == "model.last"


def test_a_value_that_contains_itself_is_no_trap() -> None:
    value: list[Any] = [1]
    value += [value, threading.Lock()]
    assert explain(value, "it")[0] == "it[2]"


def test_a_value_too_deep_is_said_to_be() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    path, reason = explain(value, "it")
    assert path.startswith("it[0][0]") and " … " in path and len(path) < 200
    assert "nested too deeply" in reason


def test_the_search_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_path, "MAX_PARTS", 10)
    value = [*range(100), threading.Lock()]
    path, reason = explain(value, "it")
    assert path == "it"
    assert "lock" in reason


def test_a_method_that_is_not_there_yet_is_passed_over() -> None:
    def work() -> Any:
        return late, lock

    lock = threading.Lock()
    if lock.locked():
        late = None
    assert explain(work, "work")[0] == "work → lock (captured)"


def test_what_pickles_is_not_explained_away() -> None:
    assert explain([1, 2], "it") == ("it", "it could not be pickled")
    assert cloudpickle.dumps([1, 2])
