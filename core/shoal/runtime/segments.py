"""Reading segments that live on another machine, in pieces, from the agent that holds them."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from shoal.model.errors import ObjectLostError
from shoal.model.messages import Payload, ReadSegment
from shoal.runtime.store import segment_nbytes

if TYPE_CHECKING:
    from shoal.runtime.peers import Peers

#: Bytes asked for at once.
PIECE = 4 * 1024 * 1024
#: Pieces under way at once for one segment.
PIPELINE = 4
#: Seconds to wait for one piece.
TIMEOUT = 60.0


class SegmentReader:
    """Fetches segments; use on the event loop only. Concurrent fetches of one segment are one fetch."""

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._numbers = itertools.count()
        self._pieces: dict[int, tuple[str, asyncio.Future[bytes | None]]] = {}
        self._fetches: dict[str, asyncio.Future[memoryview]] = {}

    async def fetch(self, payload: Payload) -> memoryview:
        """Return the bytes of the segment that *payload* names.

        Raises
        ------
        ObjectLostError
            Its holder is gone, has freed it, or sends nothing for :data:`TIMEOUT` seconds.
        """
        _, holder, path, sizes = payload
        fetch = self._fetches.get(path)
        if fetch is None:
            fetch = self._fetches[path] = asyncio.ensure_future(self._fetch(holder, path, segment_nbytes(sizes)))
            fetch.add_done_callback(lambda _: self._fetches.pop(path, None))
        return await asyncio.shield(fetch)

    def arrived(self, request: int, data: bytes | None) -> None:
        """A piece has come."""
        _, piece = self._pieces.pop(request, ("", None))
        if piece is not None and not piece.done():
            piece.set_result(data)

    def holder_lost(self, address: str) -> None:
        """The holder is gone: nothing more comes from it."""
        for request, (holder, _) in list(self._pieces.items()):
            if holder == address:
                self.arrived(request, None)

    async def _fetch(self, holder: str, path: str, nbytes: int) -> memoryview:
        whole = memoryview(bytearray(nbytes))
        gate = asyncio.Semaphore(PIPELINE)

        async def piece(offset: int) -> None:
            async with gate:
                length = min(PIECE, nbytes - offset)
                request = next(self._numbers)
                future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
                self._pieces[request] = (holder, future)
                self._peers.send(holder, ReadSegment(request, path, offset, length), agent=True)
                try:
                    data = await asyncio.wait_for(future, TIMEOUT)
                except TimeoutError:
                    self._pieces.pop(request, None)
                    data = None
                if data is None or len(data) != length:
                    raise ObjectLostError(
                        f"The stored value `{path}` could not be read from `{holder}`.", object_id=path
                    )
                whole[offset : offset + length] = data

        async with asyncio.TaskGroup() as group:
            for offset in range(0, nbytes, PIECE):
                group.create_task(piece(offset))
        return whole
