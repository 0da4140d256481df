"""The progress of cells in a real kernel: under which cell it is shown, when, and what stays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

MODEL = "application/vnd.jupyter.widget-view+json"
DEFINE = """@shoal.remote
def wait_at(path):
    open(path).read()
    return 1
@shoal.remote
def nap(seconds):
    time.sleep(seconds)
    return seconds
@shoal.remote
def fail():
    raise ValueError("<no>")"""
THREADS = "import threading; [t.name for t in threading.enumerate() if t.name == 'shoal-progress']"


@pytest.fixture(scope="module", autouse=True)
def _functions(kernel: Any) -> None:
    kernel.ok(DEFINE)
    kernel.ok("shoal.get([nap.remote(0) for _ in range(4)]);")


def start(kernel: Any, code: str, metadata: dict[str, Any] | None = None) -> str:
    """Send a cell as JupyterLab does, which says where it stands."""
    content = {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": True,
    }
    message = kernel.client.session.msg("execute_request", content)
    message["metadata"] = {"cellId": "a-cell"} if metadata is None else metadata
    kernel.client.shell_channel.send(message)
    return str(message["header"]["msg_id"])


def shown(messages: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [message["content"] for message in messages if message["msg_type"] == kind]


def is_over(messages: list[dict[str, Any]]) -> bool:
    return bool(shown(messages, "update_display_data"))


def test_a_cell_that_waits_shows_a_widget_and_then_a_snapshot(kernel: Any, gates: Callable[..., Any]) -> None:
    gate = gates("gate")
    cell = start(kernel, f"shoal.wait([wait_at.remote({str(gate.path)!r}), fail.remote()], num_returns=2); 1")
    messages = kernel.wait_for(lambda messages: shown(messages, "display_data"), cell)
    (first,) = shown(messages, "display_data")
    assert set(first["data"]) == {MODEL, "text/html", "text/plain"}
    gate.open()
    outcome = kernel.finish(cell)
    (last,) = outcome.of_type("update_display_data")  # before the cell is done
    assert last["transient"] == first["transient"]
    assert set(last["data"]) == {"text/html", "text/plain"}
    assert "1 of 2 done, 1 failed, in " in last["data"]["text/plain"]
    assert "fail failed: ValueError: <no>" in last["data"]["text/plain"]
    assert "ValueError: &lt;no&gt;" in last["data"]["text/html"]


def test_work_that_outlives_its_cell_is_shown_under_it(kernel: Any, gates: Callable[..., Any]) -> None:
    gate = gates("gate")
    cell = start(kernel, f"late = wait_at.remote({str(gate.path)!r})")
    kernel.finish(cell)
    kernel.wait_for(lambda messages: shown(messages, "display_data"), cell)
    other = kernel.ok("1 + 1")
    gate.open()
    messages = kernel.wait_for(is_over, cell)
    assert "1 of 1 done" in shown(messages, "update_display_data")[-1]["data"]["text/plain"]
    assert not other.of_type("display_data")


def test_a_remote_cell_is_shown_as_well(kernel: Any, gates: Callable[..., Any]) -> None:
    gate = gates("gate")
    cell = start(kernel, f"%%remote\n{gate.wait}\n1")
    kernel.wait_for(lambda messages: shown(messages, "display_data"), cell)
    gate.open()
    outcome = kernel.finish(cell)
    (last,) = outcome.of_type("update_display_data")
    assert "1 of 1 done" in last["data"]["text/plain"]


def test_a_quick_cell_shows_nothing(kernel: Any) -> None:
    outcome = kernel.finish(start(kernel, "shoal.get([nap.remote(0.01) for _ in range(4)])"))
    assert outcome.status == "ok"
    assert not outcome.of_type("display_data")


def test_where_nobody_looks_on_nothing_is_shown(kernel: Any) -> None:
    outcome = kernel.finish(start(kernel, "shoal.get([nap.remote(0.4) for _ in range(4)])", metadata={}))
    assert outcome.value == "[0.4, 0.4, 0.4, 0.4]"
    assert not outcome.of_type("display_data") and not outcome.of_type("update_display_data")


def test_lines_where_nobody_looks_on_if_they_are_wanted(kernel: Any) -> None:
    cell = "shoal.get([nap.remote(0.8) for _ in range(10)]);"
    assert kernel.finish(start(kernel, cell, metadata={})).text("stderr") == ""
    kernel.ok("%config Remote.progress_lines = True")
    try:
        said = kernel.finish(start(kernel, cell, metadata={})).text("stderr").splitlines()
        assert 1 < len(said) <= 10
        assert said[-1].startswith("In[") and ": 10 of 10 done, in " in said[-1]
        quick = kernel.finish(start(kernel, "shoal.get([nap.remote(0.01) for _ in range(9)]);", metadata={}))
        assert quick.text("stderr") == ""
    finally:
        kernel.ok("%config Remote.progress_lines = None")


def test_the_stop_button_is_heard_while_its_cell_waits(kernel: Any) -> None:
    client = kernel.client
    if kernel.ok("'supported_features' in get_ipython().kernel.kernel_info").value != "True":
        pytest.skip("this ipykernel has no subshells")
    client.control_channel.send(client.session.msg("create_subshell_request", {}))
    subshell = client.get_control_msg(timeout=30)["content"]["subshell_id"]
    cell = start(kernel, "shoal.wait([nap.remote(60) for _ in range(4)], num_returns=4); 1")
    kernel.wait_for(lambda messages: shown(messages, "display_data"), cell)
    opened = [m["content"] for m in kernel.published if m["msg_type"] == "comm_open"]
    described = {c["data"]["state"].get("description", ""): c["comm_id"] for c in opened}
    (stop,) = [comm_id for name, comm_id in described.items() if name.startswith("Stop In[")][-1:]
    click = {"comm_id": stop, "data": {"method": "custom", "content": {"event": "click"}}}
    message = client.session.msg("comm_msg", click)
    message["header"]["subshell_id"] = subshell  # as JupyterLab does
    client.shell_channel.send(message)
    (last,) = kernel.finish(cell).of_type("update_display_data")
    assert "0 of 4 done, 4 cancelled, in " in last["data"]["text/plain"]
    client.control_channel.send(client.session.msg("delete_subshell_request", {"subshell_id": subshell}))
    assert client.get_control_msg(timeout=30)["content"]["status"] == "ok"


def test_errors_of_the_display_leave_the_cell_alone(kernel: Any) -> None:
    kernel.ok(
        "from shoal_kernel import progress_view\nkept = progress_view.render_live\nprogress_view.render_live = None"
    )
    outcome = kernel.finish(start(kernel, "shoal.get([nap.remote(0.4) for _ in range(4)])"))
    assert outcome.status == "ok" and outcome.value == "[0.4, 0.4, 0.4, 0.4]"
    kernel.ok("progress_view.render_live = kept")


def test_nothing_goes_on_when_the_extension_is_gone(kernel: Any) -> None:
    assert kernel.ok(THREADS).value == "['shoal-progress']"
    kernel.ok("%unload_ext shoal")
    assert kernel.ok(THREADS).value == "[]"
    kernel.ok("%load_ext shoal")
