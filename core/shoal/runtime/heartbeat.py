"""Letting peers hear of us, and noticing those of which nothing is heard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from shoal.machines.silence import Silence
from shoal.transport.stream import Stream


class Heartbeat:
    """Beats on some streams and watches others, until it is cancelled. ``run`` is a background task of its owner."""

    def __init__(
        self,
        limit: float,
        on_silent: Callable[[str], None],
        on_suspected: Callable[[str, bool], None] = lambda peer, suspected: None,
    ) -> None:
        """Make the heartbeat.

        Parameters
        ----------
        limit
            Seconds of silence after which a peer is given up.
        on_silent
            Is called with the name of a peer that is given up.
        on_suspected
            Is called with the name of one that may soon be, and True; with False when it is heard again.
        """
        self._silence = Silence(limit)
        self._on_silent = on_silent
        self._on_suspected = on_suspected

    async def run(self, beat_on: Callable[[], list[Stream]], watched: Callable[[], Mapping[str, Stream]]) -> None:
        """Beat on the streams that ``beat_on()`` returns and watch those of ``watched()``, by name."""
        while True:
            await asyncio.sleep(self._silence.interval)
            for stream in beat_on():
                stream.beat()
            heard = [(name, stream.heard) for name, stream in watched().items()]
            suspected, recovered, silent = self._silence.look(heard, time.monotonic())
            for name in suspected:
                self._on_suspected(name, True)
            for name in recovered:
                self._on_suspected(name, False)
            for name in silent:
                self._on_silent(name)
