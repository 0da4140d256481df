"""Cells in the background: handles, and what another kernel can do with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster
from distributed.security import Security
from jupyter_client.manager import KernelManager

from tests.kernel.integration.conftest import TIMEOUT, Notebook

Kernel = Any
Gates = Callable[[str], Any]


def test_a_handle_at_once_and_the_rest_later(kernel: Kernel, gates: Gates) -> None:
    gate = gates("gate")
    cause = kernel.ok(f"%%remote --bg -o handle\nprint('begun')\n{gate.wait}\nname = 'brought'\n6 * 7")
    assert "in the background" in kernel.ok("handle").value
    kernel.wait_for_text("begun", cause.msg_id)
    assert kernel.ok("handle.done(), handle.progress()").value == "(False, (0, 1))"
    assert "TimeoutError" in kernel.run("handle.result(timeout=0.05)").error
    gate.open()
    assert kernel.ok("handle.result(timeout=30)").value == "42"
    assert kernel.ok("name, handle.result(), handle.done()").value == "('brought', 42, True)"


def test_await(kernel: Kernel) -> None:
    kernel.ok('%%remote --bg --each "i in range(3)" -o handle\ni * i')
    assert kernel.ok("await handle").value == "{0: 0, 1: 1, 2: 4}"


def test_its_error_is_the_users_own(kernel: Kernel) -> None:
    kernel.ok("%%remote --bg -o handle\n1 / 0")
    outcome = kernel.run("handle.result(timeout=30)")
    assert "ZeroDivisionError" in outcome.error
    assert "----> 2 1 / 0" in outcome.error
    kernel.ok("try:\n    await handle\nexcept ZeroDivisionError:\n    again = True")


def test_cancel(kernel: Kernel, gates: Gates) -> None:
    gate = gates("gate")
    cause = kernel.ok(f"%%remote --bg -o handle\nprint('begun')\n{gate.wait}")
    kernel.wait_for_text("begun", cause.msg_id)
    assert (
        kernel.ok("%remote cancel " + kernel.ok("print(handle.id)").text().strip()).text().startswith("cancelled `In[")
    )
    assert "TaskCancelledError" in kernel.run("handle.result(timeout=30)").error
    assert "has ended already" in kernel.ok("%remote cancel " + kernel.ok("print(handle.name)").text().strip()).text()


def test_jobs_logs_and_why(kernel: Kernel, gates: Gates) -> None:
    gate = gates("gate")
    cause = kernel.ok(f"%%remote --bg -o handle\nprint('a line')\ndisplay({{'shown': 1}})\n{gate.wait}")
    kernel.wait_for_text("a line", cause.msg_id)
    name = kernel.ok("print(handle.id)").text().strip()
    jobs = kernel.ok("%remote jobs").value
    assert name in jobs and "running" in jobs and "this notebook" in jobs
    kernel.wait_for(lambda messages: any(m["msg_type"] == "display_data" for m in messages), cause.msg_id)
    assert "a line\n" in kernel.ok(f"%remote logs {name[:9]}").text()
    assert "run" in kernel.ok(f"%remote why {name}").value
    gate.open()
    kernel.ok("handle.result(timeout=30)")


def test_logs_of_actors_and_tasks(kernel: Kernel) -> None:
    kernel.ok("%%remote --actor talker\nprint('first words')\nprint('last words')")
    assert kernel.ok("%remote logs talker").text().splitlines()[-1].endswith("last words")
    text = kernel.ok("%remote logs talker --tail 5 --filter FIRST").text()
    assert "first words" in text and "last words" not in text
    kernel.ok(
        "import shoal\n@shoal.remote\ndef say(): print('from a task')\nsaid = say.remote()\nshoal.get(said, timeout=30)"
    )
    assert kernel.ok("%remote logs said --follow").text().endswith("(say) from a task\n")
    task_id = "task" + kernel.ok("print(said.id)").text().strip()[3:]
    assert kernel.ok(f"%remote logs {task_id}").text().endswith("(say) from a task\n")
    assert "There is no log of executor `exec-none`" in kernel.run("%remote logs exec-none").text("stderr")
    assert "is no whole number" in kernel.run("%remote logs said --tail=x").text("stderr")


def test_options_may_stand_behind_the_id(kernel: Kernel, gates: Gates) -> None:
    gate = gates("gate")
    cause = kernel.ok(f"%%remote --bg -o handle\nprint('begun')\n{gate.wait}")
    kernel.wait_for_text("begun", cause.msg_id)
    name = kernel.ok("print(handle.id)").text().strip()
    assert "cancelled" in kernel.ok(f"%remote cancel {name} --force").text()
    assert "TaskCancelledError" in kernel.run("handle.result(timeout=30)").error


def test_ranks_that_nobody_asks_for_make_room(kernel: Kernel) -> None:
    kernel.ok("%%remote --bg --ranks 2 -o forgotten\nimport time\nif rank == 1: 1 / 0\ntime.sleep(600)")
    assert kernel.ok("%%remote --ranks 2 --timeout 60\nrank").value == "[0, 1]"
    assert "ZeroDivisionError" in kernel.run("forgotten.result(timeout=30)").error


def test_a_call_of_an_actor_in_the_background(kernel: Kernel) -> None:
    kernel.ok("%%remote --bg --actor holder -o handle\nmade = 5\nmade")
    assert kernel.ok("await handle").value == "5"
    assert kernel.ok("%%remote --actor holder\nmade").value == "5"
    assert "under its cell" in kernel.run("%remote logs " + kernel.ok("print(handle.id)").text().strip()).text("stderr")


STATUS = """
from shoal_kernel.launching import background_statuses
def kept_for():
    return background_statuses([handle.id])[handle.id].kept_for
def wait_until(what, timeout=30.0):
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)
"""


def test_as_long_as_a_notebook_has_the_handle_the_result_stays(kernel: Kernel) -> None:
    kernel.ok(STATUS)
    kernel.ok("%config Remote.keep_results = 0.3")
    try:
        kernel.ok("%%remote --bg -o handle\n6 * 7")
        kernel.ok("wait_until(lambda: handle.done() and kept_for() is not None)")
        kernel.ok(
            "def renewed(before=[kept_for()]):\n    before.append(kept_for())\n    return before[-1] > before[-2]"
        )
        kernel.ok("wait_until(renewed); wait_until(renewed)")
        assert kernel.ok("handle.result(timeout=30)").value == "42"
    finally:
        kernel.ok("%config Remote.keep_results = 259_200")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("%remote attach", "needs ID"),
        ("%remote attach nothing", "There is no background cell `nothing`"),
        ("%remote logs nothing", "There is no background cell"),
        ("%remote cancel --forse x", "Did you mean `--force`?"),
        ("%remote jobs now", "takes options only"),
        ("%remote scale many", "`many` is no whole number"),
        ("%remote use nowhere", "There is no cluster `nowhere`"),
        ("%remote up --num-cpus many", "`many` is no whole number"),
    ],
)
def test_bad_input_is_one_line(kernel: Kernel, line: str, words: str) -> None:
    outcome = kernel.run(line)
    assert words in outcome.text("stderr")
    assert kernel.ok("shoal.is_initialized()").value == "True"


# -- other kernels ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def join(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Code that joins a cluster which outlives the kernels."""
    directory, security = tmp_path_factory.mktemp("tls"), Security.temporary()
    parts = {"ca": "tls_ca_file", "cert": "tls_client_cert", "key": "tls_client_key"}
    for name, part in parts.items():
        (directory / name).write_text(getattr(security, part))
    paths = {part: str(directory / name) for name, part in parts.items()}
    with LocalCluster(
        n_workers=1, threads_per_worker=2, security=security, dashboard_address=":0", protocol="tls://"
    ) as cluster:
        yield (
            "%load_ext shoal\nimport shoal\nfrom distributed.security import Security\n"
            f"security = Security(require_encryption=True, **{paths!r})\n"
            f"shoal.init({cluster.scheduler_address!r}, security=security, timeout=30);"
        )


@pytest.fixture
def start_kernel(tmp_path: Path) -> Iterator[Callable[[], Notebook]]:
    managers: list[KernelManager] = []

    def start() -> Notebook:
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(cwd=str(tmp_path))
        managers.append(manager)
        client = manager.blocking_client()
        client.start_channels()
        client.wait_for_ready(timeout=TIMEOUT)
        return Notebook(manager, client)

    yield start
    for manager in managers:
        manager.client().stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.mark.parametrize("way", ["--bg", "--bg --ranks 2"])
def test_it_outlives_its_kernel(join: str, start_kernel: Callable[[], Notebook], gates: Gates, way: str) -> None:
    gate = gates("gate")
    first = start_kernel()
    first.ok(join)
    work = f"{gate.wait}\n" if "ranks" not in way else f"if rank == 0: {gate.wait}\n"
    cause = first.ok(f"%%remote {way} -o handle\nprint('before')\n{work}print('after')\nwhat = 'brought'\n42")
    first.wait_for_text("before", cause.msg_id)
    name = first.ok("print(handle.id)").text().strip()
    first.manager.shutdown_kernel(now=True)  # kill -9
    second = start_kernel()
    second.ok(join)
    assert name in second.ok("%remote jobs").value
    assert "before" in second.ok(f"handle = get_ipython().run_line_magic('remote', 'attach {name}')").text()
    gate.open()
    assert second.ok("await handle").value == ("42" if "ranks" not in way else "[42, 42]")
    assert second.ok("what").value == "'brought'"
    assert name not in second.ok("shoal.shutdown()\n" + join + "\n%remote jobs").text()


def test_others_cells_are_listed_without_what_they_read_and_go_when_nobody_asks(
    join: str, start_kernel: Callable[[], Notebook], gates: Gates
) -> None:
    gate, first = gates("gate"), start_kernel()
    first.ok(join)
    cause = first.ok(f"%%remote --bg --name waits\nprint('begun')\n{gate.wait}")
    first.wait_for_text("begun", cause.msg_id)
    first.ok("%config Remote.keep_results = 2")
    first.ok('%%remote --bg --name brief --each "i in range(2)" -o brief\n1')
    brief = first.ok("while not brief.done():\n    brief.wait(1)\nprint(brief.id)").text().strip()
    first.manager.shutdown_kernel(now=True)  # kill -9
    second = start_kernel()
    second.ok(join + "\nimport re, time")
    # Its notebook is gone, and so is it, some seconds later.
    second.ok(
        "jobs = lambda: str(get_ipython().run_line_magic('remote', 'jobs'))\n"
        "seen, deadline = [jobs()], time.monotonic() + 60\n"
        f"while {brief!r} in seen[-1]:\n"
        "    assert time.monotonic() < deadline, seen[-1]\n"
        "    time.sleep(0.05)\n"
        "    seen.append(jobs())"
    )
    rows = second.ok("print('\\n'.join(seen))").text().splitlines()
    assert any("waits" in row and "running" in row and "another" in row for row in rows)
    assert all("waits" not in row or "gone in" not in row for row in rows)
    assert all("brief" not in row or re.search(r"ended .* another +gone in [012] s$", row) for row in rows)
    asked = second.ok("%remote jobs\n{row.name.split('.')[1] for row in shoal.progress().look().functions}").value
    assert asked == "{'status'}"
    gate.open()
