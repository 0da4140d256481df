"""The errors of an owner's work in groups: how often each came, where, and what the first of them looked like."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict

from shoal.model.messages import Payload

#: Groups remembered: those that came last; and bytes of an error that is kept.
MAX_GROUPS, MAX_ERROR_NBYTES = 200, 50_000


@dataclasses.dataclass(slots=True)
class FailureGroup:
    """Errors of one function in one cell that say the same."""

    #: The cell's tag; "" for none.
    cell: str
    function: str
    #: Type and first line of the error; "" for errors that came too quickly to be looked at.
    summary: str
    count: int = 0
    #: The first of them; None if it was too large to be kept.
    first: Payload | None = None


class FailureBook:
    """See the module's description. Written on the owner's loop."""

    def __init__(self) -> None:
        self._groups: OrderedDict[tuple[str, str, str], FailureGroup] = OrderedDict()

    def note(self, cell: str, function: str, summary: str) -> FailureGroup:
        """Count an error; returns its group, whose ``count`` is 1 if it is the first."""
        key = (cell, function, summary)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = FailureGroup(cell, function, summary)
            if len(self._groups) > MAX_GROUPS:
                self._groups.popitem(last=False)
        else:
            self._groups.move_to_end(key)
        group.count += 1
        return group

    def groups(self, cell: str = "") -> list[FailureGroup]:
        """Return the groups of a cell, or all; what failed most first."""
        found = [group for group in self._groups.values() if cell in ("", group.cell)]
        return sorted(found, key=lambda group: -group.count)


def is_small(error: Payload) -> bool:
    """Whether an error may be kept."""
    return sum(len(part) for part in error[1:] if isinstance(part, bytes)) <= MAX_ERROR_NBYTES
