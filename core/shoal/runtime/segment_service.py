"""What a node agent does for its store: it serves other nodes, gets copies of their segments, and keeps order."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from shoal.machines import sources
from shoal.machines.strays import Strays
from shoal.model import messages as m
from shoal.model.errors import ObjectLostError, ObjectStoreFullError, ShoalError
from shoal.runtime.lending import Lending, map_for_reading
from shoal.runtime.peers import Peers
from shoal.runtime.pulling import SegmentPuller
from shoal.runtime.scope import Scope
from shoal.runtime.store import COPY_SUFFIX, Draft, Store, is_copy, is_full, is_segment_here
from shoal.transport.comms import Security
from shoal.transport.stream import Stream


class CopyTarget:
    """A copy in the store of this node."""

    def __init__(self, draft: Draft, path: str) -> None:
        self._draft = draft
        self._path = path

    def write(self, position: int, data: bytes | memoryview) -> None:
        self._draft.write(position, data)

    def finish(self) -> str:
        """Publish it; returns its path."""
        try:
            self._draft.publish(self._path)
        except FileExistsError:  # there is one already, from before
            self._draft.discard()
        return self._path

    def discard(self) -> None:
        self._draft.discard()


class SegmentService:
    """See the module's description. Lives on the agent's event loop."""

    def __init__(
        self, store: Store, security: Security, scope: Scope, show_owner: Callable[[m.SegmentsSeen], None]
    ) -> None:
        """``show_owner(message)`` passes a message on to an owner, or to the controller, which knows where it is."""
        self._store = store
        self._show_owner = show_owner
        self._strays = Strays()
        self._lending = Lending()
        self._scope = scope
        self._sources = sources.Sources(store.holder)
        #: Streams of those who have asked for a source.
        self._readers: dict[str, Stream] = {}
        self._peers = Peers(security, scope, self._answered, self._peer_lost, lambda: None)
        self._puller = SegmentPuller(self._peers, lambda: store.holder, self._open_copy, self._copy_path)

    def handle(self, stream: Stream, message: m.Message) -> bool:
        """Handle what has to do with segments; returns whether *message* has."""
        match message:
            case m.PullSegment(request, segment):
                copy = self._copy_path(segment[2])
                if is_segment_here(copy):
                    stream.send_nowait(m.SegmentPulled(request, copy, "", ""))
                else:
                    self._scope.start(self._pull(stream, request, segment))
            case m.FindSource(request, path, reader):
                self._readers[reader] = stream
                if self._is_ours(path) and is_segment_here(path):
                    self._sources.asked(path, reader, request)
                    self._carry_out()
                else:
                    stream.send_nowait(m.Source(request, "", ""))
            case m.SourceDone(path, reader, source, copy, broken):
                if broken:
                    self._sources.unusable(path, source)
                self._sources.done(path, reader, source, copy)
                self._carry_out()
            case m.ReadSegment():
                self._scope.start(self._send_range(stream, message))
            case m.FreeSegment(path):
                if self._is_ours(path):
                    self._lending.freed(path)
                    self._store.free(os.path.basename(path))
                    self._sources.freed(path)
                    self._carry_out()
            case m.ListSegments(request, most):
                self._scope.start(self._list(stream, request, most))
            case m.SegmentsUnowned(names):
                for name in names:
                    self._store.free(os.path.basename(name))
            case _:
                return False
        return True

    @property
    def num_received(self) -> int:
        """Bytes that have been pulled from other nodes so far."""
        return self._puller.num_received

    def stream_ended(self, stream: Stream) -> None:
        """A reader has hung up."""
        for reader in [reader for reader, its in self._readers.items() if its is stream]:
            del self._readers[reader]
            self._sources.peer_gone(reader)
        self._carry_out()

    def nodes_changed(self, message: m.NodesChanged) -> None:
        """Nodes have come and gone."""
        self._puller.nodes_changed(message)
        for worker in message.left:
            self._sources.peer_gone(worker)
        self._carry_out()

    async def tend(self) -> None:
        """Keep the store within its limits, and have copies and strays dropped that nobody needs."""
        self._lending.tend()
        await asyncio.to_thread(self._store.tend)
        names = [found.name for found in self._store.segments() if not is_copy(found.name)]
        for owner_id, seen in self._strays.look(names, time.monotonic()).items():
            self._show_owner(m.SegmentsSeen(owner_id, self._store.holder, tuple(seen)))
        for path in self._sources.paths():
            if not is_segment_here(path):
                self._sources.freed(path)
        self._carry_out()

    def received(self) -> tuple[tuple[str, int], ...]:
        """Return how many bytes of copies have come from which agents' addresses in all."""
        return self._puller.received()

    async def close(self) -> None:
        await self._peers.close(0.0)

    def _is_ours(self, path: str) -> bool:
        """Whether *path* names a segment of ours: nobody reads or removes other files through us."""
        return self._store.path(os.path.basename(path)) == path

    def _copy_path(self, path: str) -> str:
        return self._store.path(os.path.basename(path) + COPY_SUFFIX)

    async def _open_copy(self, path: str, nbytes: int) -> CopyTarget:
        room = self._store.room
        draft = await asyncio.to_thread(room.take, nbytes, time.monotonic() + room.limits.patience)
        return CopyTarget(draft, self._copy_path(path))

    async def _pull(self, stream: Stream, request: int, segment: m.Payload) -> None:
        try:
            path = await self._puller.pull(segment)
        except (ShoalError, OSError) as error:
            stream.send_nowait(m.SegmentPulled(request, "", str(error), _kind(error)))
        else:
            stream.send_nowait(m.SegmentPulled(request, path, "", ""))

    async def _send_range(self, stream: Stream, read: m.ReadSegment) -> None:
        whole = self._lending.find(read.path)
        if whole is None and self._is_ours(read.path):
            whole = await asyncio.to_thread(map_for_reading, read.path)
            if whole is not None:
                self._lending.keep(read.path, whole)
        data = whole[read.offset : read.offset + read.length] if whole is not None else None
        stream.send_nowait(m.SegmentData(read.request, data))

    async def _list(self, stream: Stream, request: int, most: int) -> None:
        room = self._store.room
        listed, more = await asyncio.to_thread(room.inventory, most)
        in_memory, on_disk = await asyncio.to_thread(room.usage)
        limits = room.limits
        stream.send_nowait(
            m.SegmentList(request, (in_memory, limits.memory), (on_disk, limits.disk), tuple(listed), more)
        )

    def _answered(self, stream: Stream, message: m.Message) -> None:
        """Another agent has answered what we asked."""
        if isinstance(message, m.Source | m.SegmentData):
            self._puller.answered(message)
        else:
            stream.abort()

    def _peer_lost(self, address: str, peer_id: str) -> None:
        self._puller.peer_lost(address)

    def _carry_out(self) -> None:
        for action in self._sources.flush():
            match action:
                case sources.Lend(reader, request, source, path):
                    stream = self._readers.get(reader)
                    if stream is not None:
                        stream.send_nowait(m.Source(request, source, path))
                case sources.Drop(address, path):
                    self._peers.send(address, m.FreeSegment(path), agent=True)


def _kind(error: Exception) -> str:
    """Return what a segment that could not be had is, to whoever asked."""
    if isinstance(error, ObjectLostError):
        return "lost"
    return "full" if isinstance(error, ObjectStoreFullError) or is_full(error) else "broken"
