"""Watching a cluster without becoming part of it: its snapshot as it changes, and questions to anybody in it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

from shoal.model import messages as m
from shoal.model.errors import ConnectError, ShoalError
from shoal.model.ids import random_id
from shoal.observe.deltas import apply
from shoal.observe.records import Batch
from shoal.runtime.heartbeat import Heartbeat
from shoal.runtime.scope import Scope
from shoal.transport.comms import Security, connect
from shoal.transport.stream import Stream

#: Seconds of silence after which a cluster is given up.
SILENCE = 20.0


class ClusterWatch:
    """A line to a cluster's controller. Use it on one event loop only.

    Call order: construct, await :meth:`open`, then :meth:`ask` as you like, then await :meth:`close`.
    ``on_end(reason)`` is called once if the cluster ends, or stops answering, before you close.

    Parameters
    ----------
    address, security
        The Dask scheduler's.
    on_change
        Gets the snapshot as it is now, and the delta that led to it (:mod:`shoal.observe.deltas`); None for the first.
        Do not change them.
    on_end
        Gets the reason.
    interval
        Seconds between two changes, 0.1 to 60.
    on_records
        Gets batches of records (:mod:`shoal.observe.records`) as they come; None if they are not wanted.
    """

    def __init__(
        self,
        address: str,
        security: Security,
        on_change: Callable[[dict[str, Any], dict[str, Any] | None], None],
        on_end: Callable[[str], None],
        *,
        interval: float = 0.5,
        on_records: Callable[[Batch], None] | None = None,
    ) -> None:
        self.address = address
        self._security = security
        self._on_change = on_change
        self._on_end = on_end
        self._interval = interval
        self._on_records = on_records
        self._scope = Scope(f"watch of {address}")
        self._stream: Stream | None = None
        self._snapshot: dict[str, Any] | None = None
        self._numbers = itertools.count(1)
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._refused = ""
        self._closed = False

    @property
    def snapshot(self) -> dict[str, Any] | None:
        """The newest snapshot; None before the first."""
        return self._snapshot

    async def open(self, timeout: float) -> None:
        """Connect, and return when the first snapshot is there.

        Raises
        ------
        ConnectError
            There is no cluster, it refuses us, or it did not answer within *timeout* seconds.
        """
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                comm = await connect(self.address, self._security, timeout, to_dask_server=True)
                stream = self._stream = Stream(comm, self._handler(first))
                watcher = m.WatchHello(
                    m.PROTOCOL_VERSION, random_id("watcher"), self._interval, self._on_records is not None
                )
                stream.send_nowait(watcher)
                self._scope.start(self._run(stream, first))
                await first
        except TimeoutError:
            await self.close()
            raise ConnectError(f"`{self.address}` did not answer within {timeout:g} s.", address=self.address) from None
        except ConnectError:
            await self.close()
            raise

    async def ask(self, topic: str, *details: Any, target: str = "", timeout: float = 5.0) -> Any:
        """Ask the controller, or the owner or node *target*.

        Raises
        ------
        ShoalError
            Whoever was asked says why there is no answer.
        ConnectError
            The cluster has ended, or no answer came within *timeout* seconds.
        """
        if self._stream is None or self._stream.closed:
            raise ConnectError("The cluster has ended.", address=self.address)
        request = next(self._numbers)
        answer = self._questions[request] = asyncio.get_running_loop().create_future()
        self._stream.send_nowait(m.Ask(request, topic, details, target))
        try:
            return await asyncio.wait_for(answer, timeout)
        except TimeoutError:
            who = f"`{target}`" if target else "The cluster"
            raise ConnectError(f"{who} gave no answer within {timeout:g} s.", address=self.address) from None
        finally:
            self._questions.pop(request, None)

    async def close(self) -> None:
        """Hang up; harmless the second time."""
        self._closed = True
        if self._stream is not None:
            self._stream.abort()
        await self._scope.close()

    def _handler(self, first: asyncio.Future[None]) -> Callable[[Stream, m.Message], None]:
        def handle(_: Stream, message: m.Message) -> None:
            match message:
                case m.View(snapshot):
                    self._snapshot = json.loads(snapshot)
                    self._on_change(self._snapshot, None)
                    if not first.done():
                        first.set_result(None)
                case m.ViewChanged(packed) if self._snapshot is not None:
                    delta = json.loads(packed)
                    self._snapshot = apply(self._snapshot, delta)
                    self._on_change(self._snapshot, delta)
                case m.Records() if self._on_records is not None:
                    self._on_records(Batch(*message))
                case m.Answer(request, value, failed):
                    answer = self._questions.get(request)
                    if answer is not None and not answer.done():
                        if failed:
                            answer.set_exception(ShoalError(failed))
                        else:
                            answer.set_result(value)
                case m.Refused(reason):
                    self._refused = reason

        return handle

    async def _run(self, stream: Stream, first: asyncio.Future[None]) -> None:
        watch = Heartbeat(SILENCE, lambda _: stream.abort())
        self._scope.start(watch.run(lambda: [stream], lambda: {} if stream.closed else {"cluster": stream}))
        await stream.run()
        reason = f"The cluster refused us: {self._refused}." if self._refused else "The cluster has ended."
        for answer in self._questions.values():
            if not answer.done():
                answer.set_exception(ConnectError(reason, address=self.address))
        if not first.done():
            first.set_exception(ConnectError(reason, address=self.address))
        elif not self._closed:
            self._on_end(reason)
