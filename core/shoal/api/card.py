"""The cluster card: the snapshot as HTML and as plain text."""

from __future__ import annotations

from html import escape
from typing import Any

from shoal.model.amounts import format_nbytes

_STYLE = """
<style>
.shoal-card{font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif);border:1px solid var(--jp-border-color2,#bbb);
border-radius:6px;padding:10px 14px;max-width:40em;color:var(--jp-ui-font-color1,inherit)}
.shoal-card h4{margin:0 0 2px;font-size:14px}
.shoal-card p{margin:0 0 6px;color:var(--jp-ui-font-color2,#666)}
.shoal-card table{border-collapse:collapse;margin:0}
.shoal-card th,.shoal-card td{text-align:left;padding:1px 14px 1px 0;border:0;background:none}
</style>
"""


def render_html(snapshot: dict[str, Any], kind: str) -> str:
    """Return the card as HTML without scripts, ids or outside resources."""
    title = f"<h4>{escape(snapshot['cluster']['name'])}</h4>"
    if snapshot["nodes"] is None:
        return f'{_STYLE}<div class="shoal-card">{title}<p>does not answer</p></div>'
    rows = "".join(f"<tr>{_cells(node)}</tr>" for node in snapshot["nodes"])
    heads = "".join(f'<th scope="col">{head}</th>' for head in _HEADS)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
    return (
        f'{_STYLE}<div class="shoal-card" role="group" aria-label="shoal cluster">{title}'
        f"<p>{escape(_summary(snapshot, kind))}</p>{table}</div>"
    )


def render_text(snapshot: dict[str, Any], kind: str) -> str:
    """Return the card as plain text."""
    name = snapshot["cluster"]["name"]
    if snapshot["nodes"] is None:
        return f"shoal cluster {name}: does not answer"
    lines = [f"shoal cluster {name}: {_summary(snapshot, kind)}"]
    for node in snapshot["nodes"]:
        host, cpus, memory, executors = _node_row(node)
        lines.append(f"  {host}: {cpus} CPUs in use, {memory} memory in use, {executors} executors")
    return "\n".join(lines)


_HEADS = ("node", "CPUs in use", "memory in use", "executors")


def _cells(node: dict[str, Any]) -> str:
    return "".join(f"<td>{escape(cell)}</td>" for cell in _node_row(node))


def _node_row(node: dict[str, Any]) -> tuple[str, str, str, str]:
    return (
        node["host"],
        f"{node['cpus_used']:g} of {node['cpus']:g}",
        f"{format_nbytes(node['memory_used'])} of {format_nbytes(node['memory'])}",
        str(node["executors"]),
    )


def _summary(snapshot: dict[str, Any], kind: str) -> str:
    tasks = snapshot["tasks"]
    counts = ", ".join(f"{tasks[state]} {state}" for state in ("running", "queued", "finished", "failed"))
    alive = sum(actor["state"] == "alive" for actor in snapshot["actors"])
    if kind == "inline":
        return f"inline, in this process; tasks: {counts}; {alive} actor{'s' * (alive != 1)}"
    secure = "TLS" if snapshot["cluster"]["address"].startswith("tls") else "no TLS"
    age = f"; {snapshot['age']:.0f} s ago: it is too busy to answer" if "age" in snapshot else ""
    return (
        f"{kind}, {secure}, {len(snapshot['nodes'])} node{'s' * (len(snapshot['nodes']) != 1)}; tasks: {counts}; "
        f"{alive} actor{'s' * (alive != 1)}{age}"
    )
