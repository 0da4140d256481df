"""``breakpoint()`` in an executor, where nobody answers a debugger: it says so, where it would end the task oddly."""

from __future__ import annotations

import os
import sys
from typing import Any


def refuse_breakpoints() -> None:
    """Have ``breakpoint()`` raise in this process, unless ``PYTHONBREAKPOINT`` says what to do."""
    if not os.environ.get("PYTHONBREAKPOINT"):
        sys.breakpointhook = _refuse


def _refuse(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError(
        "`breakpoint()` opens a debugger, and nobody can talk to one in an executor. Run the cell in the notebook's "
        "own process, with `%%remote --inline`; a task with `shoal.init(inline=True)`."
    )
