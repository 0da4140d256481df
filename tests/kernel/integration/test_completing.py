"""Tab in a real kernel, also while a cell runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

Kernel = Any
TIMEOUT = 60.0


def complete(kernel: Kernel, code: str, subshell: str | None = None) -> list[str]:
    """Press Tab at the end of *code*, and return what the notebook would have after each choice."""
    return [code[: found["start"]] + found["text"] for found in ask(kernel, code, subshell)]


def ask(kernel: Kernel, code: str, subshell: str | None = None) -> list[dict[str, Any]]:
    session, channel = kernel.client.session, kernel.client.shell_channel
    message = session.msg("complete_request", {"code": code, "cursor_pos": len(code)})
    message["header"]["subshell_id"] = subshell
    channel.send(message)
    content = reply_to(message, channel.get_msg)
    assert content["status"] == "ok"
    found: list[dict[str, Any]] = content["metadata"]["_jupyter_types_experimental"]
    return found


def reply_to(message: dict[str, Any], receive: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    while True:
        reply = receive(timeout=TIMEOUT)
        if reply["parent_header"].get("msg_id") == message["header"]["msg_id"]:
            content: dict[str, Any] = reply["content"]
            return content


def test_options_with_their_descriptions(kernel: Kernel) -> None:
    found = {completion["text"]: completion["type"] for completion in ask(kernel, "%%remote --")}
    assert {"--on", "--each", "--actor", "--timeout", "--bg"} <= set(found)
    assert found["--timeout"] == "Stop it if it takes longer"
    assert all(text.startswith("--") for text in found)


def test_subcommands_come_first(kernel: Kernel) -> None:
    found = complete(kernel, "%remote ")
    assert "%remote status" in found[:20] and "%remote cancel" in found[:20]


def test_code_is_completed_as_everywhere(kernel: Kernel) -> None:
    kernel.ok("some_number_here = 1")
    assert "%%remote --bg\nsome_number_here" in complete(kernel, "%%remote --bg\nsome_num")
    assert "%%remote --bg\nsome_number_here.bit_length" in complete(kernel, "%%remote --bg\nsome_number_here.bit_l")
    assert complete(kernel, "%remote some_num") == ["%remote some_number_here"]
    assert "%remote --bg f(some_number_here" in complete(kernel, "%remote --bg f(some_num")
    assert "x = %remote some_number_here.bit_length" in complete(kernel, "x = %remote some_number_here.bit_l")


def test_places(kernel: Kernel) -> None:
    assert {"%%remote --on any", "%%remote --on all", "%%remote --on 0"} <= set(complete(kernel, "%%remote --on "))
    host = kernel.ok("shoal.nodes()[0].labels['host']").value.strip("'")
    assert complete(kernel, "%%remote --on=host:") == [f"%%remote --on=host:{host}"]


def test_named_actors_and_their_variables(kernel: Kernel) -> None:
    kernel.ok("%%remote --actor laboratory\nremote_model = 1")
    assert complete(kernel, "%%remote --actor lab") == ["%%remote --actor laboratory"]
    cell = "%%remote --actor laboratory\n"
    assert f"{cell}remote_model" in complete(kernel, f"{cell}remote_mo")


def test_it_never_starts_a_cluster_and_says_nothing(kernel: Kernel) -> None:
    kernel.ok("shoal.shutdown()")
    try:
        assert {"%%remote --on any", "%%remote --on all"} == set(complete(kernel, "%%remote --on a"))
        assert complete(kernel, "%%remote --actor lab") == []
        assert kernel.ok("shoal.is_initialized()").value == "False"
    finally:
        kernel.ok("shoal.init(num_cpus=2);")


def test_while_a_cell_runs(kernel: Kernel, gates: Callable[[str], Any]) -> None:
    client = kernel.client
    request = client.session.msg("create_subshell_request")
    client.control_channel.send(request)
    content = reply_to(request, client.control_channel.get_msg)
    if "subshell_id" not in content:
        pytest.skip("this ipykernel has no subshells")
    gate = gates("busy")
    running = kernel.start(f"print('running', flush=True)\n{gate.wait};")
    kernel.wait_for_text("running", running)
    begin = time.monotonic()
    assert "%%remote --on 0" in complete(kernel, "%%remote --on ", content["subshell_id"])
    assert {"%%remote --timeout", "%%remote --torch"} == set(complete(kernel, "%%remote --t", content["subshell_id"]))
    assert time.monotonic() - begin < TIMEOUT / 2
    gate.open()
    assert kernel.finish(running).status == "ok"


def test_unloading_takes_it_away(kernel: Kernel) -> None:
    try:
        kernel.ok("%unload_ext shoal")
        assert "%%remote --timeout" not in complete(kernel, "%%remote --ti")
    finally:
        kernel.ok("%load_ext shoal")
    assert complete(kernel, "%%remote --ti") == ["%%remote --timeout"]
