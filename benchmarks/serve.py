"""One system's side of the comparison: does what it is asked over a pipe, one row at a time, and says how long it took.

A request is a line of JSON, ``{"row": name, "count": n}``; the answer has ``seconds`` and what the row itself
returned, or ``error``. The first answer, without a request, says that the system is up. Standard output belongs to
the answers; whatever else is printed goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(make_rows: Callable[[], Any]) -> None:
    """Answer until the pipe closes."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    rows = make_rows()
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            run = getattr(rows, request["row"])
            begin = time.perf_counter()
            facts = run(request["count"]) or {}
            answer = {"seconds": time.perf_counter() - begin, **facts}
        except Exception as error:  # boundary: the table shows it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers)
    rows.close()
