"""``%remote status``: the cluster's snapshot for people."""

from __future__ import annotations

from typing import Any

from shoal.api.card import render_html, render_text
from shoal.model.description import Description


class Status:
    """The state of the cluster at one moment, as HTML and as text."""

    def __init__(self, snapshot: dict[str, Any], kind: str) -> None:
        self._snapshot = snapshot
        self._kind = kind

    def __repr__(self) -> str:
        return "\n".join([render_text(self._snapshot, self._kind), *(part.text for part in self._parts())])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        html = render_html(self._snapshot, self._kind) + "".join(part.html for part in self._parts())
        return {"text/plain": repr(self), "text/html": html}

    def _parts(self) -> list[Description]:
        parts = [_functions(self._snapshot["functions"]), _actors(self._snapshot["actors"])]
        return [part for part in parts if part.rows]


def _functions(functions: list[dict[str, Any]]) -> Description:
    rows = tuple(
        (
            entry["name"],
            *(f"{entry[state]:,}" for state in ("running", "finished", "failed")),
            f"{entry['seconds']:.1f} s",
        )
        for entry in functions
    )
    return Description("functions", heads=("name", "running", "finished", "failed", "work"), rows=rows)


def _actors(actors: list[dict[str, Any]]) -> Description:
    rows = tuple(
        (actor["name"] or actor["class_name"], actor["class_name"], actor["state"], actor["node"]) for actor in actors
    )
    return Description("actors", heads=("name", "class", "state", "node"), rows=rows)
