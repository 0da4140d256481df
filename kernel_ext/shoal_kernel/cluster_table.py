"""What the live cluster card shows: the snapshot as HTML, with a bar beside each number that has a most."""

from __future__ import annotations

from html import escape
from typing import Any

_STYLE = """
<style>
.shoal-live{font:13px/1.5 var(--jp-ui-font-family,system-ui,sans-serif);color:var(--jp-ui-font-color1,inherit)}
.shoal-live h4{margin:0 0 2px;font-size:14px}
.shoal-live p{margin:0 0 6px}
.shoal-live table{border-collapse:collapse;margin:0 0 4px}
.shoal-live th,.shoal-live td{text-align:left;padding:1px 14px 1px 0;border:0;background:none;white-space:nowrap}
.shoal-live .shoal-bar{display:inline-block;width:60px;height:8px;margin-right:6px;border:1px solid currentColor;
border-radius:2px;overflow:hidden;vertical-align:middle}
.shoal-live .shoal-bar i{display:block;height:100%;background:var(--jp-brand-color1,#1976d2)}
</style>
"""
_HEADS = ("node", "CPU", "CPUs in use", "memory", "executors")
_GIB = 1 << 30


def render_table(snapshot: dict[str, Any] | None, kind: str, name: str = "", reason: str = "") -> str:
    """Return the card's HTML; *name* and *reason* are for a cluster that gives no snapshot."""
    if snapshot is None:
        return f'{_STYLE}<div class="shoal-live"><h4>{escape(name)}</h4><p>no answer: {escape(reason)}</p></div>'
    tasks, nodes = snapshot["tasks"], snapshot["nodes"]
    counts = ", ".join(f"{tasks[state]:,} {state}" for state in ("running", "queued", "finished", "failed"))
    alive = sum(actor["state"] == "alive" for actor in snapshot["actors"])
    heads = "".join(f'<th scope="col">{head}</th>' for head in _HEADS)
    rows = "".join(f"<tr>{_row(node)}</tr>" for node in nodes)
    title = escape(snapshot["cluster"]["name"])
    return (
        f'{_STYLE}<div class="shoal-live" role="group" aria-label="shoal cluster {title}"><h4>{title}</h4>'
        f"<p>{escape(kind)}, {len(nodes)} node{'s' * (len(nodes) != 1)}, {alive} actor{'s' * (alive != 1)}<br>"
        f"tasks: {counts}</p>"
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(node: dict[str, Any]) -> str:
    used, most = node["memory_used"], node["memory"]
    cells = (
        escape(f"{node['host']} ({node['id']})"),
        _bar(node["cpu_ratio"]) + f"{node['cpu_ratio']:.0%}",
        _bar(node["cpus_used"] / node["cpus"] if node["cpus"] else 0.0) + f"{node['cpus_used']:g} of {node['cpus']:g}",
        # One digit, so that the card is sent anew when something has changed, not when something has moved.
        _bar(used / most if most else 0.0) + f"{used / _GIB:.1f} of {most / _GIB:.1f} GiB",
        f"{node['executors']}",
    )
    return "".join(f"<td>{cell}</td>" for cell in cells)


def _bar(ratio: float) -> str:
    """Return a picture of a number that stands beside it."""
    width = round(100 * min(1.0, max(0.0, ratio)))
    return f'<span class="shoal-bar" aria-hidden="true"><i style="width:{width}%"></i></span>'
