"""How far a cell is, in a sentence."""

from __future__ import annotations

import math

from shoal.model.cells import cell_name
from shoal.observe.cell_progress import Progress

#: Units that times are told in, each from a bit more than one on.
_UNITS = ((86_400.0, "day"), (3_600.0, "hour"), (60.0, "minute"))
_ENOUGH = 1.5


def describe(progress: Progress) -> str:
    """Return a sentence such as ``In[3]: 12 of 40 done, 3 running, 1 failed, about 2 to 4 minutes left.``"""
    parts = [describe_counts(progress)]
    if progress.pending:
        parts.append(describe_left(progress.left()))
    else:
        parts.append(f"in {describe_seconds(progress.elapsed)}")
    return f"{cell_name(progress.cell)}: {', '.join(parts)}."


def describe_counts(progress: Progress) -> str:
    """Return ``12 of 40 done, 3 running, 1 failed``: what is zero is left out."""
    counts = [(progress.running, "running"), (progress.failed, "failed"), (progress.cancelled, "cancelled")]
    said = [f"{progress.finished:,} of {progress.submitted:,} done"]
    said += [f"{count:,} {what}" for count, what in counts if count]
    if progress.retries:
        said.append(f"{progress.retries:,} {'retry' if progress.retries == 1 else 'retries'}")
    return ", ".join(said)


def describe_left(left: tuple[float, float] | None) -> str:
    """Return ``about 2 to 4 minutes left``, or that nothing is known yet."""
    if left is None:
        return "no estimate yet"
    low, high = left
    seconds, unit = next(((s, u) for s, u in _UNITS if high >= _ENOUGH * s), (1.0, "second"))
    least, most = math.floor(low / seconds), math.ceil(high / seconds)
    step = 1 if most <= 10 else 5 if most <= 60 else 10  # what an estimate can promise
    least, most = least // step * step, -(-most // step) * step
    if most <= 1:
        return f"about a {unit} left" if unit != "hour" else "about an hour left"
    if least == most:
        return f"about {most:,} {unit}s left"
    if least == 0:
        return f"up to {most:,} {unit}s left"
    return f"about {least:,} to {most:,} {unit}s left"


def describe_seconds(seconds: float) -> str:
    """Return a length of time for people: ``0.34 s``, ``12.3 s``, ``4 min 10 s``, ``3 h 2 min``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"
