"""The board: values by key that others wait for changes of (long polls), and who has seen which."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

#: Seconds after an answer within which a watcher that is alive asks again.
GONE = 0.5


class Board:
    """For one event loop. The version of a value grows with each change; one that is missing has version 0."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[int, Any]] = {}
        self._next_version = 1
        #: What each watcher has seen, by key.
        self._seen: dict[str, Mapping[str, int]] = {}
        self._changed = asyncio.Event()

    def start_after(self, version: int) -> None:
        """Use greater versions only: watchers have seen those of an earlier process."""
        self._next_version = version

    def post(self, key: str, value: Any) -> int:
        """Change a value, None for one that is gone; returns its version."""
        version = self._next_version
        self._next_version += 1
        self._values[key] = version, value
        self._wake()
        return version

    def version(self, key: str) -> int:
        """Return the version of a value."""
        return self._values.get(key, (0, None))[0]

    async def news(self, watcher: str, known: Mapping[str, int], timeout: float) -> dict[str, tuple[int, Any]]:
        """Return what differs from what a watcher knows, as soon as something does; nothing after *timeout* seconds."""
        self._seen[watcher] = known
        self._wake()  # somebody may wait for what this one has seen
        try:
            async with asyncio.timeout(timeout):
                while not (news := self._news(known)):
                    if self._seen.get(watcher) is not known:
                        return {}  # it has asked anew
                    await self._changed.wait()
                return news
        except TimeoutError:
            return {}
        finally:  # if it does not ask again, it has gone
            asyncio.get_running_loop().call_later(GONE, self._forget, watcher, known)

    def _forget(self, watcher: str, known: Mapping[str, int]) -> None:
        if self._seen.get(watcher) is known:
            del self._seen[watcher]
            self._wake()

    def _news(self, known: Mapping[str, int]) -> dict[str, tuple[int, Any]]:
        found = {key: self._values.get(key, (0, None)) for key in known}
        return {key: row for key, row in found.items() if row[0] != known[key]}

    async def seen(self, key: str, version: int, timeout: float) -> bool:
        """Wait until all who watch *key* have seen *version*; returns whether they have within *timeout* seconds."""
        try:
            async with asyncio.timeout(timeout):
                while any(known.get(key, version) < version for known in self._seen.values()):
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
