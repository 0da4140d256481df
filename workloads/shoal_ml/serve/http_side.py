"""The controller's HTTP side: starts the ingress processes, and sees to it that they listen."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

import shoal
from shoal.errors import ActorDiedError, ActorUnavailableError, OptionError, ShoalError
from shoal_ml.serve.options import HTTPOptions
from shoal_ml.serve.tables import NAMESPACE

logger = logging.getLogger("shoal.serve")
#: Calls that an ingress answers at once: the controller's.
CONCURRENCY = 100


class HTTPSide:
    """See the module's description. For the controller's event loop."""

    def __init__(self) -> None:
        self.options: HTTPOptions | None = None
        self._port = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._handles: list[Any] = []
        self._starting = asyncio.Lock()
        self._num_listening = 0
        self._on_change: Callable[[], None] = lambda: None

    @property
    def is_up(self) -> bool:
        """Whether all processes listen."""
        return self.options is not None and self._num_listening == self.options.num_processes

    @property
    def url(self) -> str:
        """Where it listens; "" if it does not."""
        options = self.options
        if options is None or not self._port:
            return ""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host, options.host)
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if options.ssl_certfile else 'http'}://{host}:{self._port}{options.root_path}"

    async def start(self, options: HTTPOptions | None, save: Callable[[], None]) -> None:
        """Listen as *options* say; if it does already, they have to be the same, or None."""
        async with self._starting:
            if self.options is not None:
                if options is not None and options != self.options:
                    raise OptionError(
                        f"HTTP is served at {self.url} already, with other options: `serve.shutdown()` comes first.",
                        option="http_options",
                    )
                return
            options = options or HTTPOptions()
            shared = options.num_processes > 1
            for number in range(options.num_processes):
                handle = await asyncio.to_thread(_create, number, options)
                self._handles.append(handle)
                try:
                    self._port = await handle.listen.remote(self._port or options.port, shared)
                except OSError as error:
                    await self.close()
                    raise OSError(
                        error.errno,
                        f"`{options.host}` port {options.port} cannot be had ({error.strerror}): choose another by "
                        "`http_options=dict(port=…)`; 0 takes a free one",
                    ) from None
            self.options, self._on_change = options, save
            self._tasks = [asyncio.get_running_loop().create_task(self._watch(handle)) for handle in self._handles]
            save()

    async def _watch(self, handle: Any) -> None:
        """An ingress that dies is started afresh by the cluster: have it listen on the same port."""
        assert self.options is not None
        while True:
            try:
                await handle.listen.remote(self._port, self.options.num_processes > 1)
                self._num_listening += 1
                self._on_change()
                try:
                    await handle.live.remote()
                finally:
                    self._num_listening -= 1
            except ActorUnavailableError:
                logger.warning("an ingress has died and comes back")
            except ActorDiedError:
                return
            except OSError:
                logger.exception("an ingress could not listen again")
                return

    def checkpoint(self) -> tuple[HTTPOptions | None, int]:
        """Return what :meth:`adopt` takes."""
        return self.options, self._port

    def adopt(self, kept: tuple[HTTPOptions | None, int], save: Callable[[], None]) -> None:
        """Go on with what an earlier controller has started."""
        self.options, self._port = kept
        self._on_change = save
        if self.options is not None:
            self._tasks = [
                asyncio.get_running_loop().create_task(self._find(number))
                for number in range(self.options.num_processes)
            ]

    async def _find(self, number: int) -> None:
        assert self.options is not None
        try:
            handle = await asyncio.to_thread(shoal.get_actor, _name(number), NAMESPACE)
        except ValueError:
            handle = await asyncio.to_thread(_create, number, self.options)
        self._handles.append(handle)
        await self._watch(handle)

    async def close(self) -> None:
        """Listen no more."""
        for task in self._tasks:
            task.cancel()
        handles, self._handles, self._tasks = self._handles, [], []
        for handle in handles:
            with contextlib.suppress(ShoalError):
                await asyncio.to_thread(shoal.kill, handle)
        self.options, self._port = None, 0


def _name(number: int) -> str:
    return f"ingress-{number}"


def _create(number: int, options: HTTPOptions) -> Any:
    from shoal_ml.serve.ingress import Ingress

    actor = shoal.remote(Ingress).options(
        name=_name(number),
        namespace=NAMESPACE,
        lifetime="detached",
        max_restarts=-1,
        max_concurrency=CONCURRENCY,
        on_redefine="replace",
    )
    return actor.remote(options)
