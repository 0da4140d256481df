"""The router: sends the requests of one process to the replicas of one deployment, or has them wait."""

from __future__ import annotations

import itertools
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import shoal
from shoal.errors import ShoalError
from shoal_ml.serve.errors import BackPressureError, UnknownApplicationError
from shoal_ml.serve.handles import Call, Response, ResponseStream
from shoal_ml.serve.routing import RoutingTable
from shoal_ml.serve.tables import DeploymentTable

#: Waiting requests that are looked at for one that a free replica may take.
LOOK_AHEAD = 64


class Router:
    """See the module's description. Its methods may be called on any thread."""

    def __init__(self, key: str, node_id: str, poke: Callable[[], None]) -> None:
        """*poke* makes the controller hear soon that requests wait."""
        self.key = key
        self._poke = poke
        self._lock = threading.RLock()
        self._routing = RoutingTable(node_id, random.Random())
        #: What the controller has said; None before.
        self.table: DeploymentTable | None = None
        self._waiting: deque[Response | ResponseStream] = deque()
        #: The controller has said that there is no such deployment.
        self._is_unknown = False

    @property
    def queued(self) -> int:
        """Requests that wait for a replica."""
        return len(self._waiting)

    def has_room(self, avoid: str = "") -> bool:
        """Whether a replica other than *avoid* would take a request at once."""
        with self._lock:
            return self._routing.has_room(avoid)

    def is_first(self, model_id: str, replica_id: str) -> bool:
        """Whether requests for this model go to this replica, as long as it has room."""
        with self._lock:
            return self._routing.is_first(model_id, replica_id)

    def update(self, table: DeploymentTable | None) -> None:
        """The controller says who answers from now on; None if there is no such deployment (any more)."""
        with self._lock:
            self.table, self._is_unknown = table, table is None
            self._routing.update(table.places if table is not None else (), table.max_ongoing if table else 1)
        if table is None:
            self._fail_waiting(self.unknown())
        else:
            self._send_waiting()

    def unknown(self) -> ShoalError:
        """Return what to raise if there is no such deployment."""
        application, _, deployment = self.key.partition("#")
        return UnknownApplicationError(
            f"There is no deployment `{deployment}` in an application `{application}`: `serve.run` starts one, "
            "`serve.status()` lists them.",
            application=application,
        )

    def submit(self, call: Call) -> Response | ResponseStream:
        """Send *call*, or have it wait; see :meth:`DeploymentHandle.remote`."""
        response = (
            ResponseStream(call, self._stream_done, self._drop)
            if call.options.stream
            else Response(call, self._again, self._drop)
        )
        unsent = [argument for argument in call.responses() if not argument._sent.done()]
        if unsent:
            self._enter_after(response, unsent)
        else:
            self._enter(response)
        return response

    def _enter_after(self, response: Response | ResponseStream, unsent: list[Response]) -> None:
        left = itertools.count(len(unsent) - 1, -1)

        def sent(_: object) -> None:
            if next(left) == 0:
                try:
                    self._enter(response)
                except (BackPressureError, UnknownApplicationError) as error:
                    response._sent.set_exception(error)

        for argument in unsent:
            argument._sent.add_done_callback(sent)

    def _enter(self, response: Response | ResponseStream) -> None:
        with self._lock:
            if self._is_unknown:
                raise self.unknown()
            chosen = self._pick(response._call) if not self._waiting else ""
            if not chosen:
                self._check_queue()
                self._waiting.append(response)
                first = len(self._waiting) == 1
        if chosen:
            self._send(response, chosen)
        elif first:
            self._poke()

    def _check_queue(self) -> None:
        table = self.table
        if table is not None and 0 <= table.max_queued <= len(self._waiting):
            raise BackPressureError(
                f"{len(self._waiting)} requests wait for `{self.key.replace('#', '/')}` already, which is its "
                "`max_queued_requests`. Try again later, or give it more replicas.",
                deployment=self.key.partition("#")[2],
                retry_after=table.retry_after,
            )

    def _pick(self, call: Call) -> str:
        return self._routing.pick(call.options.multiplexed_model_id, call.lost_with)

    def _send_waiting(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    return
                chosen = self._pick(self._waiting[0]._call)
                if not chosen:
                    return
                response = self._waiting.popleft()
            self._send(response, chosen)

    def _send(self, response: Response | ResponseStream, replica_id: str) -> None:
        call = response._call
        call.replica_id = replica_id
        if not response._sent.set_running_or_notify_cancel():
            self._ended(replica_id)
            return
        try:
            args, kwargs = call.resolved()
            table = self.table
            handle = table.handles[replica_id] if table is not None else None
            method = getattr(handle, "stream" if call.options.stream else "call")
            sent = method.remote(
                (call.request_id, call.options.method_name, call.options.multiplexed_model_id), *args, **kwargs
            )
        except Exception as error:  # boundary: arguments that cannot travel, a session that has ended
            self._ended(replica_id)
            response._sent.set_exception(error)
            return
        response._sent.set_result(sent)
        if isinstance(sent, shoal.ObjectRef):
            sent.add_done_callback(lambda _: self._ended(replica_id))

    def _ended(self, replica_id: str) -> None:
        with self._lock:
            self._routing.ended(replica_id)
        self._send_waiting()

    def _stream_done(self, response: ResponseStream) -> None:
        if response._call.replica_id:
            replica_id, response._call.replica_id = response._call.replica_id, ""
            self._ended(replica_id)

    def _again(self, response: Response, error: BaseException) -> bool:
        """The replica has died under a request; returns whether it is sent once more."""
        call = response._call
        with self._lock:
            self._routing.lost(call.replica_id)
        allowed = call.options.retries
        if allowed is None:
            allowed = self.table.retries if self.table is not None else 0
        if len(call.lost_with) >= allowed:
            return False
        call.lost_with.append(call.replica_id)
        response._sent = type(response._sent)()
        self._enter(response)
        return True

    def _drop(self, response: Response | ResponseStream) -> None:
        with self._lock:
            if response in self._waiting:
                self._waiting.remove(response)
        if not response._sent.cancel() and response._sent.done() and not response._sent.cancelled():
            sent = None if response._sent.exception() else response._sent.result()
            if isinstance(sent, shoal.ObjectRef | shoal.ObjectRefGenerator):
                _cancel(sent)

    def _fail_waiting(self, error: BaseException) -> None:
        with self._lock:
            waiting, self._waiting = list(self._waiting), deque()
        for response in waiting:
            if response._sent.set_running_or_notify_cancel():
                response._sent.set_exception(error)


def _cancel(sent: Any) -> None:
    try:
        shoal.cancel(sent)
    except ShoalError:
        return  # its session has ended, and it with it
