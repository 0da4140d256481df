"""The progress of a cell as HTML and as plain text: while it goes on, and as the snapshot that stays."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from shoal.observe.cell_progress import FunctionProgress, Progress
from shoal.observe.progress_words import describe, describe_seconds
from shoal_kernel import film as films
from shoal_kernel.film import Film

#: Functions in the table of a snapshot at most: those with most work.
MAX_ROWS = 20

_STYLE = (
    "<style>"
    ".shoal-progress{font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif);max-width:46em;"
    "color:var(--jp-content-font-color1,inherit)}"
    ".shoal-progress p{margin:0}"
    ".shoal-progress summary{cursor:pointer;color:var(--jp-content-font-color2,inherit)}"
    ".shoal-progress table{border-collapse:collapse;margin:2px 0 6px}"
    ".shoal-progress th,.shoal-progress td{text-align:right;padding:0 14px 0 0;border:0;background:none;"
    "font-weight:normal;white-space:nowrap;font-variant-numeric:tabular-nums}"
    ".shoal-progress thead th{color:var(--jp-content-font-color2,inherit)}"
    ".shoal-progress th:first-child{text-align:left;white-space:normal;min-width:12em;overflow-wrap:anywhere}"
    ".shoal-progress-bar{display:flex;height:8px;margin:3px 0;border-radius:4px;overflow:hidden;"
    "background:rgba(128,128,128,.28)}"
    ".shoal-progress-bar span{background:#4a90c8}"
    ".shoal-progress-bar .shoal-bad{background:repeating-linear-gradient(45deg,#d9534f 0 4px,#fff 4px 6px)}"
    ".shoal-progress-bar .shoal-now{background:repeating-linear-gradient(90deg,#4a90c8 0 2px,transparent 2px 5px)}"
    ".shoal-progress-ends{display:flex;justify-content:space-between;color:var(--jp-content-font-color2,inherit);"
    "max-width:600px}"
    "</style>"
)


def render_live(progress: Progress) -> str:
    """Return the sentence and the bar."""
    return f'{_STYLE}<div class="shoal-progress"><p>{escape(describe(progress))}</p>{_bar(progress)}</div>'


def render_functions(progress: Progress) -> str:
    """Return the table by function."""
    return f'<div class="shoal-progress">{_functions(progress)}</div>'


def render_snapshot(progress: Progress, film: Film, failures: Sequence[tuple[str, str]]) -> str:
    """Return what stays in the notebook: without scripts, ids or outside resources."""
    done = [f"<p>{escape(describe(progress))}</p>", _failures(failures, progress.failed)]
    ends = f'<div class="shoal-progress-ends"><span>0 s</span><span>{describe_seconds(film.length)}</span></div>'
    tables = f"{_functions(progress)}{films.render_table(film)}"
    folded = f"<details><summary>by function, and as a table</summary>{tables}</details>"
    picture = films.render_picture(film)
    return f'{_STYLE}<div class="shoal-progress">{"".join(done)}{picture}{ends}{folded}</div>'


def render_snapshot_text(progress: Progress, film: Film, failures: Sequence[tuple[str, str]]) -> str:
    """Return the same as plain text, which is all that some readers have."""
    lines = [describe(progress), films.render_text(film)]
    lines += [f"{name} failed: {text}" for name, text in failures]
    return "\n".join(lines)


def _bar(progress: Progress) -> str:
    total = max(1, progress.submitted)
    parts = [
        (progress.finished, ""),
        (progress.failed + progress.cancelled, ' class="shoal-bad"'),
        (progress.running, ' class="shoal-now"'),
    ]
    spans = "".join(f'<span{css} style="width:{100 * count / total:.2f}%"></span>' for count, css in parts if count)
    return (
        f'<div class="shoal-progress-bar" role="progressbar" aria-label="work of the cell" aria-valuemin="0" '
        f'aria-valuemax="{progress.submitted}" aria-valuenow="{progress.num_ended}" '
        f'aria-valuetext="{escape(describe(progress))}">{spans}</div>'
    )


def _functions(progress: Progress) -> str:
    heads = ("function", "done", "of", "running", "failed", "cancelled", "retries", "mean", "longest")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    rows = sorted(progress.functions, key=lambda row: (-row.seconds, -row.submitted))
    body = "".join(_row(row) for row in rows[:MAX_ROWS])
    more = f"<p>and {len(rows) - MAX_ROWS} more functions</p>" if len(rows) > MAX_ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _row(row: FunctionProgress) -> str:
    counts = (row.finished, row.submitted, row.running, row.failed, row.cancelled, row.retries)
    known = row.num_ended
    times = (describe_seconds(row.seconds / known), describe_seconds(row.longest)) if known else ("", "")
    cells = "".join(f"<td>{cell}</td>" for cell in (*(f"{count:,}" for count in counts), *times))
    return f'<tr><th scope="row">{escape(row.name)}</th>{cells}</tr>'


def _failures(failures: Sequence[tuple[str, str]], num_failed: int) -> str:
    if not failures:
        return ""
    items = "".join(f"<li>{escape(name)}: {escape(text)}</li>" for name, text in failures)
    more = num_failed - len(failures)
    rest = f"<li>and {more:,} more</li>" if more > 0 else ""
    return f'<p>Failed:</p><ul style="margin:0">{items}{rest}</ul>'
