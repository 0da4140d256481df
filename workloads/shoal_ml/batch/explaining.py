"""What a plan will do, and what a run has done: in words, as a table and as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import shoal
from shoal.model.description import Description
from shoal_ml.batch.plan import Plan, PlannedStage, make_stages

if TYPE_CHECKING:
    from shoal_ml.batch.execution import Run

#: Sizes in the picture, in pixels.
BOX, GAP, HEIGHT, LETTER = 190, 34, 62, 26


class PlanExplanation:
    """The stages of a plan. Prints as text; a notebook shows a picture."""

    def __init__(self, plan: Plan) -> None:
        cpus = shoal.cluster_resources()["num_cpus"] if shoal.is_initialized() else os.cpu_count() or 1
        self.stages = make_stages(plan, max(1, int(cpus)))
        self._source = plan.source

    @property
    def text(self) -> str:
        """The stages in words, one a line."""
        lines = [f"{self._source.name}: {self._source.describe()}".rstrip(": ")]
        for number, stage in enumerate(self.stages, 1):
            lines.append(f"  {number}. {stage.spec.name}")
            lines.append(f"     {_where(stage)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": self.text, "text/html": _picture(self._source.name, self.stages, self.text)}


def _where(stage: PlannedStage) -> str:
    spec = stage.spec
    if spec.limit is not None:
        return "no work: lets rows through" + (" and ends the rest" if spec.limit < 1 << 62 else "")
    options = ", ".join(f"{name}={value}" for name, value in stage.compute.options)
    each = f", each with {options}" if options else ""
    gathers = f"; gathers blocks up to {spec.min_rows:,} rows" if spec.min_rows else ""
    reads = "; reads the source" if stage.reads else ""
    if spec.replicas is None:
        return f"tasks, up to {spec.slots} at once{each}{reads}{gathers}"
    fewest, most = spec.replicas
    count = f"{most}" if fewest == most else f"{fewest} to {most}"
    return f"a pool of {count} replica{'s' if most > 1 else ''}{each}; {spec.slots - 1} piece waits at each{gathers}"


def _picture(source: str, stages: Sequence[PlannedStage], text: str) -> str:
    """Return the stages as boxes in a row: no scripts, ids or outside resources."""
    boxes = [(source, "source"), *((stage.spec.name, _kind(stage)) for stage in stages)]
    width = len(boxes) * (BOX + GAP) - GAP + 2
    parts = []
    for place, (name, kind) in enumerate(boxes):
        x = 1 + place * (BOX + GAP)
        fill = {"source": "#e8eef5", "limit": "#f3f0e4"}.get(kind, "#dcefe0" if "pool" in kind else "#eef3fb")
        parts.append(
            f'<rect x="{x}" y="1" width="{BOX}" height="{HEIGHT}" rx="6" fill="{fill}" stroke="#7a8aa0"/>'
            f'<text x="{x + 10}" y="26" font-size="12" fill="#1c2733">{escape(_short(name))}</text>'
            f'<text x="{x + 10}" y="46" font-size="11" fill="#52606d">{escape(kind)}</text>'
        )
        if place:
            middle = 1 + HEIGHT // 2
            parts.append(f'<path d="M{x - GAP + 4} {middle}h{GAP - 12}l-5 -4m5 4l-5 4" fill="none" stroke="#52606d"/>')
    picture = (
        f'<svg role="img" aria-label="{escape(text)}" width="{width}" height="{HEIGHT + 2}" '
        f'viewBox="0 0 {width} {HEIGHT + 2}" font-family="system-ui,sans-serif">{"".join(parts)}</svg>'
    )
    words = f"<details><summary>in words</summary><pre>{escape(text)}</pre></details>"
    return f'<div style="overflow-x:auto">{picture}</div>{words}'


def _kind(stage: PlannedStage) -> str:
    if stage.spec.limit is not None:
        return "limit"
    if stage.spec.replicas is None:
        return "tasks"
    fewest, most = stage.spec.replicas
    return f"pool of {most}" if fewest == most else f"pool of {fewest} to {most}"


def _short(name: str) -> str:
    return name if len(name) <= LETTER else name[: LETTER - 1] + "…"


def describe_run(run: Run) -> Description:
    """Return what a run has done, or has done so far: per stage its blocks, rows, rows a second, memory."""
    progress, flow = run.progress, run.flow
    elapsed = progress.elapsed
    rows = []
    for index, (stage, planned) in enumerate(zip(flow.stages, run.stages, strict=True)):
        busy = progress.seconds[index]
        rate = f"{stage.rows_out / elapsed:,.0f}" if elapsed and stage.rows_out else ""
        rows.append(
            (
                planned.spec.name,
                f"{stage.num_out:,}",
                f"{stage.rows_out:,}",
                rate,
                f"{stage.nbytes_out / 1e6:,.1f}",
                f"{busy:.2f}",
                f"{len(stage.queue)}",
                f"{stage.retries}",
            )
        )
        if len(progress.transforms[index]) > 1:
            rows += [
                (f"· {notes.name}", "", f"{notes.num_rows:,}", "", "", f"{notes.seconds:.2f}", "", "")
                for notes in progress.transforms[index]
            ]
    facts = (
        ("time", f"{elapsed:.2f} s"),
        ("memory", f"at most {flow.most_held / 1e6:,.0f} MB of blocks held, of {flow.budget / 1e6:,.0f} MB allowed"),
    )
    heads = ("stage", "blocks", "rows", "rows/s", "MB", "busy s", "queue", "retries")
    state = "goes on" if not progress.end else "finished" if flow.finished else "ended early"
    return Description("run of a dataset", state, facts, heads, tuple(rows))


class RunStats:
    """What the last run of a dataset has done. Prints as text; a notebook shows a table."""

    def __init__(self, run: Run | None) -> None:
        self._run = run

    @property
    def text(self) -> str:
        """The numbers as plain text."""
        return self._describe().text

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        found = self._describe()
        return {"text/plain": found.text, "text/html": found.html}

    def _describe(self) -> Description:
        if self._run is None:
            return Description("run of a dataset", "has not run", notes=("Ask for rows, and look again.",))
        return describe_run(self._run)


__all__ = ["PlanExplanation", "RunStats", "describe_run"]
