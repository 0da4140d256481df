"""Who reads a segment from whom: many nodes get a copy in about log N rounds, not N copies from one node.

The node that a segment was written on, its *home*, lends out *sources*: itself, and every node that has a copy
already. A source serves few readers at a time; the others wait for the copies that are under way. The home also
knows which copies have to go when the segment is freed.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import NamedTuple

#: Readers that one source serves at a time.
MAX_READERS = 2


class Lend(NamedTuple):
    """Tell *reader* that it may read the segment at *path* of the agent at *source*; an empty one says it is gone."""

    reader: str
    request: int
    source: str
    path: str


class Drop(NamedTuple):
    """Tell the agent at *address* to remove its copy."""

    address: str
    path: str


Action = Lend | Drop


@dataclasses.dataclass(slots=True)
class _Source:
    address: str
    path: str
    readers: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True)
class _Segment:
    sources: dict[str, _Source]
    #: ``(reader, request)`` in the order they came.
    waiting: deque[tuple[str, int]] = dataclasses.field(default_factory=deque)


class Sources:
    """See the module's description."""

    def __init__(self, home: str) -> None:
        """*home* is the address of the agent here."""
        self._home = home
        self._segments: dict[str, _Segment] = {}
        self._actions: list[Action] = []

    def paths(self) -> list[str]:
        """Return the segments that somebody has asked for and that were not freed."""
        return list(self._segments)

    def asked(self, path: str, reader: str, request: int) -> None:
        """*reader* wants to read the segment."""
        segment = self._segments.get(path)
        if segment is None:
            segment = self._segments[path] = _Segment({self._home: _Source(self._home, path)})
        segment.waiting.append((reader, request))
        self._lend(segment)

    def done(self, path: str, reader: str, source: str, copy: str) -> None:
        """*reader* reads no more from *source*; it has a *copy* now, or "" for none."""
        segment = self._segments.get(path)
        if segment is None:
            if copy:  # freed meanwhile
                self._actions.append(Drop(reader, copy))
            return
        lent = segment.sources.get(source)
        if lent is not None and reader in lent.readers:
            lent.readers.remove(reader)
        if copy and reader not in segment.sources:
            segment.sources[reader] = _Source(reader, copy)
        self._lend(segment)

    def unusable(self, path: str, source: str) -> None:
        """A reader could not reach *source*, or its copy has gone; the home is always tried again."""
        segment = self._segments.get(path)
        if segment is not None and source != self._home:
            segment.sources.pop(source, None)

    def peer_gone(self, address: str) -> None:
        """A node or a reader has ended: it reads no more, and has no copies."""
        for segment in self._segments.values():
            segment.sources.pop(address, None)
            segment.waiting = deque(waiting for waiting in segment.waiting if waiting[0] != address)
            for source in segment.sources.values():
                source.readers = [reader for reader in source.readers if reader != address]
            self._lend(segment)

    def freed(self, path: str) -> None:
        """The segment is no more: its copies go, and nobody waits for it."""
        segment = self._segments.pop(path, None)
        if segment is None:
            return
        self._actions += [Lend(reader, request, "", "") for reader, request in segment.waiting]
        self._actions += [
            Drop(source.address, source.path) for source in segment.sources.values() if source.address != self._home
        ]

    def flush(self) -> list[Action]:
        """Take the actions that have gathered."""
        actions, self._actions = self._actions, []
        return actions

    def _lend(self, segment: _Segment) -> None:
        while segment.waiting:
            source = min(segment.sources.values(), key=lambda source: len(source.readers))
            if len(source.readers) >= MAX_READERS:
                return
            reader, request = segment.waiting.popleft()
            source.readers.append(reader)
            self._actions.append(Lend(reader, request, source.address, source.path))
