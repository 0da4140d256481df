"""The chart of a schedule as a picture for a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shoal_ml.train.parallel.schedules import ScheduleChart, Work

#: Points: the whole, where bars begin, one stage, the line above.
_WIDTH, _LEFT, _ROW, _TOP = 760, 70, 26, 24
_COLOURS = {"F": "#3b78c4", "B": "#2f8058"}
_NAMES = {"F": "forward", "B": "backward"}


def to_svg(chart: ScheduleChart) -> str:
    """Return a bar for each pass, blue forward and green backward, on a row for each stage; grey is a bubble."""
    scale = (_WIDTH - _LEFT) / (chart.length or 1.0)
    rows = "".join(_row(stage) for stage in range(chart.num_stages))
    bars = "".join(_bar(one, scale) for one in chart.work)
    height = _TOP + _ROW * chart.num_stages
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="12" fill="#888"><text x="4" y="15">{chart.num_stages} stages, '
        f"bubbles {chart.bubble_ratio:.0%}; blue: forward, green: backward</text>{rows}{bars}</svg>"
    )


def _row(stage: int) -> str:
    y = _TOP + _ROW * stage
    return (
        f'<text x="4" y="{y + 16}">stage {stage}</text>'
        f'<rect x="{_LEFT}" y="{y}" width="{_WIDTH - _LEFT}" height="{_ROW - 4}" fill="#8883"/>'
    )


def _bar(one: Work, scale: float) -> str:
    x, y, width = _LEFT + one.began * scale, _TOP + _ROW * one.stage, (one.ended - one.began) * scale
    number = f'<text x="{x + width / 2:.1f}" y="{y + 16}" fill="#fff" text-anchor="middle">{one.batch}</text>'
    return (
        f'<rect x="{x:.1f}" y="{y}" width="{max(width - 0.5, 0.5):.1f}" height="{_ROW - 4}" '
        f'fill="{_COLOURS[one.kind]}"><title>{_NAMES[one.kind]} pass of micro-batch {one.batch}: '
        f"{one.ended - one.began:.3g}</title></rect>"
        f"{number if width > 14 else ''}"
    )
