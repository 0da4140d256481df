"""Segments that nobody may know of: those whose writer died between writing them and saying so.

A node's agent shows each segment to its owner once, some time after it was written, and from then on rarely. The
owner frees those that it knows nothing of; most of the time there are none.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Seconds after which a segment that is still there is shown to its owner: by then it has long been told of it.
GRACE = 20.0
#: Seconds until it is shown again.
AGAIN = 600.0


class Strays:
    """See the module's description."""

    def __init__(self) -> None:
        #: When each segment is to be shown.
        self._due: dict[str, float] = {}

    def look(self, names: Iterable[str], now: float) -> dict[str, list[str]]:
        """Return the segments to be shown now, by owner; *names* are all that there are."""
        due: dict[str, float] = {}
        show: dict[str, list[str]] = {}
        for name in names:
            when = self._due.get(name, now + GRACE)
            if when <= now:
                show.setdefault(name.partition(".")[0], []).append(name)
                when = now + AGAIN
            due[name] = when
        self._due = due
        return show
