"""A real kernel, spoken to as a notebook speaks to it."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

TIMEOUT = 60.0
Message = dict[str, Any]


@dataclasses.dataclass
class Outcome:
    """What one cell led to: every message published with it as parent, and the reply."""

    msg_id: str
    reply: Message
    messages: list[Message]

    @property
    def status(self) -> str:
        return str(self.reply["content"]["status"])

    def text(self, stream: str = "stdout") -> str:
        """Return what arrived on a stream, without colours."""
        return plain(stream_text(self.messages, stream))

    def of_type(self, msg_type: str) -> list[dict[str, Any]]:
        return [message["content"] for message in self.messages if message["msg_type"] == msg_type]

    @property
    def value(self) -> str:
        """Return the text of the cell's value."""
        (result,) = self.of_type("execute_result")
        return str(result["data"]["text/plain"])

    @property
    def error(self) -> str:
        """Return the error as shown."""
        (error,) = self.of_type("error")
        return plain("\n".join(error["traceback"]))


class Notebook:
    """Runs cells in a kernel and sorts what it publishes by the cell that is its parent."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self.client = client
        self.published: list[Message] = []

    def start(self, code: str) -> str:
        """Send a cell and return its id at once."""
        return str(self.client.execute(code))

    def wait_for(self, what: Callable[[list[Message]], bool], msg_id: str) -> list[Message]:
        """Wait until *what* holds for the messages of a cell, and return them."""
        deadline = time.monotonic() + TIMEOUT
        while not what(self.of(msg_id)):
            left = deadline - time.monotonic()
            assert left > 0, f"timed out; {msg_id} has published {self.of(msg_id)}"
            self.published.append(self.client.get_iopub_msg(timeout=left))
        return self.of(msg_id)

    def wait_for_text(self, text: str, msg_id: str) -> list[Message]:
        """Wait until the streams of a cell hold *text*, and return all its messages."""
        return self.wait_for(lambda messages: text in stream_text(messages), msg_id)

    def of(self, msg_id: str) -> list[Message]:
        return [message for message in self.published if message["parent_header"].get("msg_id") == msg_id]

    def finish(self, msg_id: str) -> Outcome:
        """Wait until a cell is done."""
        messages = self.wait_for(_is_idle, msg_id)
        while True:
            reply = self.client.get_shell_msg(timeout=TIMEOUT)
            if reply["parent_header"].get("msg_id") == msg_id:
                return Outcome(msg_id, reply, messages)

    def run(self, code: str) -> Outcome:
        """Run a cell to its end, whatever that is."""
        return self.finish(self.start(code))

    def ok(self, code: str) -> Outcome:
        """Run a cell that has to succeed."""
        outcome = self.run(code)
        assert outcome.status == "ok", outcome.reply["content"]
        return outcome


def stream_text(messages: list[Message], name: str = "") -> str:
    """Join what was printed; on one stream, if it is named."""
    contents = [message["content"] for message in messages if message["msg_type"] == "stream"]
    return "".join(content["text"] for content in contents if name in ("", content["name"]))


def plain(text: str) -> str:
    """Return *text* without colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _is_idle(messages: list[Message]) -> bool:
    return any(m["msg_type"] == "status" and m["content"]["execution_state"] == "idle" for m in messages)


@pytest.fixture(scope="session", autouse=True)
def _runtime_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Connection files of these tests are seen by nobody else."""
    before = os.environ.get("JUPYTER_RUNTIME_DIR")
    os.environ["JUPYTER_RUNTIME_DIR"] = str(tmp_path_factory.mktemp("runtime"))
    yield
    if before is None:
        del os.environ["JUPYTER_RUNTIME_DIR"]
    else:
        os.environ["JUPYTER_RUNTIME_DIR"] = before


@pytest.fixture(scope="module")
def kernel(_runtime_dir: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    """A kernel for the tests of a module, with the extension loaded and a cluster started."""
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(tmp_path_factory.mktemp("notebook")))
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=TIMEOUT)
        notebook = Notebook(manager, client)
        notebook.ok("%load_ext shoal")
        notebook.ok("import shoal, os, time\nshoal.init(num_cpus=2);")
        yield notebook
        notebook.ok("shoal.shutdown()")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


class Gate:
    """A named pipe: code that opens it for reading waits there until the test opens it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path

    @property
    def wait(self) -> str:
        """Return code that waits at the gate."""
        return f"open({str(self.path)!r}).read()"

    def open(self) -> None:
        """Let through who waits, or comes to wait."""
        with self.path.open("w"):
            pass


@pytest.fixture
def gates(tmp_path: Path) -> Callable[[str], Gate]:
    return lambda name: Gate(tmp_path / name)
