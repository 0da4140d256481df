"""``%remote status``: the cluster's snapshot for people."""

from __future__ import annotations

from html import escape
from typing import Any

from shoal.api.card import render_html, render_text


class Status:
    """The state of the cluster at one moment, as HTML and as text."""

    def __init__(self, snapshot: dict[str, Any], kind: str) -> None:
        self._snapshot = snapshot
        self._kind = kind

    def __repr__(self) -> str:
        return "\n".join([render_text(self._snapshot, self._kind), *(f"  {line}" for line in self._lines())])

    def _repr_html_(self) -> str:
        items = "".join(f"<li>{escape(line)}</li>" for line in self._lines())
        return render_html(self._snapshot, self._kind) + (f"<ul>{items}</ul>" if items else "")

    def _lines(self) -> list[str]:
        functions = [
            f"{entry['name']}: {entry['running']} running, {entry['finished']} finished, "
            f"{entry['failed']} failed, {entry['seconds']:.1f} s of work"
            for entry in self._snapshot["functions"]
        ]
        actors = [
            f"actor {actor['name'] or actor['class_name']} ({actor['state']}) on {actor['node']}"
            for actor in self._snapshot["actors"]
        ]
        return functions + actors
