"""How many requests a replica works on at once, and how many may wait for their turn."""

from __future__ import annotations

import asyncio
from collections import deque

from shoal_ml.serve.errors import BackPressureError


class Admission:
    """A gate that lets *limit* requests in, first come first served; for one event loop."""

    def __init__(self, deployment: str, limit: int, max_queued: int, retry_after: float) -> None:
        self._deployment = deployment
        self.limit = limit
        self.max_queued = max_queued
        self.retry_after = retry_after
        #: Requests that are inside.
        self.ongoing = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._idle: asyncio.Event | None = None
        #: Requests that have gone in, ever.
        self.total = 0

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        return self.ongoing >= self.limit

    async def enter(self) -> None:
        """Wait for a place.

        Raises
        ------
        BackPressureError
            As many as may wait do so already.
        """
        self.total += 1
        if self.ongoing < self.limit:
            self.ongoing += 1
            return
        if 0 <= self.max_queued <= len(self._waiting):
            raise BackPressureError(
                f"{len(self._waiting)} requests wait for a replica of `{self._deployment}` already.",
                deployment=self._deployment,
                retry_after=self.retry_after,
            )
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()  # its turn had come in that moment
            else:
                self._waiting.remove(turn)
            raise

    def leave(self) -> None:
        """One is done: the next goes in."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)  # the place passes on
                return
        self.ongoing -= 1
        if not self.ongoing and self._idle is not None:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until nobody is inside or waits."""
        while self.ongoing:
            self._idle = asyncio.Event()
            await self._idle.wait()
