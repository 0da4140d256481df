"""What a reloaded page needs to go on: displays that can be found again, and a kernel that shows them once more."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

Kernel = Any
Message = dict[str, Any]

TALK = """@shoal.remote
def talk(number):
    print("talks", number)
shoal.get([talk.remote(number) for number in range(2)]);"""


@pytest.fixture
def talked(kernel: Kernel) -> tuple[str, list[Message]]:
    """A cell of JupyterLab whose tasks have talked: its id, and its displays."""
    session = kernel.client.session
    content = {"code": TALK, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    request = session.msg("execute_request", content, metadata={"cellId": "the-cell"})
    kernel.client.shell_channel.send(request)
    outcome = kernel.finish(str(request["header"]["msg_id"]))
    return outcome.msg_id, displays(outcome.messages)


def displays(messages: list[Message]) -> list[Message]:
    return [message for message in messages if message["msg_type"] in ("display_data", "update_display_data")]


def ask(kernel: Kernel) -> str:
    """Ask as a reloaded page does; returns the id of the comm."""
    comm_id = uuid.uuid4().hex
    content = {"comm_id": comm_id, "target_name": "shoal.displays", "data": {}}
    kernel.client.shell_channel.send(kernel.client.session.msg("comm_open", content))
    return comm_id


def test_a_display_says_which_it_is_and_whose(talked: tuple[str, list[Message]]) -> None:
    _, shown = talked
    for message in shown:
        content = message["content"]
        display_id = content["transient"]["display_id"]
        assert display_id.startswith(f"shoal-{message['header']['session']}-")
        assert content["metadata"] == {"shoal": {"display_id": display_id}}  # this is what the file keeps
        assert content["transient"]["shoal_cell_id"] == "the-cell"


def test_who_asks_gets_everything_once_more(kernel: Kernel, talked: tuple[str, list[Message]]) -> None:
    cell, shown = talked
    ask(kernel)
    messages = kernel.wait_for(lambda messages: len(displays(messages)) > len(shown), cell)
    again = displays(messages)[-1]
    assert again["msg_type"] == "update_display_data"
    assert again["content"] == shown[-1]["content"]
    assert "talks 0" in again["content"]["data"]["text/plain"]


def test_without_the_extension_nobody_answers(kernel: Kernel, talked: tuple[str, list[Message]]) -> None:
    cell, shown = talked
    kernel.ok("%unload_ext shoal")
    comm_id = ask(kernel)

    def is_closed(_: list[Message]) -> bool:
        closed = [m["content"]["comm_id"] for m in kernel.published if m["msg_type"] == "comm_close"]
        return comm_id in closed

    kernel.wait_for(is_closed, cell)
    assert len(displays(kernel.of(cell))) == len(shown)
    kernel.ok("%load_ext shoal")
