"""Segments that nobody may know of: those whose writer died between writing them and saying so.

A node's agent shows each segment to its owner some time after it was written, and from then on ever more rarely. The
owner frees those that it knows nothing of; most of the time there are none. It may know one for now, because the work
that it was written for is still under way elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Seconds after which a segment that is still there is shown to its owner: by then it has long been told of it.
GRACE = 20.0
#: Seconds between two times at most; at first they double.
MAX_PAUSE = 600.0


class Strays:
    """See the module's description."""

    def __init__(self) -> None:
        #: When each segment is to be shown, and how long to wait after that.
        self._due: dict[str, tuple[float, float]] = {}

    def look(self, names: Iterable[str], now: float) -> dict[str, list[str]]:
        """Return the segments to be shown now, by owner; *names* are all that there are."""
        due: dict[str, tuple[float, float]] = {}
        show: dict[str, list[str]] = {}
        for name in names:
            when, pause = self._due.get(name, (now + GRACE, 2 * GRACE))
            if when <= now:
                show.setdefault(name.partition(".")[0], []).append(name)
                when, pause = now + pause, min(2 * pause, MAX_PAUSE)
            due[name] = when, pause
        self._due = due
        return show
