"""A profile as HTML: a flame graph of nested boxes and a table, without scripts, ids or outside resources."""

from __future__ import annotations

import os
import zlib
from html import escape

from shoal.observe.profiles import Node, Samples, functions_of, tree_of

#: Boxes narrower than this part of the whole are left out, and depths beyond this.
LEAST_RATIO, MAX_DEPTH = 0.002, 80
#: Rows of the table.
MAX_ROWS = 20
_ROW = 18
_FONT = "font:12px/18px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace"


def to_html(samples: Samples, title: str) -> str:
    """Return the profile as a fragment of HTML that stands by itself."""
    root = tree_of(samples)
    if not root.count:
        return f'<div style="{_FONT}"><p>{escape(title)}</p><p>No thread was at work.</p></div>'
    seconds = samples.seconds / samples.looks if samples.looks else 0.0
    boxes: list[str] = []
    depth = _add_boxes(root, 0.0, 0, root.count, seconds, boxes)
    graph = (
        f'<div role="img" aria-label="flame graph" style="position:relative;height:{(depth + 1) * _ROW}px;'
        f'min-width:480px;overflow:hidden">{"".join(boxes)}</div>'
    )
    rows = "".join(
        f'<tr><td style="text-align:right">{row.own:.2f} s</td><td style="text-align:right">{row.total:.2f} s</td>'
        f'<td style="text-align:left">{escape(row.function)}</td>'
        f'<td style="text-align:left" title="{escape(row.file)}">{escape(_place(row.file, row.line))}</td></tr>'
        for row in functions_of(samples)[:MAX_ROWS]
    )
    heads = "".join(f'<th scope="col" style="text-align:left">{head}</th>' for head in ("own", "total", "function", ""))
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div style="{_FONT}"><p>{escape(title)}</p>{graph}{table}</div>'


def _add_boxes(node: Node, left: float, depth: int, whole: int, seconds: float, boxes: list[str]) -> int:
    """Add a node's box and those of what it called; returns how deep they go."""
    ratio = node.count / whole
    label = node.function
    tip = f"{label}\n{node.file}\n{node.count * seconds:.2f} s, {ratio:.1%}" if node.file else f"{label}\n{ratio:.1%}"
    boxes.append(
        f'<div title="{escape(tip)}" style="position:absolute;box-sizing:border-box;left:{100 * left:.3f}%;'
        f"width:{100 * ratio:.3f}%;top:{depth * _ROW}px;height:{_ROW}px;overflow:hidden;white-space:nowrap;"
        f'padding:0 2px;border:1px solid rgba(255,255,255,.6);background:{_color(node)};color:#111">'
        f"{escape(label)}</div>"
    )
    deepest = depth
    if depth < MAX_DEPTH:
        for child in sorted(node.children.values(), key=lambda child: -child.count):
            if child.count / whole >= LEAST_RATIO:
                deepest = max(deepest, _add_boxes(child, left, depth + 1, whole, seconds, boxes))
            left += child.count / whole
    return deepest


def _color(node: Node) -> str:
    """Return a colour that is the same for all functions of a file."""
    if not node.file:
        return "hsl(0,0%,82%)"
    return f"hsl({zlib.crc32(node.file.encode()) % 360},55%,76%)"


def _place(file: str, line: int) -> str:
    return f"{os.path.basename(file)}:{line}" if file else ""
