"""Ranks: copies of one piece of work that run at the same time and know of each other.

Cells with ``--ranks`` and training runs are made of them. Executors import this module: torch is imported when a
process group is asked for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import os
import shutil
import sys
import tempfile
from datetime import timedelta
from typing import Any

from shoal.api.actors import ActorHandle
from shoal.api.nodes import nodes
from shoal.api.placement import PlacementGroup
from shoal.api.runtime_context import get_runtime_context
from shoal.api.values import get

#: Seconds that a rank waits for the others to come.
MEET_TIMEOUT = 120.0


class Meeting:
    """Where ranks tell each other what they must know before they can speak directly. An actor."""

    def __init__(self) -> None:
        self._said: dict[str, Any] = {}
        self._news = asyncio.Condition()

    async def say(self, name: str, value: Any) -> None:
        async with self._news:
            self._said[name] = value
            self._news.notify_all()

    async def hear(self, name: str) -> Any:
        async with self._news:
            await self._news.wait_for(lambda: name in self._said)
            return self._said[name]


@dataclasses.dataclass
class Rank:
    """What makes a rank: the variables that launchers such as torchrun set, and torch's process group.

    Around its work: ``RANK`` and ``WORLD_SIZE`` are in the environment, and ``LOCAL_RANK`` and ``LOCAL_WORLD_SIZE``,
    which count the ranks on the same node only. A process that was given devices of its own sees no others, and gets
    the ``LOCAL_RANK`` of its first, 0. With ``torch`` the default process group is ready, and gone afterwards.
    """

    rank: int
    world_size: int
    #: Has a bundle for each rank, in their order.
    group: PlacementGroup
    meeting: ActorHandle
    torch: bool = False
    #: gloo runs on CPUs everywhere.
    backend: str = "gloo"
    #: Seconds that a collective may take.
    timeout: float = 1800.0
    _before: dict[str, str | None] = dataclasses.field(default_factory=dict)
    #: Of rank 0: where the ranks find each other, on one machine and on several.
    _directory: str = ""
    _store: Any = None

    def __enter__(self) -> None:
        local_rank, local_world_size = self._local()
        self._set("RANK", str(self.rank))
        self._set("WORLD_SIZE", str(self.world_size))
        self._set("LOCAL_RANK", "0" if os.environ.get("CUDA_VISIBLE_DEVICES") else str(local_rank))
        self._set("LOCAL_WORLD_SIZE", str(local_world_size))
        if self.torch:
            try:
                self._join()
            except BaseException:
                self.__exit__()
                raise

    def __exit__(self, *exc_info: object) -> None:
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_initialized():
            distributed.destroy_process_group()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _local(self) -> tuple[int, int]:
        """Return this rank's number among those on its node, and how many those are."""
        here, places = get_runtime_context().node_id, self.group.nodes()
        return places[: self.rank].count(here), max(1, places.count(here))

    def _set(self, name: str, value: str) -> None:
        self._before.setdefault(name, os.environ.get(name))
        os.environ[name] = value

    def _join(self) -> None:
        distributed = _torch_distributed()
        if self.rank == 0:
            get(self.meeting.say.remote("where", self._invite()), timeout=MEET_TIMEOUT)
        kind, where, port = get(self.meeting.hear.remote("where"), timeout=MEET_TIMEOUT)
        timeout = timedelta(seconds=MEET_TIMEOUT)
        if kind == "file":
            # All on this machine: nothing listens but gloo's own pairs, on loopback.
            self._set("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
            store = distributed.FileStore(where, self.world_size)
        elif self.rank == 0:
            store = self._store
        else:
            store = distributed.TCPStore(where, port, self.world_size, is_master=False, timeout=timeout)
        distributed.init_process_group(
            self.backend,
            store=store,
            rank=self.rank,
            world_size=self.world_size,
            timeout=timedelta(seconds=self.timeout),
        )
        # One that has ended before another is connected to all would look to it like a crash.
        distributed.barrier()

    def _invite(self) -> tuple[str, str, int]:
        """Open the place where the ranks of a process group find each other."""
        host = _own_host()
        if host.startswith("127.") or host in ("localhost", "::1"):
            self._directory = tempfile.mkdtemp(prefix=f"shoal-{os.getuid()}-ranks-")
            return "file", os.path.join(self._directory, "store"), 0
        self._store = _torch_distributed().TCPStore(
            host, 0, self.world_size, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=MEET_TIMEOUT)
        )
        return "tcp", host, self._store.port


def _torch_distributed() -> Any:
    return importlib.import_module("torch.distributed")


def _own_host() -> str:
    node_id = get_runtime_context().node_id
    return next(node.labels.get("host", "") for node in nodes() if node.id == node_id)


__all__ = ["MEET_TIMEOUT", "Meeting", "Rank"]
