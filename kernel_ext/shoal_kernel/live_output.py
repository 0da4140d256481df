"""A cell's output as a block of lanes that is drawn again as it changes."""

from __future__ import annotations

import json
from collections.abc import Sequence

from shoal_kernel.flow import Flow
from shoal_kernel.lanes import Lane
from shoal_kernel.lanes_view import render_html, render_more_html, render_more_text, render_text
from shoal_kernel.output_settings import OutputSettings
from shoal_kernel.publishing import Block, Page

#: Lanes of one cell; tasks beyond share one.
MAX_LANES = 1_000


class LiveOutput:
    """For front ends in which a person looks on.

    The cell's own text is printed up to the cap; beyond it, a line that changes counts and the last lines follow. The
    text of other tasks is one block with a lane for each, in the order of *names*, and then as they come.
    """

    def __init__(self, page: Page, settings: OutputSettings, names: Sequence[str] = ()) -> None:
        self._page = page
        self._settings = settings
        self._flows: dict[str, Flow] = {}
        #: For the lanes of tasks that nobody has announced.
        self._budget = settings.budget()
        self._announced = {name: Lane(name, settings.budget(len(names))) for name in names}
        self._lanes: dict[str, Lane] = {}
        self._num_named: dict[str, int] = {}
        #: Lanes with text, by when they were last written to.
        self._recent: dict[Lane, None] = {}
        self._block, self._more = Block(page), Block(page)
        self.is_open = bool(names)
        #: Whether something has changed since it was last drawn in the form that lasts.
        self.is_unsettled = False

    def own(self, kind: str, text: str) -> None:
        """Show text of the cell itself."""
        flow = self._flow(kind)
        self._page.write(kind, flow.pass_on(text))
        self.is_unsettled |= flow.overflows

    def other(self, task_id: str, name: str, kind: str, text: str) -> None:
        """Show text of a task that the cell has launched."""
        self._lane_of(task_id, name).write(kind, text)

    def elide(self, task_id: str, name: str, is_own: bool, kind: str, num_lines: int, said: str) -> None:
        """Show that text is missing."""
        if is_own:
            self._page.write(kind, self._flow(kind).elide(num_lines, said))
            self.is_unsettled |= self._flow(kind).overflows
        else:
            self._lane_of(task_id, name).elide(num_lines, said)

    def display(self, task_id: str, name: str, is_own: bool, data: str) -> None:
        """Show a mime bundle."""
        content = json.loads(data)
        self._page.display({"data": content["data"], "metadata": content["metadata"]})

    def settle(self) -> None:
        """The cell has ended: draw what is to last."""
        self.draw(saved=True)

    def close(self) -> None:
        """All tasks that were announced have ended."""
        self.is_open = False
        self.settle()

    def draw(self, saved: bool) -> int:
        """Show what has changed; returns how many bytes that took."""
        if not self.is_unsettled:
            return 0
        nbytes = 0
        if self._recent:
            lanes = [lane for lane in (*self._announced.values(), *self._lanes.values()) if lane in self._recent]
            html = render_html(lanes, list(self._recent), saved)
            nbytes += _show(self._block, html, render_text(lanes) if saved else render_text(lanes[:1]))
        flows = [flow for flow in self._flows.values() if flow.overflows]
        if flows:
            nbytes += _show(self._more, render_more_html(flows), render_more_text(flows))
        self.is_unsettled = not saved
        return nbytes

    def _flow(self, kind: str) -> Flow:
        if kind not in self._flows:
            self._flows[kind] = Flow(kind, self._settings.budget())
        return self._flows[kind]

    def _lane_of(self, task_id: str, name: str) -> Lane:
        """Return the lane of a task that has something to say."""
        lane = self._announced.get(name) or self._lanes.get(task_id) or self._new_lane(task_id, name)
        self._recent.pop(lane, None)
        self._recent[lane] = None
        self.is_unsettled = True
        return lane

    def _new_lane(self, task_id: str, name: str) -> Lane:
        if len(self._lanes) >= MAX_LANES:
            return self._lanes.setdefault("", Lane("further tasks", self._budget))
        number = self._num_named[name] = self._num_named.get(name, 0) + 1
        lane = self._lanes[task_id] = Lane(name if number == 1 else f"{name} #{number}", self._budget)
        return lane


def _show(block: Block, html: str, text: str) -> int:
    """Show a block in its present form; returns the size of that."""
    block.show({"text/html": html, "text/plain": text})
    return len(html) + len(text)
