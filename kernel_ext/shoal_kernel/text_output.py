"""A cell's output as text that is the same in every run, as far as the tasks' own order allows."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Sequence

from shoal_kernel.flow import Flow, more_lines
from shoal_kernel.lanes import Lane, Row
from shoal_kernel.output_settings import OutputSettings
from shoal_kernel.publishing import Page

#: Unfinished lines remembered; beyond that some get their prefix twice.
MAX_OPEN_LINES = 10_000
#: Tasks whose held-back text is kept apart; those beyond share a lane with all of their name.
MAX_LANES = 1_000


class TextOutput:
    """For front ends that cannot change what they have shown.

    Lines are printed as they come, those of tasks other than the cell itself with the task's name in front. If *names*
    says which tasks there will be, all is held back until :meth:`close`, and printed in the order of the names.
    """

    def __init__(self, page: Page, settings: OutputSettings, names: Sequence[str] = ()) -> None:
        self._page = page
        self._settings = settings
        self._flows: dict[str, Flow] = {}
        #: Streams of tasks whose last text did not end its line.
        self._open_lines: set[tuple[str, str]] = set()
        #: For the lanes of tasks that nobody has announced.
        self._budget = settings.budget()
        self._held: dict[str, Lane] | None = None
        if names:
            self._held = {name: Lane(name, settings.budget(len(names)), fold=False) for name in names}
        #: Text of tasks that nobody has announced, while the others' is held back.
        self._unannounced: dict[tuple[str, str], Lane] = {}

    def own(self, kind: str, text: str) -> None:
        """Show text of the cell itself."""
        self._page.write(kind, self._flow(kind).pass_on(text))

    def other(self, task_id: str, name: str, kind: str, text: str) -> None:
        """Show text of a task that the cell has launched."""
        lane = self._lane_of(task_id, name)
        if lane is not None:
            lane.write(kind, text)
        else:
            self.own(kind, self._with_prefix(task_id, name, kind, text))

    def elide(self, task_id: str, name: str, is_own: bool, kind: str, num_lines: int, said: str) -> None:
        """Show that text is missing."""
        lane = None if is_own else self._lane_of(task_id, name)
        if lane is not None:
            lane.elide(num_lines, said)
        else:
            self._open_lines.discard((task_id, kind))
            self._page.write(kind, self._flow(kind).elide(num_lines, said if is_own else f"({name}) {said}"))

    def display(self, task_id: str, name: str, is_own: bool, data: str) -> None:
        """Show a mime bundle."""
        lane = None if is_own else self._lane_of(task_id, name)
        if lane is not None:
            lane.hold_display(data)
        else:
            self._page.display(_content(data))

    def settle(self) -> None:
        """The cell has ended, or nothing has come for a while: say what was not shown."""
        for kind, flow in self._flows.items():
            self._page.write(kind, flow.finish())

    def close(self) -> None:
        """All tasks that were announced have ended: print their text in order."""
        if self._held is None:
            return
        unannounced = sorted(self._unannounced.values(), key=lambda lane: lane.name)
        lanes = [*self._held.values(), *unannounced]
        self._held, self._unannounced = None, {}
        for lane in lanes:
            self._print(lane)

    def draw(self, saved: bool) -> int:
        """Nothing is drawn here; when it has become quiet after the cell's end, what was not shown is counted."""
        if saved and not self._page.is_running():
            self.settle()
        return 0

    @property
    def is_unsettled(self) -> bool:
        return any(flow.overflows for flow in self._flows.values())

    @property
    def is_open(self) -> bool:
        return self._held is not None

    def _flow(self, kind: str) -> Flow:
        if kind not in self._flows:
            self._flows[kind] = Flow(kind, self._settings.budget())
        return self._flows[kind]

    def _lane_of(self, task_id: str, name: str) -> Lane | None:
        """Return the lane that holds back a task's text, if its text is held back."""
        if self._held is None or name in self._held:
            return None if self._held is None else self._held[name]
        key = (name, task_id)
        if key not in self._unannounced and len(self._unannounced) >= MAX_LANES:
            key = (name, "")
        if key not in self._unannounced:
            self._unannounced[key] = Lane(name, self._budget, fold=False)
        return self._unannounced[key]

    def _with_prefix(self, task_id: str, name: str, kind: str, text: str) -> str:
        """Tell the lines of a task that is not the cell itself by its name."""
        key = (task_id, kind)
        first = key in self._open_lines
        self._open_lines.discard(key)
        if not text.endswith("\n"):
            if len(self._open_lines) >= MAX_OPEN_LINES:
                self._open_lines.clear()
            self._open_lines.add(key)
        lines = re.findall(r"[^\n]*\n|[^\n]+", re.sub(r"\r(?!\n)", f"\r({name}) ", text))
        return "".join(line if first and not number else f"({name}) {line}" for number, line in enumerate(lines))

    def _print(self, lane: Lane) -> None:
        for kind, rows in itertools.groupby(_rows(lane), key=lambda row: row.kind):
            if kind == "display":
                for row in rows:
                    self._page.display(_content(row.text))
            else:
                text = "".join(f"({lane.name}) {row.text}\n" * row.count for row in rows)
                self._page.write("stderr" if kind == "stderr" else "stdout", text)


def _rows(lane: Lane) -> Iterable[Row]:
    yield from lane.screen.rows
    if lane.tail is not None:
        if lane.tail.num_hidden:
            yield Row("note", more_lines(lane.tail.num_hidden, len(lane.tail.rows)))
        yield from lane.tail.rows


def _content(data: str) -> dict[str, object]:
    content = json.loads(data)
    return {"data": content["data"], "metadata": content["metadata"]}
