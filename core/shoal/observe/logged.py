"""Reading the logs of clusters (:mod:`shoal.observe.event_log`), also of those that were killed."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from shoal.observe.event_log import (
    ABOUT,
    END,
    EVENTS,
    EXECUTORS,
    FILES,
    HEAD,
    RECORDS,
    SNAPSHOT,
    VERSION,
    checksum_of,
    is_written,
    logs_in,
)
from shoal.observe.records import Batch

#: Bytes that a frame may have once it is unpacked: more is no log of ours.
MAX_FRAME_NBYTES = 256 << 20
#: Tables of which a log remembers the rows that went, and what their ``state`` is then.
_GONE = {"nodes": "left", "actors": "dead", "groups": "removed", "owners": ""}


@dataclasses.dataclass
class LoggedCluster:
    """What a log says of a cluster.

    Attributes
    ----------
    id, name, address
        Of the cluster.
    shoal
        The version of shoal that it ran.
    started, ended
        Unix seconds; *ended* is when the last was written.
    in_order
        Whether it ended in order; else it was killed, or runs.
    running
        Whether it still runs.
    snapshot
        The last one (:mod:`shoal.observe.cluster_view`), with the rows of nodes, actors, placement groups and owners
        that had gone by then, and all events and points of the history that there are.
    batches
        Records, the oldest first: those that found room.
    executors
        The node of each executor.
    """

    id: str = ""
    name: str = ""
    address: str = ""
    shoal: str = ""
    started: float = 0.0
    ended: float = 0.0
    in_order: bool = False
    running: bool = False
    snapshot: dict[str, Any] = dataclasses.field(default_factory=dict)
    batches: list[Batch] = dataclasses.field(default_factory=list)
    executors: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def num_tasks(self) -> int:
        """How many tasks and calls it has recorded; not all of them need be in :attr:`batches`."""
        return max(int(self.snapshot.get("records", 0)), sum(batch.num_records for batch in self.batches))


def read_log(directory: Path) -> LoggedCluster:
    """Read a log.

    Raises
    ------
    FileNotFoundError
        There is none.
    ValueError
        It is damaged from its beginning, or of another version.
    """
    files = [(directory / name).read_bytes() for name in FILES if (directory / name).is_file()]
    if not files:
        raise FileNotFoundError(f"There is no log of a cluster in {directory}.")
    whole = [frames for data in files if (frames := list(_frames(data))) and frames[0][0] == ABOUT]
    if not whole:
        raise ValueError(f"What is in {directory} is no log of a cluster, or is damaged.")
    whole.sort(key=lambda frames: frames[0][1]["file"])
    found = LoggedCluster(running=is_written(directory))
    events: dict[int, Any] = {}
    history: dict[float, Any] = {}
    for kind, content, now in (frame for frames in whole for frame in frames):
        found.ended = max(found.ended, now)
        if kind == ABOUT:
            found.id, found.name, found.address = content["id"], content["name"], content["address"]
            found.started, found.shoal = content["started"], content["shoal"]
        elif kind == SNAPSHOT:
            found.snapshot = with_gone_rows(found.snapshot, content)
            history |= {point["time"]: point for point in content["history"]}
        elif kind == RECORDS:
            found.batches.append(Batch(*content))
        elif kind == EXECUTORS:
            found.executors |= content
        elif kind == EVENTS:
            events |= {event["number"]: event for event in content}
        elif kind == END:
            found.in_order = not found.running
    if found.snapshot:
        found.snapshot["events"] = [events[number] for number in sorted(events)]
        found.snapshot["history"] = [history[moment] for moment in sorted(history)]
    return found


def list_logs(root: Path) -> list[tuple[Path, LoggedCluster]]:
    """Read every log in *root*, the newest first; those that cannot be read are left out."""
    found = []
    for directory in logs_in(root):
        try:
            found.append((directory, read_log(directory)))
        except (OSError, ValueError):
            continue
    return found


def with_gone_rows(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the snapshot *after*, with rows of the one *before* that are not in it any more."""
    merged = dict(after)
    for table, state in _GONE.items():
        there = {row["id"] for row in after[table]}
        gone = [
            row if not state else {**row, "state": state} for row in before.get(table, ()) if row["id"] not in there
        ]
        merged[table] = [*gone, *after[table]]
    return merged


def _frames(data: bytes) -> Iterator[tuple[int, Any, float]]:
    """Give the frames of a file, to the first that is not whole.

    Raises
    ------
    ValueError
        It begins with a frame of another version.
    """
    offset = 0
    while offset + HEAD.size <= len(data):
        length, version, kind, now, checksum = HEAD.unpack_from(data, offset)
        if not offset and version != VERSION:
            raise ValueError(f"A log of version {version} cannot be read here: this shoal reads {VERSION}.")
        offset += HEAD.size
        packed = data[offset : offset + length]
        if version != VERSION or len(packed) < length or checksum != checksum_of(packed, kind, now):
            return
        offset += length
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(packed, MAX_FRAME_NBYTES)
            yield kind, msgpack.unpackb(content, unicode_errors="surrogatepass", strict_map_key=False), now
        except (zlib.error, ValueError, msgpack.UnpackException):
            return
