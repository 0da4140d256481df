"""Debuggers on remote errors: post-mortems with the remote frames' variables, and the same work once more, here."""

from __future__ import annotations

import queue
from typing import Any

import pytest

Kernel = Any

CELL = """\
%%remote
scale = 3
def inner(x):
    words = [x, 'b']
    return scale * words['c']

def outer(y):
    return inner(y + 1)

outer(1)
"""
TASK = """\
@shoal.remote
def divide(a, b):
    total = a + b
    return total / b
shoal.get(divide.remote(7, 0))
"""


def debug(kernel: Kernel, code: str, *commands: str) -> tuple[str, str]:
    """Run a cell that opens the debugger; returns what it printed, and how the cell ended."""
    msg_id = kernel.client.execute(code, allow_stdin=True)
    for command in (*commands, "q"):
        try:
            request = kernel.client.get_stdin_msg(timeout=30)
        except queue.Empty:
            pytest.fail(f"the debugger did not ask: {kernel.finish(msg_id).messages}")
        assert request["msg_type"] == "input_request" and request["content"]["prompt"].startswith("ipdb")
        kernel.client.input(command)
    outcome = kernel.finish(msg_id)
    return outcome.text("stdout") + outcome.text("stderr"), outcome.status


def fail(kernel: Kernel, code: str) -> str:
    """Run a cell that fails; returns the error as shown."""
    outcome = kernel.run(code)
    assert outcome.status == "error"
    return str(outcome.error)


def test_debug_after_a_remote_cell(kernel: Kernel) -> None:
    fail(kernel, CELL)
    said, status = debug(
        kernel,
        "%debug",
        "p x, words",
        "p scale * x",
        "whatis words",
        "pp words",
        "list",
        "up",
        "p y",
        "down",
        "p x + 40",
    )
    assert status == "ok"
    for text in ("(2, [2, 'b'])", "\n6\n", "<class 'list'>", "return scale * words['c']", "\n1\n", "\n42\n"):
        assert text in said, said


def test_debug_after_a_get(kernel: Kernel) -> None:
    fail(kernel, TASK)
    said, status = debug(kernel, "%debug", "p a, b, total", "up", "p 'here', divide", "where")
    assert status == "ok"
    assert "(7, 0, 7)" in said and "('here', <remote function divide>)" in said, said
    assert "shoal/" not in said, "the frame above the task's is the notebook's"


def test_debug_after_a_call_of_an_actor(kernel: Kernel) -> None:
    kernel.ok("@shoal.remote\nclass Model:\n    size = 4\n    def train(self, lr):\n        return self.size / lr")
    fail(kernel, "model = Model.remote()\nshoal.get(model.train.remote(0))")
    said, _ = debug(kernel, "%debug", "p self.size, lr")
    assert "(4, 0)" in said, said


def test_large_values_are_described(kernel: Kernel) -> None:
    fail(kernel, "%%remote\nimport numpy as np\nbig = np.zeros((500, 400))\nref = shoal.put(1)\nbig[1000]")
    said, _ = debug(kernel, "%debug", "p big", "p ref", "p np.ones(2).sum()")
    assert "<numpy.ndarray (shape (500, 400), float64, 1.5 MiB) stayed remote: it is large>" in said, said
    assert "ObjectRef(" in said and "\nnp.float64(2.0)\n" in said, said


POST_MORTEM = "from shoal_kernel import debugging\ndebugging.post_mortem()"
RERUN = "from shoal_kernel import debugging\nagain = debugging.rerun()"


def test_a_post_mortem_can_be_had_later(kernel: Kernel) -> None:
    fail(kernel, TASK)
    fail(kernel, "1 / 0")
    said, _ = debug(kernel, POST_MORTEM, "p a, b, total")
    assert "ZeroDivisionError: division by zero" in said and "(7, 0, 7)" in said, said


def test_the_last_error_is_forgotten_on_demand(kernel: Kernel) -> None:
    fail(kernel, TASK)
    kernel.ok("from shoal_kernel import debugging\ndebugging.release()")
    assert "There has been no remote error" in kernel.run(POST_MORTEM).text("stderr")


def test_front_ends_without_questions_are_told(kernel: Kernel) -> None:
    fail(kernel, TASK)
    msg_id = kernel.client.execute(POST_MORTEM, allow_stdin=False)
    assert "this front end does not answer questions" in kernel.finish(msg_id).text("stderr")


def test_a_cell_is_run_again_here(kernel: Kernel) -> None:
    """As the magics do when a part has failed."""
    kernel.ok(
        "from shoal_kernel import cell_run, debugging\n"
        "inputs = []\n"
        "take = cell_run.CellRun._take_all\n"
        "def noting(run):\n"
        "    value, error = take(run)\n"
        "    if error is not None:\n"
        "        debugging.remember_cell(error, run._tasks, 0)\n"
        "    return value, error\n"
        "cell_run.CellRun._take_all = noting"
    )
    kernel.ok("data = {'a': 1}\nlock_free = [1, 2]")
    fail(kernel, "%%remote\nhere = os.getpid()\nlock_free.append(3)\ndata['b']")
    said, status = debug(kernel, RERUN, "p here", "p lock_free", "p data")
    assert status == "ok"
    pid = kernel.ok("os.getpid()").value
    assert f"\n{pid}\n" in said and "[1, 2, 3]" in said and "{'a': 1}" in said, said
    assert kernel.ok("lock_free, data").value == "([1, 2], {'a': 1})", "the notebook's own are left alone"
    kernel.ok("cell_run.CellRun._take_all = take")


def test_inputs_that_are_gone_are_said_to_be(kernel: Kernel) -> None:
    fail(kernel, TASK)
    kernel.ok("from shoal.runtime import failed_tasks\nfailed_tasks.release()")
    msg_id = kernel.client.execute(RERUN, allow_stdin=True)
    assert "What it was called with is not there any more" in kernel.finish(msg_id).text("stderr")


# -- what is shown -------------------------------------------------------------------------------------------------


def test_a_failed_get_shows_the_users_frames_only(kernel: Kernel) -> None:
    shown = fail(kernel, TASK)
    assert "----> 5 shoal.get(divide.remote(7, 0))" in shown and "----> 4     return total / b" in shown, shown
    assert "in divide, attempt 1, on " in shown
    for hidden in ("values.py", "base_owner.py", "payload.py", "core/shoal"):
        assert hidden not in shown, shown


@pytest.mark.parametrize(
    ("code", "last"),
    [
        ("shoal.get(3)", "TypeError: Expected ObjectRefs, got int. Is a `.remote(…)` missing?"),
        ("shoal.put(shoal.put(1))", "TypeError: `put` was given an ObjectRef: its value is in the cluster already."),
        ("shoal.remote(num_cpu=1)(int)", "OptionError: "),
        ("shoal.get(shoal.put(1), timeout=-1)", "OptionError: `timeout` must be a number"),
        ("shoal.put(open('x', 'w'))", "SerializationError: `value` cannot be sent"),
    ],
)
def test_input_that_is_refused_shows_the_line_at_fault_only(kernel: Kernel, code: str, last: str) -> None:
    shown = fail(kernel, f"y = 1\n{code}")
    assert f"----> 2 {code}" in shown and last in shown, shown
    assert "core/shoal" not in shown and "site-packages" not in shown, shown


def test_bugs_of_ours_are_shown_whole(kernel: Kernel) -> None:
    shown = fail(kernel, "from shoal.runtime import refs\nrefs.ObjectRef.id.fget(None)")
    assert "core/shoal/runtime/refs.py" in shown and "AttributeError" in shown, shown


def test_internals_are_shown_on_demand(kernel: Kernel) -> None:
    kernel.ok("from shoal_kernel import tracebacks\ntracebacks.show_internals(True)")
    try:
        assert "core/shoal" in fail(kernel, TASK)
    finally:
        kernel.ok("tracebacks.show_internals(False)")
    assert "core/shoal" not in fail(kernel, TASK)


def test_parts_that_fail_differently_are_all_shown(kernel: Kernel) -> None:
    outcome = kernel.run("%%remote --each 'k in [0, 1, 2]'\nif k == 1:\n    {}['x']\n5 / 0")
    assert outcome.reply["content"]["ename"] == "CellErrors"
    shown = outcome.error
    for text in ("3 of 3 parts failed, in 2 ways", "----> 4 5 / 0", "----> 3     {}['x']", "2 of 3: k=0, k=2"):
        assert shown.count(text) == 1, shown
    assert "core/shoal" not in shown and "shoal_kernel" not in shown, shown


def test_parts_that_fail_alike_are_one_error(kernel: Kernel) -> None:
    outcome = kernel.run("%%remote --each 'k in [0, 1, 2]'\nif k < 2:\n    1 / 0")
    assert outcome.reply["content"]["ename"] == "ZeroDivisionError"
    assert outcome.error.count("----> 3     1 / 0") == 1 and "2 of 3: k=0, k=1; 1 succeeded" in outcome.error


def test_a_task_is_run_again_here(kernel: Kernel) -> None:
    kernel.ok("@shoal.remote(max_retries=0)\ndef share(parts, n):\n    whole = sum(parts)\n    return whole / n")
    kernel.ok("parts = shoal.put([1, 2, 4])")
    fail(kernel, "shoal.get(share.remote(parts, n=0))")
    said, status = debug(kernel, RERUN, "p whole, n, parts", "p __import__('os').getpid()")
    assert status == "ok"
    assert "(7, 0, [1, 2, 4])" in said and f"\n{kernel.ok('os.getpid()').value}\n" in said, said


def test_a_call_of_an_actor_cannot_be(kernel: Kernel) -> None:
    kernel.ok("@shoal.remote\nclass Box:\n    def open(self):\n        return 1 / 0\nbox = Box.remote()")
    fail(kernel, "shoal.get(box.open.remote())")
    msg_id = kernel.client.execute(RERUN, allow_stdin=True)
    assert "`Box.open` cannot be run again here: it was a call of an actor" in kernel.finish(msg_id).text("stderr")
