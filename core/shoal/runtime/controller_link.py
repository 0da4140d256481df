"""An owner's line to the controller: greeted once, told things, and asked questions with a deadline."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

from shoal.model import messages as m
from shoal.model.errors import ClusterLostError, ConnectError, ShoalError
from shoal.runtime.environment import silence_limit
from shoal.runtime.heartbeat import Heartbeat
from shoal.runtime.peers import CONNECT_TIMEOUT
from shoal.runtime.scope import Scope
from shoal.transport.comms import Security, connect
from shoal.transport.stream import Stream

logger = logging.getLogger("shoal")

#: How much longer than with others we bear with a controller that says nothing: Dask's scheduler may be busy.
PATIENCE = 2.0
#: Seconds within which the controller answers a question.
ANSWER_TIMEOUT = 10.0


class ControllerLink:
    """See the module's description. Lives on the owner's event loop.

    A driver calls :meth:`connect` at its start; an executor's line comes up with its first :meth:`tell`.
    """

    def __init__(
        self,
        address: str,
        security: Security,
        scope: Scope,
        hello: Callable[[], m.OwnerHello],
        on_message: Callable[[m.Message], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """``on_lost(reason)`` is called once, when there is no controller any more."""
        self.address = address
        self._security = security
        self._scope = scope
        self._hello = hello
        self._on_message = on_message
        self._on_lost = on_lost
        self._stream: Stream | None = None
        self._connecting: asyncio.Future[m.Welcome] | None = None
        self._numbers = itertools.count(1)
        self._questions: dict[int, asyncio.Future[Any]] = {}
        self._closed = False

    @property
    def connected(self) -> bool:
        return self._stream is not None

    async def connect(self) -> m.Welcome:
        """Greet the controller.

        Raises
        ------
        ConnectError
            It does not answer, or refuses us.
        """
        comm = await connect(self.address, self._security, CONNECT_TIMEOUT, to_dask_server=True)
        welcome: asyncio.Future[m.Welcome] = asyncio.get_running_loop().create_future()

        def on_message(stream: Stream, message: m.Message) -> None:
            if welcome.done():
                self._handle(message)
            elif isinstance(message, m.Welcome):
                welcome.set_result(message)
            else:
                reason = message.reason if isinstance(message, m.Refused) else "it did not greet us"
                welcome.set_exception(ConnectError(f"The cluster refused us: {reason}.", address=self.address))

        stream = Stream(comm, on_message)
        stream.send_nowait(self._hello())
        self._scope.start(self._run(stream, welcome))
        answer = await asyncio.wait_for(welcome, CONNECT_TIMEOUT)
        self._stream = stream
        watch = Heartbeat(PATIENCE * silence_limit(), lambda _: stream.abort(), self._suspect)
        self._scope.start(watch.run(lambda: [stream], lambda: {} if stream.closed else {"controller": stream}))
        return answer

    def _suspect(self, _: str, suspected: bool) -> None:
        if suspected:
            logger.warning("the cluster at %s says nothing; waiting for it", self.address)
        else:
            logger.warning("the cluster at %s is heard again", self.address)

    def tell(self, message: m.Message) -> None:
        """Send *message*; dropped when the line is closed or lost."""
        if self._stream is not None:
            self._stream.send_nowait(message)
        elif not self._closed:
            self._scope.start(self._connect_and_tell(message))

    async def ask(self, make: Callable[[int], m.Message], timeout: float = ANSWER_TIMEOUT) -> Any:
        """Send the message that ``make(request)`` returns and wait for the answer to that request.

        Raises
        ------
        ClusterLostError
            The line was lost, or no answer came in time.
        ShoalError
            Whoever was asked says why there is none.
        """
        if self._closed:
            raise ClusterLostError("The connection to the cluster was lost.")
        request = next(self._numbers)
        answer = self._questions[request] = asyncio.get_running_loop().create_future()
        self.tell(make(request))
        try:
            return await asyncio.wait_for(answer, timeout)
        except TimeoutError:
            raise ClusterLostError(f"The cluster gave no answer within {timeout:g} s.") from None
        finally:
            self._questions.pop(request, None)

    async def close(self, timeout: float) -> None:
        """Say what is left to say, for *timeout* seconds at most, and hang up."""
        self._closed = True
        if self._stream is not None:
            await self._stream.close(timeout)

    def _handle(self, message: m.Message) -> None:
        if isinstance(message, m.Answer | m.NameClaimed):
            answer = self._questions.get(message.request)
            if answer is None or answer.done():
                return
            if isinstance(message, m.Answer) and message.failed:
                answer.set_exception(ShoalError(message.failed))
            else:
                answer.set_result(message.value if isinstance(message, m.Answer) else message)
        else:
            self._on_message(message)

    async def _connect_and_tell(self, message: m.Message) -> None:
        """Greet the controller, once, then say it."""
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self.connect())
        try:
            await asyncio.shield(self._connecting)
        except (ConnectError, TimeoutError) as error:
            self._lost(f"The cluster did not answer: {error}")
            return
        self.tell(message)

    async def _run(self, stream: Stream, welcome: asyncio.Future[m.Welcome]) -> None:
        await stream.run()
        if not welcome.done():
            welcome.set_exception(ConnectError("The cluster hung up.", address=self.address))
        else:
            self._lost(
                f"The connection to the cluster at `{self.address}` was lost. Call `shoal.shutdown()` and "
                "`shoal.init()` to start again."
            )

    def _lost(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = True
        self._stream = None
        error: ShoalError = ClusterLostError(reason)
        for answer in self._questions.values():
            if not answer.done():
                answer.set_exception(error)
        self._on_lost(reason)
