"""A front end that knows no widgets and runs no scripts, as editors do: all that is shown has text and HTML of its own.

It names the cells it runs, so it gets what changes; and it closes every comm that the kernel opens.
"""

from __future__ import annotations

import html.parser
import re
from collections.abc import Callable
from typing import Any

import pytest

Kernel = Any
Message = dict[str, Any]

WIDGET = "application/vnd.jupyter.widget-view+json"
DEFINE = """@shoal.remote
def talk(place, gate):
    print("begin of the work")
    print("<b>", place, "</b> talks")
    open(gate).read()
    if place == "south":
        raise ValueError("nothing comes of <it>")
    return place
"""
#: Card, lanes, progress and an error, of an ordinary cell.
ORDINARY = """display(shoal.init())
refs = [talk.remote(*pair) for pair in pairs]
shoal.wait(refs, num_returns=2)
shoal.get(refs)"""
#: Lanes, progress and errors of several runs.
EACH = """%%remote --each "place in ['north', 'south', 'south pole']"
print("begin of the work")
print("<b>", place, "</b> talks")
import time
time.sleep(1.0)
if place.startswith("south"):
    raise ValueError("nothing comes of <it>")"""
#: What loads something, runs something or leads away.
_FORBIDDEN_TAGS = {"script", "iframe", "object", "embed", "link", "video", "audio", "form", "base", "meta"}
_LOADING = re.compile(r"url\(|@import|javascript:|https?:|//\w", re.IGNORECASE)
_VOID = {"br", "hr", "wbr", "col", "img"}


class _Checker(html.parser.HTMLParser):
    """Notes what must not be in HTML that is to stand alone, and the text that remains to be seen."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.text = ""
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _FORBIDDEN_TAGS:
            self.faults.append(f"<{tag}>")
        attributes = dict(attrs)
        if tag == "img":
            if not (attributes.pop("src") or "").startswith("data:image/"):
                self.faults.append("a picture from elsewhere")
            if not attributes.get("alt"):
                self.faults.append("a picture that is not told in words")
        for name, value in attributes.items():
            if name.startswith("on") or name in ("src", "href", "id") or _LOADING.search(value or ""):
                self.faults.append(f"<{tag} {name}={value!r}>")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> without its beginning")

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            if _LOADING.search(data):
                self.faults.append("a style that loads")
        else:
            self.text += data

    def close(self) -> None:
        super().close()
        self.faults += [f"<{tag}> without its end" for tag in self._open]


def run(kernel: Kernel, code: str, during: Callable[[str], None] = lambda cell: None) -> Any:
    """Run a cell as an editor does, do something meanwhile, and close the comms that it has led to."""
    session = kernel.client.session
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    request = session.msg("execute_request", content, metadata={"cellId": "some-cell"})
    kernel.client.shell_channel.send(request)
    cell = str(request["header"]["msg_id"])
    during(cell)
    outcome = kernel.finish(cell)
    for opened in outcome.of_type("comm_open"):
        kernel.client.shell_channel.send(session.msg("comm_close", {"comm_id": opened["comm_id"], "data": {}}))
    return outcome


def bundles(messages: list[Message]) -> list[dict[str, Any]]:
    shown = ("display_data", "update_display_data", "execute_result")
    return [message["content"] for message in messages if message["msg_type"] in shown]


def check(outcome: Any) -> list[str]:
    """Check every bundle, and return the text of each display as it was last."""
    last: dict[str, str] = {}
    for number, content in enumerate(bundles(outcome.messages)):
        data = dict(content["data"])
        data.pop(WIDGET, None)
        assert set(data) == {"text/plain", "text/html"}
        plain, checker = data["text/plain"], _Checker()
        checker.feed(data["text/html"])
        checker.close()
        assert checker.faults == []
        assert checker.text.strip()
        assert plain.strip() and not re.search(r"\x1b| at 0x|VBox\(|HTML\(", plain)
        last[content["transient"].get("display_id", str(number))] = plain
    return list(last.values())


@pytest.mark.parametrize("time", ["first", "second"])
def test_all_that_an_ordinary_cell_shows(kernel: Kernel, gates: Callable[..., Any], time: str) -> None:
    """Also the second time: what the cell has led to, the front end has closed."""
    ways = [gates("north"), gates("south")]
    kernel.ok(f"pairs = {[(way.path.name, str(way.path)) for way in ways]!r}\n{DEFINE}")

    def while_it_runs(cell: str) -> None:
        def is_shown(messages: list[Message]) -> bool:
            texts = [content["data"]["text/plain"] for content in bundles(messages)]
            return any("talks" in text for text in texts) and any(text.startswith("The work of") for text in texts)

        kernel.wait_for(is_shown, cell)
        for way in ways:
            way.open()

    outcome = run(kernel, ORDINARY, while_it_runs)
    card, *others = check(outcome)
    (progress,) = [text for text in others if " of 2 done" in text]
    (lanes,) = [text for text in others if " tasks, " in text and text != progress]
    assert "shoal cluster" in card
    assert "1 of 2 done, 1 failed" in progress and "ValueError: nothing comes of <it>" in progress
    assert "[2 tasks] begin of the work" in lanes and "<b> north </b> talks" in lanes
    assert "ValueError: nothing comes of <it>" in outcome.error
    (error,) = outcome.of_type("error")
    assert (error["ename"], error["evalue"]) == ("ValueError", "nothing comes of <it>")


def test_all_that_several_runs_show(kernel: Kernel) -> None:
    outcome = run(kernel, EACH)
    texts = check(outcome)
    assert any("1 of 3 done, 2 failed" in text for text in texts)
    assert any("[3 tasks] begin of the work" in text for text in texts)
    assert "nothing comes of <it>" in outcome.error
