"""Tracebacks of cells, without the frames that led into them."""

from __future__ import annotations

from types import TracebackType


def trim(traceback: TracebackType | None, filename: str) -> TracebackType | None:
    """Cut what comes before the first frame of *filename*; None if there is no such frame."""
    while traceback is not None and traceback.tb_frame.f_code.co_filename != filename:
        traceback = traceback.tb_next
    return traceback
