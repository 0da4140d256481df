"""Copies of segments from other nodes, in pieces.

A segment is read from whom its home says: itself, or another node that has a copy already (see
:mod:`shoal.machines.sources`). The agent of a node pulls for all processes there, into its store, and is then a source
itself; a driver on a machine without a node pulls for itself, into memory of its own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from shoal.model import messages as m
from shoal.model.errors import ObjectLostError
from shoal.runtime.peers import Peers
from shoal.runtime.store import segment_nbytes

#: Bytes asked for at once, and pieces under way at once for one segment.
PIECE, PIPELINE = 4 << 20, 4
#: Seconds to wait for one piece, and for a source, which others may have to be done with first.
PIECE_TIMEOUT, SOURCE_TIMEOUT = 60.0, 600.0
#: Sources that are tried before a segment counts as lost.
ATTEMPTS = 4
#: Sources that are told of at most.
MAX_TOLD = 32


class Target(Protocol):
    """Where the pieces go."""

    def write(self, position: int, data: bytes | memoryview) -> None: ...
    def finish(self) -> Any:
        """All is there: return what the caller of :meth:`SegmentPuller.pull` gets."""

    def discard(self) -> None: ...


class SourceFailed(Exception):
    """Not this source; another may do."""


class MemoryTarget:
    """Memory of this process."""

    def __init__(self, nbytes: int) -> None:
        self._whole = memoryview(bytearray(nbytes))

    def write(self, position: int, data: bytes | memoryview) -> None:
        self._whole[position : position + len(data)] = data

    def finish(self) -> memoryview:
        return self._whole

    def discard(self) -> None:
        pass


class SegmentPuller:
    """Pulls segments; use on the event loop only. Concurrent pulls of one segment are one pull."""

    def __init__(
        self,
        peers: Peers,
        own_address: Callable[[], str],
        open_target: Callable[[str, int], Awaitable[Target]],
        copy_path: Callable[[str], str] = lambda path: "",
    ) -> None:
        """Make the puller.

        Parameters
        ----------
        own_address
            What others call this reader.
        open_target
            ``await open_target(path, nbytes)`` returns where the pieces go.
        copy_path
            Where others find the copy made here of the segment at a path; "" if it is for nobody else.
        """
        self._peers = peers
        self._own_address = own_address
        self._open_target = open_target
        self._copy_path = copy_path
        self._numbers = itertools.count(1)
        #: Answers waited for, with the address that they are to come from.
        self._answers: dict[int, tuple[str, asyncio.Future[Any]]] = {}
        self._pulls: dict[str, asyncio.Future[Any]] = {}
        #: Addresses that no node has any more: connecting would only take long.
        self._gone: set[str] = set()
        #: Bytes that have come from each address in all.
        self._received: Counter[str] = Counter()

    @property
    def num_received(self) -> int:
        """How many bytes have come so far."""
        return self._received.total()

    def received(self) -> tuple[tuple[str, int], ...]:
        """Return how many bytes have come from where in all, of the :data:`MAX_TOLD` that most have come from."""
        return tuple(self._received.most_common(MAX_TOLD))

    async def pull(self, segment: m.Payload) -> Any:
        """Return what the target makes of the segment.

        Raises
        ------
        ObjectLostError
            Its home is gone, or has freed it, or no source of it answers.
        ObjectStoreFullError
            There is no room for it here.
        """
        path = segment[2]
        pull = self._pulls.get(path)
        if pull is None:
            pull = self._pulls[path] = asyncio.ensure_future(self._pull(segment))
            pull.add_done_callback(lambda _: self._pulls.pop(path, None))
        return await asyncio.shield(pull)

    def answered(self, message: m.Source | m.SegmentData) -> None:
        """What was asked for has come."""
        _, answer = self._answers.pop(message.request, ("", None))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def peer_lost(self, address: str) -> None:
        """Nothing more comes from there."""
        for request, (source, answer) in list(self._answers.items()):
            if source == address and not answer.done():
                del self._answers[request]
                answer.set_exception(SourceFailed(f"`{address}` is gone"))

    def nodes_changed(self, message: m.NodesChanged) -> None:
        """Nodes have come and gone."""
        self._gone.difference_update(worker for _, worker, _, _ in message.joined)
        self._gone.update(message.left)
        for worker in message.left:
            self.peer_lost(worker)

    async def _pull(self, segment: m.Payload) -> Any:
        _, home, path, sizes = segment
        if home in self._gone:
            raise ObjectLostError(f"The stored value `{path}` is lost with its node `{home}`.", object_id=path)
        nbytes = segment_nbytes(sizes)
        target = await self._open_target(path, nbytes)
        reader = self._own_address()
        trouble = ""
        try:
            for _ in range(ATTEMPTS):
                find = self._ask(home, lambda request: m.FindSource(request, path, reader), SOURCE_TIMEOUT)
                source: m.Source = await find
                if not source.address:
                    trouble = "it was freed"
                    break
                try:
                    await self._read(source, nbytes, target)
                except SourceFailed as error:
                    trouble = str(error)
                    self._tell_home(home, m.SourceDone(path, reader, source.address, "", True))
                    continue
                except BaseException:
                    self._tell_home(home, m.SourceDone(path, reader, source.address, "", False))
                    raise
                result = target.finish()
                self._tell_home(home, m.SourceDone(path, reader, source.address, self._copy_path(path), False))
                return result
        except SourceFailed as error:
            trouble = str(error)
        except BaseException:
            target.discard()
            raise
        target.discard()
        raise ObjectLostError(f"The stored value `{path}` could not be read from `{home}`: {trouble}.", object_id=path)

    def _tell_home(self, home: str, message: m.SourceDone) -> None:
        self._peers.send(home, message, agent=True)

    async def _read(self, source: m.Source, nbytes: int, target: Target) -> None:
        gate = asyncio.Semaphore(PIPELINE)

        async def piece(offset: int) -> None:
            async with gate:
                length = min(PIECE, nbytes - offset)
                read = self._ask(
                    source.address,
                    lambda request: m.ReadSegment(request, source.path, offset, length),
                    PIECE_TIMEOUT,
                )
                answer: m.SegmentData = await read
                if answer.data is None or len(answer.data) != length:
                    raise SourceFailed(f"`{source.address}` has it no more")
                self._received[source.address] += length
                target.write(offset, answer.data)

        pieces = [asyncio.ensure_future(piece(offset)) for offset in range(0, nbytes, PIECE)]
        try:
            await asyncio.gather(*pieces)
        finally:
            for one in pieces:
                one.cancel()
            await asyncio.gather(*pieces, return_exceptions=True)

    async def _ask(self, address: str, make: Callable[[int], m.Message], timeout: float) -> Any:
        if address in self._gone:
            raise SourceFailed(f"the node `{address}` has left the cluster")
        request = next(self._numbers)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[request] = (address, answer)
        self._peers.send(address, make(request), agent=True)
        try:
            return await asyncio.wait_for(answer, timeout)
        except TimeoutError:
            raise SourceFailed(f"`{address}` does not answer") from None
        finally:
            self._answers.pop(request, None)


__all__ = ["MemoryTarget", "SegmentPuller", "Target"]
