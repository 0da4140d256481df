"""How a run shows itself while it works: as text, and as HTML where a notebook has it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape
from typing import Any

from shoal_ml.train.group.reports import Round

#: A rank that comes later than this share of the median step, and than this many seconds, is a straggler.
LATE_SHARE, LATE_SECONDS = 0.25, 0.05
#: Reports that a plot goes back.
MAX_POINTS = 400


class RankLine:
    """One rank in one round."""

    def __init__(self, done: Round, rank: int) -> None:
        report = done.reports[rank]
        seconds = report.lap["seconds"]
        usual = statistics.median(one.lap["seconds"] for one in done.reports)
        self.rank = rank
        self.seconds = seconds
        self.rss = report.lap["rss"]
        self.rows_per_second = report.lap["num_rows"] / seconds if seconds > 0 else 0.0
        self.metrics = report.metrics
        self.is_straggler = done.late[rank] > max(LATE_SECONDS, LATE_SHARE * usual)

    def __str__(self) -> str:
        parts = [f"rank {self.rank}", f"{self.seconds:.3g} s", f"{self.rss / 2**20:,.0f} MiB"]
        if self.rows_per_second:
            parts.append(f"{self.rows_per_second:,.0f} rows/s")
        if self.is_straggler:
            parts.append("straggler")
        return "  ".join(parts)


def stragglers(done: Round) -> list[int]:
    """Return the ranks that the others had to wait for."""
    return [rank for rank in range(len(done.reports)) if RankLine(done, rank).is_straggler]


def describe_round(done: Round, *, checkpoint: bool = False) -> str:
    """Return a round as one line of text: rank 0's metrics, step time, memory of the largest, stragglers."""
    lines = [RankLine(done, rank) for rank in range(len(done.reports))]
    parts = [f"report {done.number}", shown(done.reports[0].metrics)]
    parts.append(f"{max(line.seconds for line in lines):.3g} s")
    rate = sum(line.rows_per_second for line in lines)
    if rate:
        parts.append(f"{rate:,.0f} rows/s")
    parts.append(f"{max(line.rss for line in lines) / 2**20:,.0f} MiB")
    late = [str(line.rank) for line in lines if line.is_straggler]
    if late:
        parts.append(f"waited for rank {', '.join(late)}")
    if checkpoint:
        parts.append("checkpoint")
    return "  ".join(part for part in parts if part)


def shown(metrics: dict[str, Any]) -> str:
    """Return metrics as text."""
    return "  ".join(
        f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}" for name, value in metrics.items()
    )


def as_text(title: str, last: Round | None) -> str:
    """Return the state of a run as text: a line for each rank."""
    if last is None:
        return title
    head = f"{title}\nreport {last.number}  {shown(last.reports[0].metrics)}"
    return "\n".join([head, *(f"  {RankLine(last, rank)}" for rank in range(len(last.reports)))])


def as_html(title: str, last: Round | None, history: Sequence[dict[str, Any]]) -> str:
    """Return the state of a run as HTML: a plot of each metric and a table of the ranks."""
    if last is None:
        return f"<div><b>{escape(title)}</b></div>"
    rows = "".join(_row(RankLine(last, rank)) for rank in range(len(last.reports)))
    plots = "".join(_plot(name, history) for name in last.reports[0].metrics)
    head = "".join(f"<th>{name}</th>" for name in ("rank", "step, s", "memory, MiB", "rows/s", "metrics", ""))
    return (
        f"<div><b>{escape(title)}</b>, report {last.number}<div>{plots}</div>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(line: RankLine) -> str:
    cells = (
        str(line.rank), f"{line.seconds:.3g}", f"{line.rss / 2**20:,.0f}", f"{line.rows_per_second:,.0f}",
        shown(line.metrics), "straggler" if line.is_straggler else "",
    )  # fmt: skip
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _plot(name: str, history: Sequence[dict[str, Any]], width: int = 220, height: int = 60) -> str:
    values = [float(row[name]) for row in history[-MAX_POINTS:] if isinstance(row.get(name), (int, float))]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = " ".join(
        f"{i * width / (len(values) - 1):.1f},{height - 2 - (value - low) / span * (height - 4):.1f}"
        for i, value in enumerate(values)
    )
    return (
        f'<figure style="display:inline-block;margin:4px 12px 4px 0"><figcaption>{escape(name)} {values[-1]:.5g}'
        f'</figcaption><svg width="{width}" height="{height}" role="img" aria-label="{escape(name)} over reports">'
        f'<polyline points="{points}" fill="none" stroke="currentColor"/></svg></figure>'
    )
