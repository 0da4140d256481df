"""Peers that have fallen silent: suspected first, then given up.

A connection that breaks says so at once. A process that is stopped, or hangs, leaves its connections open: only that
nothing comes any more tells. Whoever watches may itself have been held up (a blocked event loop, a machine that was
asleep); what was sent meanwhile is then still unread, and such a look does not count.
"""

from __future__ import annotations

from collections.abc import Iterable

#: Share of the limit after which a peer is suspected.
SUSPECT = 0.5
#: Looks in one limit; peers let hear of themselves as often.
LOOKS = 6


class Silence:
    """Decides by when each peer was last heard. ``limit`` is in seconds; times are on one monotonic clock."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.interval = limit / LOOKS
        self._suspected: set[str] = set()
        self._looked = 0.0

    def look(self, heard: Iterable[tuple[str, float]], now: float) -> tuple[list[str], list[str], list[str]]:
        """Return who is newly suspected, who was and has been heard again, and who is given up.

        *heard* has everybody who is watched, with the time when something last came.
        """
        late = self._looked and now - self._looked > 2 * self.interval
        self._looked = now
        if late:
            return [], [], []
        suspected, recovered, silent = [], [], []
        present = set()
        for peer, when in heard:
            present.add(peer)
            seconds = now - when
            if seconds > self.limit:
                silent.append(peer)
            elif seconds > SUSPECT * self.limit:
                if peer not in self._suspected:
                    suspected.append(peer)
            elif peer in self._suspected:
                recovered.append(peer)
        self._suspected.update(suspected)
        self._suspected.difference_update(recovered, silent)
        self._suspected &= present
        return suspected, recovered, silent
