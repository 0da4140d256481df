"""A cell runs: names, value, lines, displays, losses. No cluster: ``run_cell`` is a plain function."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import threading
import traceback
import types
import weakref
from typing import Any

import pytest

from shoal_kernel import cell as cells
from shoal_kernel.analysis import analyse
from shoal_kernel.cell import VALUE, CellResult, CellSource, CellSpec, run_cell
from shoal_kernel.packing import pack, unpack

HEAD = "%%remote --num-cpus 1\n"


def run_raw(body: str, **variables: Any) -> CellResult:
    code = "\n" + body
    source = CellSource(code=code, filename="<test-cell>", listing="# " + HEAD + body)
    analysis = analyse(code)
    spec = CellSpec(source, analysis.rebinds, analysis.has_value and not analysis.is_silenced)
    home = {"__name__": "__main__", **variables}
    return run_cell(spec, pack(analysis.reads, home, home))


def run(body: str, **variables: Any) -> tuple[Any, dict[str, Any]]:
    """Return the value and the names that come back."""
    received: dict[str, Any] = {}
    result = run_raw(body, **variables)
    assert unpack(result.package, {}, into=received) == {} and not result.losses
    received.update({name: sys.modules[module] for name, module in result.modules.items()})
    return received.pop(VALUE, None), received


@pytest.mark.parametrize(
    ("body", "value", "written"),
    [
        ("x + 1", 4, {}),
        ("x + 1;", None, {}),
        ("y = x", None, {"y": 3}),
        ("x = x", None, {"x": 3}),
        ("x += 1\nx", 4, {"x": 4}),
        ("if x > 5:\n    x = x", None, {}),
        ("for i in range(x):\n    last = i", None, {"i": 2, "last": 2}),
        ("if False:\n    y = 1", None, {}),
        ("xs.append(9)\nlen(xs)", 3, {}),
        ("xs += [9]", None, {"xs": [1, 2, 9]}),
        ("xs[0] = 9", None, {"xs": [9, 2]}),
        ("del x", None, {}),
        ("y = 1\ndel y", None, {}),
        ("def f():\n    global n\n    n = 1\nf()\ndel f", None, {"n": 1}),
        ("globals()['made'] = 1", None, {"made": 1}),
        ("a: int = 1", None, {"a": 1}),
        ("import math\nmath.floor(2.5)", 2, {"math": sys.modules["math"]}),
        ("from math import floor as fl", None, {"fl": __import__("math").floor}),
        ("None", None, {}),
        ("import asyncio\nawait asyncio.sleep(0)\nfuture = asyncio.get_running_loop()\nx", 3, None),
        ("async def f():\n    return 7\nr = await f()\nawait f() + r", 14, None),
    ],
)
def test_value_and_written_names(body: str, value: Any, written: dict[str, Any] | None) -> None:
    if written is None:
        result = run_raw(body, x=3)
        received: dict[str, Any] = {}
        unpack(result.package, {}, into=received)
        assert received[VALUE] == value
    else:
        assert run(body, x=3, xs=[1, 2]) == (value, written)


def test_nothing_of_a_cell_stays_in_the_executor() -> None:
    made: list[weakref.ref[Any]] = []
    sys.modules["canary"] = types.ModuleType("canary")
    sys.modules["canary"].watch = lambda value: made.append(weakref.ref(value))  # type: ignore[attr-defined]
    try:
        run_raw("import canary\nclass C: pass\nc = C()\ncanary.watch(c)\ndef f(): return c\nprint(f().__class__);")
    finally:
        del sys.modules["canary"]
    assert made[0]() is None, "freed without the garbage collector"


def test_a_thread_that_outlives_the_cell_keeps_its_names() -> None:
    body = """
import threading
go, done, seen = threading.Event(), threading.Event(), []
late = 5
def later():
    go.wait(10)
    seen.append(late)
    done.set()
thread = threading.Thread(target=later)
thread.start()
threading.later_events = go, done, seen
"""
    run_raw(body)
    go, done, seen = threading.later_events  # type: ignore[attr-defined]
    del threading.later_events  # type: ignore[attr-defined]
    go.set()
    assert done.wait(10) and seen == [5]


def test_the_namespace_is_a_main_module_of_its_own() -> None:
    before = sys.modules["__main__"]
    body = "import sys, __main__ as m\nk = 1\n(__name__, m.k, vars(m) is globals())"
    assert run(body)[0] == ("__main__", 1, True)
    assert sys.modules["__main__"] is before


def test_dataclasses_and_pickle_find_the_cells_classes() -> None:
    body = """
from __future__ import annotations
import dataclasses, pickle, typing
@dataclasses.dataclass
class P:
    x: typing.ClassVar[int] = 1
    y: int = 2
pickle.loads(pickle.dumps(P(5))).y, len(dataclasses.fields(P))
"""
    assert run_raw(body).losses == ()
    received: dict[str, Any] = {}
    unpack(run_raw(body).package, {}, into=received)
    assert received[VALUE] == (5, 1)
    assert dataclasses.is_dataclass(received["P"])


def test_an_error_has_the_cells_own_lines() -> None:
    body = "def f(a):\n    return 1 / a\n\nf(0)\n"
    with pytest.raises(ZeroDivisionError) as caught:
        run_raw(body)
    frames = [frame for frame in traceback.extract_tb(caught.value.__traceback__) if frame.filename == "<test-cell>"]
    assert [(frame.name, frame.lineno, frame.line) for frame in frames] == [
        ("<module>", 5, "f(0)"),
        ("f", 3, "return 1 / a"),
    ]


def test_source_of_the_cells_functions_can_be_read() -> None:
    received: dict[str, Any] = {}
    result = run_raw("def f():\n    return 1\nimport inspect\ninspect.getsource(f)")
    unpack(result.package, {}, into=received)
    assert received[VALUE] == "def f():\n    return 1\n" == inspect.getsource(received["f"])


def test_what_does_not_pickle_is_named_and_the_rest_comes() -> None:
    body = """
import threading
class Logger: pass
class Model: pass
model = Model()
model.logger = Logger()
model.logger._lock = threading.Lock()
fine = 5
(i for i in range(3))
"""
    result = run_raw(body)
    received: dict[str, Any] = {}
    unpack(result.package, {}, into=received)
    assert received["fine"] == 5 and "Model" in received
    assert {loss.name: loss.path for loss in result.losses} == {
        "model": "model.logger._lock",
        VALUE: "the value",
    }
    assert "pickle" in result.losses[0].reason
    assert result.shown is not None and result.shown[0]["text/plain"].startswith("<generator object")


def displays(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_display_is_the_cells_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import shoal.output

    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(
        shoal.output, "publish_display", lambda data, metadata: shown.append(json.loads(json.dumps(data)))
    )
    body = """
from IPython.display import HTML, display as show
display(HTML("<b>1</b>"))
show(2)
import matplotlib.pyplot as plt
plt.plot([1, 2])
plt.show()
fig, ax = plt.subplots()
ax.plot([1, 2]);
"""
    run_raw(body)
    kinds = [sorted(bundle) for bundle in shown]
    assert kinds == [
        ["text/html", "text/plain"],
        ["text/plain"],
        ["image/png", "text/plain"],
        ["image/png", "text/plain"],
    ]
    assert shown[0]["text/html"] == "<b>1</b>" and shown[1]["text/plain"] == "2"
    from IPython.display import display

    assert display.__module__ == "IPython.core.display_functions", "IPython's own is back"


def test_a_figure_that_is_the_value_is_not_shown_twice(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    result = run_raw("import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1])\nfig")
    assert displays(capsys) == [] and VALUE in result.package.names


def test_folders_of_the_notebook_are_searched(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    cells.add_paths((str(tmp_path), str(tmp_path / "absent"), sys.path[0]))
    assert sys.path[-1] == str(tmp_path)


def test_importing_the_module_loads_nothing_heavy() -> None:
    import subprocess

    code = "import sys, shoal_kernel.cell as c; print([m for m in ('IPython', 'numpy', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout == "[]\n"
