"""``%%remote`` in a real kernel: names, values, errors, the stop button, bad input."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import pytest

Kernel = Any


def test_runs_elsewhere_and_brings_back_what_it_writes(kernel: Kernel) -> None:
    kernel.ok("here = os.getpid()\nscale = 3\ndef scaled(v):\n    return v * scale")
    outcome = kernel.ok("%%remote\nthere = os.getpid()\nresult = scaled(14)\nresult")
    assert outcome.value == "42"
    assert kernel.ok("(there != here, result, _ , Out[max(Out)])").value == "(True, 42, 42, 42)"


def test_a_semicolon_silences_the_value(kernel: Kernel) -> None:
    assert kernel.ok("%%remote\n1 + 1;").of_type("execute_result") == []


def test_functions_and_classes_of_the_cell_live_on_here(kernel: Kernel) -> None:
    kernel.ok(
        "%%remote\ndef shifted(v):\n    return v + offset\n"
        "class Point:\n    def far(self):\n        return offset\np = Point()"
    )
    assert kernel.ok("offset = 5\nshifted(1), p.far(), isinstance(p, Point)").value == "(6, 5, True)"
    assert kernel.ok("%%remote\nshifted(1), p.far(), isinstance(p, Point)").value == "(6, 5, True)"


def test_modules_beside_the_notebook_can_be_imported(kernel: Kernel) -> None:
    kernel.ok("open('beside.py', 'w').write('def word():\\n    return \"found\"\\n')")
    assert kernel.ok("%%remote\nimport beside\nbeside.word()").value == "'found'"
    assert kernel.ok("beside.word()").value == "'found'"


def test_arrays_and_models_travel(kernel: Kernel) -> None:
    kernel.ok(
        "import numpy as np, torch\nx = np.arange(300_000.)\nmodel = torch.nn.Linear(3, 1)\nmodel.tied = model.weight"
    )
    kernel.ok(
        "%%remote\nsmall = x[:3].copy()\nx[0] = 7\n"
        "with torch.no_grad():\n    model.weight.fill_(2.0)\nmodel.done = True"
    )
    check = "x[0] == 7, small.tolist(), model.weight.sum().item(), model.tied is model.weight, model.done"
    assert kernel.ok(check).value == "(np.True_, [0.0, 1.0, 2.0], 6.0, True, True)"


def test_refs_travel_both_ways(kernel: Kernel) -> None:
    kernel.ok("a = shoal.put(20)")
    assert kernel.ok("%%remote\nb = shoal.put(22)\nshoal.get(a)").value == "20"
    assert kernel.ok("shoal.get(a) + shoal.get(b)").value == "42"


def test_actors_are_reached_from_cells_and_made_in_them(kernel: Kernel) -> None:
    kernel.ok("@shoal.remote\nclass Counter:\n    n = 0\n    def add(s, k):\n        s.n += k\n        return s.n")
    kernel.ok("counter = Counter.remote()\nshoal.get(counter.add.remote(1))")
    assert kernel.ok("%%remote\nshoal.get(counter.add.remote(10))").value == "11"
    assert kernel.ok("%%remote\nlocal = Counter.remote()\nshoal.get(local.add.remote(5))").value == "5"


def test_await_at_top_level(kernel: Kernel) -> None:
    kernel.ok("@shoal.remote\ndef double(v):\n    return 2 * v")
    assert kernel.ok("%%remote\nv = await double.remote(4)\nv + await double.remote(1)").value == "10"


def test_the_line_form_returns_a_value(kernel: Kernel) -> None:
    kernel.ok("@shoal.remote\ndef pid():\n    return os.getpid()")
    kernel.ok("def somewhere(k):\n    y = %remote (os.getpid(), k)\n    return y")
    assert kernel.ok("(lambda v: (v[0] != os.getpid(), v[1]))(somewhere(3))").value == "(True, 3)"


def test_inline_runs_here(kernel: Kernel) -> None:
    assert kernel.ok("%%remote --inline\nk = os.getpid()\nk == here").value == "True"


def test_an_error_shows_the_cells_frames_and_no_others(kernel: Kernel) -> None:
    kernel.ok("def inner(v):\n    return {}[v]")
    outcome = kernel.run("%%remote --num-cpus 1\n\ndef outer(v):\n    return inner(v)\n\nouter('key')\n")
    assert outcome.status == "error" and outcome.reply["content"]["ename"] == "KeyError"
    shown = outcome.error
    assert "----> 6 outer('key')" in shown and "----> 4     return inner(v)" in shown
    assert "----> 2     return {}[v]" in shown and shown.splitlines()[1].startswith("KeyError")
    assert "KeyError: 'key'" in shown
    for hidden in ("shoal", "run_cell", "run_cell_magic", "site-packages", "executor.py", "cell.py"):
        assert hidden not in shown, shown


def test_an_error_of_the_line_form_can_be_caught(kernel: Kernel) -> None:
    kernel.ok("try:\n    %remote 1 / 0\nexcept ZeroDivisionError as error:\n    caught = error")
    assert kernel.ok("type(caught) is ZeroDivisionError").value == "True"


def test_the_cause_is_shown_too(kernel: Kernel) -> None:
    outcome = kernel.run(
        "%%remote\ntry:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise RuntimeError('so') from error"
    )
    assert "direct cause" in outcome.error and "----> 3     1 / 0" in outcome.error
    assert "----> 5     raise RuntimeError" in outcome.error and "cell.py" not in outcome.error


def test_what_cannot_come_back_is_named(kernel: Kernel) -> None:
    outcome = kernel.ok("%%remote\nimport threading\nlock = threading.Lock()\nkept = 1\nlock")
    assert "`lock` stays remote: cannot pickle" in outcome.text("stderr")
    (shown,) = outcome.of_type("display_data")
    assert "_thread.lock" in shown["data"]["text/plain"]
    assert kernel.ok("kept").value == "1"


def test_the_stop_button_stops_the_work(kernel: Kernel, tmp_path: Path) -> None:
    marker = tmp_path / "stopped"
    cell = kernel.start(
        f"%%remote --name sleeper\nimport time\nprint('started')\ntry:\n    time.sleep(600)\n"
        f"finally:\n    open({str(marker)!r}, 'w').close()"
    )
    kernel.wait_for_text("started", cell)
    begin = time.monotonic()
    kernel.manager.interrupt_kernel()
    outcome = kernel.finish(cell)
    assert time.monotonic() - begin < 5.0
    assert outcome.reply["content"]["ename"] == "KeyboardInterrupt"
    assert outcome.error.startswith("KeyboardInterrupt: stopped `sleeper` in ") and "\n" not in outcome.error
    assert marker.exists()
    assert kernel.ok("%%remote\n'alive'").value == "'alive'"


def test_a_timeout_stops_the_work(kernel: Kernel) -> None:
    outcome = kernel.run("%%remote --timeout 0.3 --name slow\nimport time\ntime.sleep(600)")
    assert outcome.error.startswith("TimeoutError: the cell did not end within 0.3 s; stopped `slow`")


def test_a_crash_is_not_repeated(kernel: Kernel, tmp_path: Path) -> None:
    log = tmp_path / "runs"
    outcome = kernel.run(f"%%remote\nwith open({str(log)!r}, 'a') as f:\n    f.write('x')\nos._exit(3)")
    assert outcome.reply["content"]["ename"] == "ExecutorCrashedError" and log.read_text() == "x"


@pytest.fixture
def narrow(kernel: Kernel) -> Iterator[None]:
    """The kernel's cluster is another meanwhile, on a node with little memory."""
    kernel.ok("shoal.shutdown()\nos.environ['SHOAL_MEMORY_LIMIT'] = '400_000_000'\nshoal.init(num_cpus=1);")
    yield
    kernel.ok("shoal.shutdown()\ndel os.environ['SHOAL_MEMORY_LIMIT']\nshoal.init(num_cpus=2);")


def test_a_cell_that_fills_the_memory_is_named(kernel: Kernel, narrow: None) -> None:
    grow = "kept = []\nfor _ in range(40):\n    kept.append(b'x' * 20_000_000)\n    time.sleep(0.02)"
    outcome = kernel.run(f"%%remote\n{grow}")
    assert outcome.reply["content"]["ename"] == "OutOfMemoryError"
    assert f"`In[{outcome.reply['content']['execution_count']}]` was ended: " in outcome.error
    assert "it used most: " in outcome.error and "Smaller batches help" in outcome.error
    outcome = kernel.run(
        f"@shoal.remote(max_retries=0)\ndef hungry():\n{indent(grow, '    ')}\nshoal.get(hungry.remote())"
    )
    assert f"hungry` in In[{outcome.reply['content']['execution_count']}] was ended: " in outcome.error


BAD = {
    "an unknown option": ("%%remote --num-cpu 2\n1", "Unknown option `--num-cpu`. Did you mean `--num-cpus`?"),
    "a bad value": ("%%remote --num-cpus two\n1", "--num-cpus: `two` is no number from 0 up"),
    "code on the first line": ("%%remote print(1)\n1", "Code starts on the next line"),
    "an empty body": ("%%remote\n", "the cell body is empty"),
    "a blank body": ("%%remote\n   \n# only this\n", "there is none; nothing was sent"),
    "a syntax error": ("%%remote\nx = 1\ny = = 2", "line 3\n    y = = 2\n        ^\nSyntaxError: invalid syntax"),
    "return at top level": (
        "%%remote\nreturn 1",
        "line 2\n    return 1\n    ^\nSyntaxError: 'return' outside function",
    ),
    "a shell line": ("%%remote\nx = 1\n!ls", "line 3\n    !ls\n    ^\nSyntaxError: `!ls` is for the notebook"),
    "a magic line": ("%%remote\n%time 1", "line 2\n    %time 1\n    ^\nSyntaxError: `%time 1` is for the notebook"),
    "an undefined name": (
        "%%remote\nx = 1\ny = x + shol",
        "line 3\n    y = x + shol\n            ^\nNameError: `shol` is not",
    ),
    "get_ipython": ("%%remote\nget_ipython().ast_node_interactivity", "`get_ipython()` reaches the notebook"),
    "a lock": (
        "%%remote\nz = 1\nprint(deep)",
        "SerializationError: variable `deep` cannot be sent: `deep.logger._lock`",
    ),
    "a lock that a function reads": ("%%remote\nuses_deep()", "variable `deep` (read by `uses_deep`) cannot be sent"),
    "a mistyped subcommand": ("%remote statsu", "Unknown subcommand `statsu`. Did you mean `status`?"),
    "nothing": ("%remote", "needs an expression or one of: up, connect"),
}


@pytest.fixture(scope="module")
def deep(kernel: Kernel) -> None:
    kernel.ok("%config Remote.compare_packages = False")  # it asks the nodes, which is work that is counted
    kernel.ok("while any(shoal.snapshot()['tasks'][state] for state in ('running', 'queued')): time.sleep(0.02)")
    kernel.ok("import threading\nclass Part: pass\ndeep = Part()\ndeep.logger = Part()")
    kernel.ok("deep.logger._lock = threading.Lock()\ndef uses_deep():\n    return deep")
    kernel.ok(
        "def count_after_marker():\n"
        "    global markers\n"
        "    markers += 1\n"
        "    %remote --name marker 1 + 1\n"
        "    while True:\n"
        "        state = shoal.snapshot()\n"
        "        if any(f['name'] == 'marker' and f['finished'] == markers for f in state['functions']):\n"
        "            return sum(count for name, count in state['tasks'].items() if name != 'seconds')\n"
        "        time.sleep(0.02)\n"
        "markers = 0"
    )


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_message_and_nothing_is_sent(kernel: Kernel, deep: None, case: str) -> None:
    code, message = BAD[case]
    # The runtime reports in order: once a marker is counted, what was sent before it is.
    before = int(kernel.ok("count_after_marker()").value)
    outcome = kernel.run(code)
    assert outcome.status == "error"
    shown = outcome.error if outcome.of_type("error") else ""
    shown += outcome.text("stderr")
    assert message in shown, shown
    assert len(shown.strip().splitlines()) <= 4 and "Traceback" not in shown
    assert int(kernel.ok("count_after_marker()").value) == before + 1, "the second marker and nothing else"
