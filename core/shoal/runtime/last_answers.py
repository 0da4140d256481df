"""News of a process's death, and what it has sent before: the answers come first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

#: Seconds after news of an executor's death within which its stream should have ended.
LAST_ANSWERS = 1.0


class LastAnswers:
    """Holds news of dead peers back until all that those have sent has been read. Lives on an event loop."""

    def __init__(self, is_open: Callable[[str], bool], call_later: Callable[[float, Callable[[], None]], Any]) -> None:
        """*is_open* says whether there is a stream to an address; *call_later* is the loop's."""
        self._is_open = is_open
        self._call_later = call_later
        #: What waits for the end of a stream, in the order it came.
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    def after(self, address: str, go_on: Callable[[], None]) -> None:
        """Call *go_on* once: when the stream to *address* has ended, or is taking too long about it."""
        if not self._is_open(address):
            go_on()
            return
        self._waiting.setdefault(address, []).append(go_on)
        self._call_later(LAST_ANSWERS, lambda: self._too_late(address, go_on))

    def ended(self, address: str) -> None:
        """The stream to *address* has ended, and all that came over it has been read."""
        for go_on in self._waiting.pop(address, ()):
            go_on()

    def _too_late(self, address: str, go_on: Callable[[], None]) -> None:
        waiting = self._waiting.get(address, [])
        if any(its is go_on for its in waiting):
            waiting.remove(go_on)
            if not waiting:
                del self._waiting[address]
            go_on()
