"""Bringing values here that lie in another node's store."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from shoal.model import messages as m
from shoal.model.errors import ObjectLostError
from shoal.runtime.pulling import SOURCE_TIMEOUT, MemoryTarget, SegmentPuller

if TYPE_CHECKING:
    from shoal.runtime.owner import Owner


class Fetcher:
    """Has the agent of this node fetch segments for all processes here; without an agent it does so itself."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._numbers = itertools.count(1)
        #: Asked of our agent, by request.
        self._asked: dict[int, asyncio.Future[m.SegmentPulled]] = {}
        self.puller = SegmentPuller(owner.peers, lambda: owner.address, self._open_memory)

    async def fetch(self, segment: m.Payload) -> m.Payload | memoryview:
        """Return the segment's copy on this machine, or its bytes.

        Raises
        ------
        ObjectLostError
            It cannot be had any more.
        ObjectStoreFullError
            This node has no room for it.
        """
        store = self._owner.store
        if store is None:
            fetched: memoryview = await self.puller.pull(segment)
            return fetched
        kind, _, path, sizes = segment
        request = next(self._numbers)
        answer = self._asked[request] = asyncio.get_running_loop().create_future()
        try:
            self._owner.peers.send(store.holder, m.PullSegment(request, segment), agent=True)
            pulled = await asyncio.wait_for(answer, SOURCE_TIMEOUT)
        except TimeoutError:
            pulled = m.SegmentPulled(request, "", f"`{store.holder}` does not answer")
        finally:
            del self._asked[request]
        if not pulled.path:
            raise ObjectLostError(f"The stored value `{path}` is lost: {pulled.trouble}.", object_id=path)
        return kind, store.holder, pulled.path, sizes

    def pulled(self, message: m.SegmentPulled) -> None:
        """Our agent has answered."""
        answer = self._asked.get(message.request)
        if answer is not None and not answer.done():
            answer.set_result(message)

    def peer_lost(self, address: str) -> None:
        """Nothing more comes from there."""
        self.puller.peer_lost(address)
        store = self._owner.store
        if store is not None and address == store.holder:
            for request, answer in self._asked.items():
                if not answer.done():
                    answer.set_result(m.SegmentPulled(request, "", f"`{address}` is gone"))

    @staticmethod
    async def _open_memory(path: str, nbytes: int) -> MemoryTarget:
        return MemoryTarget(nbytes)
