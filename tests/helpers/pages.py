"""A page, as far as the server can tell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from shoal.observe.deltas import apply

TIMEOUT = 30.0


class Page:
    """A websocket and what it was told. Use :func:`open_page`."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.messages: list[dict[str, Any]] = []
        #: The newest snapshot of each cluster.
        self.snapshots: dict[str, dict[str, Any]] = {}
        #: The newest list of clusters; None before the first.
        self.clusters: list[dict[str, Any]] | None = None

    def send(self, **order: Any) -> None:
        self.socket.write_message(json.dumps(order))

    async def read(self) -> dict[str, Any] | None:
        """Return the next message; None when the server has hung up."""
        text = await asyncio.wait_for(self.socket.read_message(), TIMEOUT)
        if text is None:
            return None
        message = json.loads(text)
        self.messages.append(message)
        if message["type"] == "clusters":
            self.clusters = message["clusters"]
        elif message["type"] == "snapshot":
            self.snapshots[message["cluster"]] = message["snapshot"]
        elif message["type"] == "delta":
            self.snapshots[message["cluster"]] = apply(self.snapshots[message["cluster"]], message["delta"])
        return message

    async def until(self, true: Callable[[dict[str, Any]], object], timeout: float = TIMEOUT) -> dict[str, Any]:
        """Read until a message is wanted, and return it."""
        async with asyncio.timeout(timeout):
            while True:
                message = await self.read()
                assert message is not None, f"hung up: {self.socket.close_code} {self.socket.close_reason}"
                if true(message):
                    return message

    async def kind(self, kind: str, timeout: float = TIMEOUT) -> dict[str, Any]:
        return await self.until(lambda message: message["type"] == kind, timeout)

    async def listed(self, true: Callable[[list[dict[str, Any]]], object], timeout: float = TIMEOUT) -> list[Any]:
        """Read until the list of clusters is as wanted."""
        if self.clusters is None or not true(self.clusters):
            await self.until(lambda _: self.clusters is not None and true(self.clusters), timeout)
        assert self.clusters is not None
        return self.clusters

    async def seen(self, cluster: str, true: Callable[[dict[str, Any]], object], timeout: float = TIMEOUT) -> None:
        """Read until a cluster's snapshot is as wanted."""
        if cluster in self.snapshots and true(self.snapshots[cluster]):
            return
        await self.until(lambda _: cluster in self.snapshots and true(self.snapshots[cluster]), timeout)


async def open_page(jp_ws_fetch: Any) -> Page:
    page = Page(await jp_ws_fetch("shoal", "api", "v1", "live"))
    hello = await page.read()
    assert hello["type"] == "hello" and hello["version"] == 1 and hello["shoal"]
    return page
