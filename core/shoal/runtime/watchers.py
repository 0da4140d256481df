"""Who watches the cluster: each gets the snapshot, then what changes, and the records of work if it wants them.

Nothing of this costs anything while nobody watches. A watcher that does not read gets nothing new until it does.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from shoal.model import messages as m
from shoal.observe.deltas import diff
from shoal.observe.records import Batch
from shoal.transport.stream import Stream

#: Seconds between two looks for a watcher at least and at most, and those for which one look serves them all.
MIN_INTERVAL, MAX_INTERVAL, FRESH = 0.1, 60.0, 0.05
#: Messages that wait for a slow watcher at most; records are left out before.
MAX_WAITING = 20


class Watchers:
    """See the module's description. Lives on the controller's event loop."""

    def __init__(self, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._take_snapshot = snapshot
        self._watchers: dict[Stream, m.WatchHello] = {}
        self._last: dict[str, Any] = {}
        self._taken = 0.0

    def __len__(self) -> int:
        return len(self._watchers)

    def streams(self) -> list[Stream]:
        return list(self._watchers)

    async def serve(self, stream: Stream, hello: m.WatchHello) -> None:
        """Show the cluster to a watcher until it hangs up; a background task of the controller."""
        interval = min(max(hello.interval, MIN_INTERVAL), MAX_INTERVAL)
        self._watchers[stream] = hello
        try:
            shown = self._snapshot()
            stream.send_nowait(m.View(encode(shown)))
            while not stream.closed:
                await asyncio.sleep(interval)
                if stream.num_waiting < MAX_WAITING:
                    now = self._snapshot()
                    stream.send_nowait(m.ViewChanged(encode(diff(shown, now))))
                    shown = now
        finally:
            self._watchers.pop(stream, None)

    def recorded(self, batch: Batch) -> None:
        """Send a batch of records on to those who want them."""
        for stream, hello in self._watchers.items():
            if hello.records and stream.num_waiting < MAX_WAITING:
                stream.send_nowait(m.Records(*batch))

    def _snapshot(self) -> dict[str, Any]:
        now = time.monotonic()
        if not self._last or now - self._taken > FRESH:
            self._last, self._taken = self._take_snapshot(), now
        return self._last


def encode(value: dict[str, Any]) -> bytes:
    """Return *value* as compact JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
