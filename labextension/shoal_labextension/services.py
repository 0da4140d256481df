"""What the handlers of one server share."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING

from shoal_labextension.cluster_list import ClusterList
from shoal_labextension.clusters import ClusterReader
from shoal_labextension.starts import Starts

if TYPE_CHECKING:
    import logging

    from shoal_labextension.watches import SharedWatch, Watches


class Services:
    """Made with the server, on no loop yet; closed with it."""

    def __init__(self, directory: str, log: logging.Logger) -> None:
        """*directory* is where clusters run that are started from here."""
        self.log = log
        self.reader = ClusterReader(log)
        self.starts = Starts(directory, log, lambda: self.clusters.scan_soon())
        self.clusters = ClusterList(self.reader, self.starts, self.find_watch)
        #: The lines to clusters, once there are any.
        self.open_watches: Watches | None = None
        #: What serves each page.
        self.pages: set[asyncio.Task[None]] = set()

    async def watches(self) -> Watches:
        """Return the lines to clusters; the first call imports what they take, in a thread."""
        module = await asyncio.to_thread(importlib.import_module, "shoal_labextension.watches")
        if self.open_watches is None:
            self.open_watches = module.Watches(self.log)
        return self.open_watches

    def find_watch(self, cluster_id: str) -> SharedWatch | None:
        """Return the line to a cluster if one is open."""
        return self.open_watches.find(cluster_id) if self.open_watches is not None else None

    async def close(self) -> None:
        """End all watches and the starts in progress."""
        for page in list(self.pages):
            page.cancel()
        await asyncio.gather(*self.pages, return_exceptions=True)
        await self.clusters.close()
        await self.starts.close()
        if self.open_watches is not None:
            await self.open_watches.close()
