"""How much of what a cell displays is shown: what is larger than any page could draw is replaced by a line."""

from __future__ import annotations

import dataclasses
import json
import math

from shoal.model.amounts import format_nbytes

#: What an executor sends at most, whatever the notebook lets through: of one display, and of all of one task.
MAX_DISPLAY, MAX_DISPLAYS = 100_000_000, 500_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class DisplayLimits:
    """Bytes that one display may have, and all displays of a cell, or a task, together.

    A display is counted as it travels: JSON with its pictures in base64.
    """

    each: float = MAX_DISPLAY
    total: float = MAX_DISPLAYS
    #: What can be done about each of them.
    each_advice: str = "save it to a file, or show less of it"
    total_advice: str = "save them to files, or show fewer of them"

    def within(self, other: DisplayLimits) -> DisplayLimits:
        """Return these limits, or *other* where those allow less."""
        each = self if self.each <= other.each else other
        total = self if self.total <= other.total else other
        return DisplayLimits(each.each, total.total, each.each_advice, total.total_advice)


class DisplayMeter:
    """Lets displays pass that are within limits, and says what is missing."""

    def __init__(self, limits: DisplayLimits) -> None:
        self._limits = limits
        self._room = limits.total

    def passed(self, data: str) -> str:
        """Return what to show for a display, as JSON, that is to be shown now.

        That is *data* itself, a line that says what is missing, or nothing, where that line has been said: after the
        first that is too much for the cell there are no more.
        """
        nbytes, limits = len(data), self._limits
        if self._room < 0:
            return ""
        if nbytes > limits.each:
            return _line(
                f"… display of {format_nbytes(nbytes)} not shown: over the limit of {format_nbytes(limits.each)}; "
                f"{limits.each_advice}."
            )
        self._room -= nbytes
        if self._room < 0:
            self._room = -math.inf
            return _line(
                f"… display of {format_nbytes(nbytes)} and all that follow it not shown: over the limit of "
                f"{format_nbytes(limits.total)} for one cell; {limits.total_advice}."
            )
        return data


def _line(text: str) -> str:
    return json.dumps({"data": {"text/plain": text}, "metadata": {}, "transient": {}})
