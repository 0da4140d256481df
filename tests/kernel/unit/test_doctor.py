"""The doctor says which variables travel, and what is at fault where one does not."""

from __future__ import annotations

import os
import sys
import threading
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shoal_kernel import doctor
from shoal_kernel.doctor import diagnose


class Part:
    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


class Dies:
    def __reduce__(self) -> Any:
        os._exit(1)


class Hangs:
    def __reduce__(self) -> Any:
        while True:
            pass


def rows(namespace: dict[str, Any], *names: str) -> dict[str, tuple[str, ...]]:
    return {row[0]: row[1:] for row in diagnose(namespace, names or None).rows}


def test_each_variable_is_told_with_its_size_and_its_way() -> None:
    found = rows({"n": 1, "text": "abc", "big": np.zeros(100_000), "_private": 3, "In": []})
    assert set(found) == {"n", "text", "big"}
    assert found["n"][0] == "int" and found["n"][1] == "yes" and found["n"][3] == "inside the message"
    assert (
        found["big"][:3] == ("numpy.ndarray", "yes", "781 KiB") and "needs the module `numpy` there" in found["big"][3]
    )
    assert rows({"text": "x" * 200_000})["text"][3] == "through the object store"


def test_the_part_at_fault_is_named() -> None:
    model = Part(logger=Part(_lock=threading.Lock()))
    found = rows({"model": model, "items": [1, {"k": threading.Lock()}], "fine": 2})
    assert found["model"][1] == "no" and "`model.logger._lock`: cannot pickle" in found["model"][3]
    assert "`items[1]['k']`" in found["items"][3]
    assert list(found)[-1] == "fine", "what does not travel comes first"


def test_functions_of_the_notebook_travel_and_what_they_capture_is_named() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    source = "import threading\ndef make():\n    lock = threading.Lock()\n    return lambda: lock\nholds = make()"
    exec(source, namespace)
    found = rows(namespace, "make", "holds", "threading")
    assert found["make"][1] == "yes" and found["threading"][3] == "imported there"
    assert found["holds"][1] == "no" and "lock" in found["holds"][3]


def test_what_is_large_in_a_function_is_named() -> None:
    table = np.zeros(1_000_000)

    def work(n: int, weights: Any = np.ones(20_000)) -> Any:  # noqa: B008 - that is the point
        return table[n] * weights

    work.__module__ = "__main__"
    (found,) = rows({"work": work}).values()
    assert found[1] == "yes" and found[3].startswith("through the object store; ")
    assert "captures `table`, 7.6 MiB" in found[3] and "has the default `weights`, 156 KiB" in found[3]


def test_modules_beside_the_notebook_may_be_missing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_doctor.py").write_text("class Thing: pass")
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("beside_doctor")
    try:
        found = rows({"module": module, "thing": module.Thing(), "os": os})
    finally:
        del sys.modules["beside_doctor"]
    for name in ("module", "thing"):
        assert found[name][1] == "perhaps"
        assert "`beside_doctor` is no installed package, so the cluster may not have it" in found[name][3]
    assert found["os"][1] == "yes"


def test_variables_that_hang_or_kill_cost_themselves_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    found = rows({"a": 1, "dies": Dies(), "b": 2, "hangs": Hangs(), "c": 3})
    assert [found[name][1] for name in ("a", "dies", "b", "hangs", "c")] == ["yes", "no", "yes", "no", "yes"]
    assert "ends the process that does it" in found["dies"][3]


def test_it_reads_as_text_and_as_html() -> None:
    table = diagnose({"a": "<b>", "m": types.SimpleNamespace(x=threading.Lock())}, ["a", "m", "missing"])
    assert "`m.x`" in str(table) and "There is no variable `missing`." in str(table)
    assert "<td>a</td>" in table._repr_html_() and 'aria-label="variables"' in table._repr_html_()


def test_an_empty_notebook_is_no_trouble() -> None:
    assert str(diagnose({})) == "There are no variables yet."
