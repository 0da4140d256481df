"""Text and displays under a given cell, on every version of ipykernel.

From ipykernel 7.4 on streams and displays have a parent per thread. Earlier ones have one parent for the process, and
setting it would steal the output of the running cell, so there the messages are made by hand. Elsewhere (a terminal)
text is printed.
"""

from __future__ import annotations

import itertools
import sys
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

Request = dict[str, Any]
_numbers = itertools.count(1)


class Publisher:
    """The streams and displays of a shell."""

    def __init__(self, shell: InteractiveShell) -> None:
        self._shell: Any = shell  # a kernel's has more methods than the class that IPython knows
        #: The kernel's own: those of the shell may capture what a cell says, at any moment.
        self._streams: dict[str, Any] = {"stdout": sys.stdout, "stderr": sys.stderr}
        self._displays: Any = shell.display_pub
        self.is_kernel = hasattr(shell, "get_parent") and hasattr(shell.display_pub, "session")
        #: What was shown and may change, by its id.
        self._blocks: weakref.WeakValueDictionary[str, Block] = weakref.WeakValueDictionary()

    @property
    def is_terminal(self) -> bool:
        """Whether a person reads what is printed, as it comes."""
        return not self.is_kernel and bool(self._streams["stderr"].isatty())

    @property
    def captures(self) -> bool:
        """Whether the running cell keeps displays to itself."""
        return self._shell.display_pub is not self._displays

    def register(self, block: Block) -> str:
        """Return an id for a display; it tells which kernel, since when, has made it."""
        session = getattr(getattr(self._displays, "session", None), "session", "")
        display_id = f"shoal-{session}-{next(_numbers)}"
        self._blocks[display_id] = block
        return display_id

    def show_again(self) -> None:
        """Show every block that is still kept as it is, for pages that may have missed that."""
        for reference in self._blocks.valuerefs():
            block = reference()
            if block is not None:
                block.show_again()

    def running_request(self) -> Request:
        """Return the request that runs a cell now; an empty one outside a kernel."""
        request: Request = self._shell.get_parent() if self.is_kernel else {}
        return request

    def write(self, kind: str, text: str, request: Request, is_running: bool) -> None:
        """Print under the cell of *request*. What the running cell captures is its own tasks' text only."""
        stream: Any = sys.stderr if kind == "stderr" else sys.stdout
        if not request:
            stream.write(text)
            return
        if not is_running:
            stream = self._streams[kind]
        if not hasattr(stream, "pub_thread"):
            stream.write(text)
        elif hasattr(stream, "set_thread_parent"):
            token = stream.set_thread_parent(request)
            try:
                stream.write(text)
            finally:
                stream.reset_thread_parent(token)
        else:
            stream.flush()  # what the notebook itself has printed comes first
            message = stream.session.msg("stream", {"name": kind, "text": text}, parent=request)
            stream.session.send(stream.pub_thread, message, ident=stream.topic)

    def display(self, content: dict[str, Any], request: Request, is_running: bool, update: bool = False) -> None:
        """Show ``content``: ``data``, ``metadata`` and perhaps ``transient``, or update what was shown before."""
        publisher: Any = self._shell.display_pub if is_running or not request else self._displays
        content = {"metadata": {}, "transient": {}, **content}
        if not request or not hasattr(publisher, "session"):
            publisher.publish(**content, update=update)
        elif hasattr(publisher, "set_thread_parent"):
            token = publisher.set_thread_parent(request)
            try:
                publisher.publish(**content, update=update)
            finally:
                publisher.reset_thread_parent(token)
        else:
            for stream in self._streams.values():
                stream.flush()
            message_type = "update_display_data" if update else "display_data"
            message = publisher.session.msg(message_type, content, parent=request)
            publisher.session.send(publisher.pub_socket, message, ident=publisher.topic)


class Page:
    """Where the output of one cell goes."""

    def __init__(self, publisher: Publisher, request: Request, is_running: Callable[[], bool]) -> None:
        self.publisher = publisher
        self._request = request
        self.is_running = is_running

    def write(self, kind: str, text: str) -> None:
        if text:
            self.publisher.write(kind, text, self._request, self.is_running())

    def display(self, content: dict[str, Any], update: bool = False) -> None:
        self.publisher.display(content, self._request, self.is_running(), update)

    @property
    def cell_id(self) -> str:
        """What the front end calls the cell; "" if it does not say."""
        return str(self._request.get("metadata", {}).get("cellId", ""))


class Block:
    """A display of a cell that is shown once and updated after that.

    A page forgets with a reload which display has which id. So the id is in the metadata as well, which the notebook
    file keeps; with it, the extension of JupyterLab (``displays.ts``) brings updates to their place in pages that did
    not run the cell.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._lock = threading.Lock()
        self._display_id = ""
        self._data: dict[str, Any] = {}

    def show(self, data: dict[str, Any]) -> None:
        """Show it in its present form, by MIME type."""
        with self._lock:
            update = bool(self._display_id)
            if not update:
                self._display_id = self._page.publisher.register(self)
            self._data = data
            self._send(update)

    def show_again(self) -> None:
        """Show it as it is, for a page that may have missed that."""
        with self._lock:
            self._send(update=True)

    def _send(self, update: bool) -> None:
        content = {
            "data": self._data,
            "metadata": {"shoal": {"display_id": self._display_id}},
            "transient": {"display_id": self._display_id, "shoal_cell_id": self._page.cell_id},
        }
        self._page.display(content, update)
