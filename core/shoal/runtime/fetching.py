"""Bringing values here that lie in another node's store."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from shoal.model import messages as m
from shoal.model.errors import ObjectLostError, ObjectStoreFullError, ShoalError
from shoal.runtime import payload_kinds as payloads
from shoal.runtime.pulling import SOURCE_TIMEOUT, MemoryTarget, SegmentPuller
from shoal.runtime.store import segment_nbytes

if TYPE_CHECKING:
    from shoal.runtime.owner import Owner

#: How often an agent is asked, and seconds to wait for another if it has gone.
ATTEMPTS, PAUSE = 5, 0.2


class Fetcher:
    """Has the agent of this node fetch segments for all processes here; without an agent it does so itself."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._numbers = itertools.count(1)
        #: Asked of our agent, by request; with the agent's address, as a driver's may be another tomorrow.
        self._asked: dict[int, tuple[str, asyncio.Future[m.SegmentPulled | None]]] = {}
        self.puller = SegmentPuller(owner.peers, lambda: owner.address, self._open_memory)

    async def fetch(self, segment: m.Payload) -> m.Payload | memoryview:
        """Return the segment's copy on this machine, or its bytes.

        Raises
        ------
        ObjectLostError
            It cannot be had any more.
        ObjectStoreFullError
            This node has no room for it.
        ShoalError
            This node cannot keep it for another reason.
        """
        _, _, path, sizes = segment
        for _ in range(ATTEMPTS):
            store = self._owner.store
            if store is None:
                fetched: memoryview = await self.puller.pull(segment)
                return fetched
            pulled = await self._ask_agent(store.holder, segment)
            if pulled is None:  # the agent has gone; a driver may have another now
                await asyncio.sleep(PAUSE)
            elif pulled.path:
                return payloads.SEGMENT, store.holder, pulled.path, sizes
            elif pulled.kind == "lost":
                raise ObjectLostError(f"The stored value `{path}` is lost: {pulled.trouble}.", object_id=path)
            elif pulled.kind == "full":
                raise ObjectStoreFullError(pulled.trouble, needed=segment_nbytes(sizes), limit=0, holders=())
            else:
                raise ShoalError(f"The stored value `{path}` cannot be brought to this node: {pulled.trouble}")
        raise ObjectLostError(f"The stored value `{path}` is lost: no node here answers.", object_id=path)

    async def _ask_agent(self, agent: str, segment: m.Payload) -> m.SegmentPulled | None:
        """Have the agent of our node pull *segment*; returns None if the agent goes, or does not answer."""
        request = next(self._numbers)
        answer: asyncio.Future[m.SegmentPulled | None] = asyncio.get_running_loop().create_future()
        self._asked[request] = agent, answer
        try:
            self._owner.peers.send(agent, m.PullSegment(request, segment), agent=True)
            return await asyncio.wait_for(answer, SOURCE_TIMEOUT)
        except TimeoutError:
            return None
        finally:
            del self._asked[request]

    def pulled(self, message: m.SegmentPulled) -> None:
        """Our agent has answered."""
        _, answer = self._asked.get(message.request, ("", None))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def peer_lost(self, address: str) -> None:
        """Nothing more comes from there."""
        self.puller.peer_lost(address)
        for agent, answer in self._asked.values():
            if agent == address and not answer.done():
                answer.set_result(None)

    def nodes_changed(self, message: m.NodesChanged) -> None:
        """Nodes have come and gone."""
        self.puller.nodes_changed(message)
        for worker in message.left:
            self.peer_lost(worker)

    @staticmethod
    async def _open_memory(path: str, nbytes: int) -> MemoryTarget:
        return MemoryTarget(nbytes)
