"""The serve controller: a named actor, one per cluster, that keeps applications as they were declared.

What it knows is written down at the cluster's own controller (:mod:`shoal.api.kept`) with each change. If its process
dies it is started afresh, reads that, finds the replicas by name, and goes on; requests do not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import pickle
import time
from collections.abc import Mapping
from typing import Any

from shoal.api.kept import find_kept, keep
from shoal.errors import OwnerDiedError, ShoalError
from shoal.runtime import refs as ref_travel
from shoal_ml.serve.board import Board
from shoal_ml.serve.http_side import HTTPSide
from shoal_ml.serve.keeper import Keeper
from shoal_ml.serve.options import HTTPOptions
from shoal_ml.serve.reconciling import ReplicaRow
from shoal_ml.serve.specs import ApplicationSpec
from shoal_ml.serve.status import ApplicationStatus, ServeStatus
from shoal_ml.serve.tables import ROUTES, Route

logger = logging.getLogger("shoal.serve")
#: Where what it knows is kept.
STATE = "shoal-serve"
#: Seconds after which a question for news is answered without; soon for who has requests waiting.
NEWS_TIMEOUT, SOON = 30.0, 1.0
#: Seconds for the ingress to hear of a path, before whoever asked for it is told that it is there.
SEEN_TIMEOUT = 2.0


@dataclasses.dataclass(slots=True, eq=False)
class Served:
    """One application."""

    spec: ApplicationSpec
    keepers: dict[str, Keeper]
    #: Never ready; fails when the driver that the application belongs to has gone. None if it goes on by itself.
    life: Any = None
    #: What to go back to if the update that is under way fails.
    previous: ApplicationSpec | None = None
    #: Counts what was asked for; and the number, deployment and traceback of what failed.
    number: int = 0
    failed: tuple[int, str, str, bool] | None = None
    is_deleting: bool = False
    #: Its keepers are being told what is wanted.
    is_applying: bool = False
    watch: asyncio.Task[None] | None = None


class Controller:
    """See the module's description."""

    def __init__(self) -> None:
        self._applications: dict[str, Served] = {}
        self._board = Board()
        self._changed = asyncio.Event()
        self._http = HTTPSide()
        self._ready: asyncio.Task[None] | None = None
        self._saving: asyncio.Task[None] | None = None
        self._save_again = False
        self._closing: set[asyncio.Task[None]] = set()

    # -- what drivers ask ----------------------------------------------------------------------------------------

    async def start_http(self, options: HTTPOptions | None) -> str:
        """Listen, unless it is done already; returns the URL.

        Raises
        ------
        OSError
            Another has the port.
        """
        await self._recovered()
        await self._http.start(options, self._has_changed)
        return self._http.url

    async def deploy(self, spec: ApplicationSpec, lives: list[Any]) -> int:
        """Have an application as *spec* says, in place of what has its name; returns the number to wait for.

        Raises
        ------
        ValueError
            Another application has the route prefix.
        """
        await self._recovered()
        for other in self._applications.values():
            if spec.route_prefix and other.spec.route_prefix == spec.route_prefix and other.spec.name != spec.name:
                raise ValueError(
                    f"The application `{other.spec.name}` has the route prefix `{spec.route_prefix}` already: choose "
                    "another `route_prefix`, or delete it."
                )
        served = self._applications.get(spec.name)
        if served is None or served.is_deleting:
            served = self._applications[spec.name] = Served(spec, {})
        else:
            served.previous = served.spec if served.failed is None or served.failed[3] else None
        served.number += 1
        served.failed = None
        self._follow(served, lives[0] if lives else None)
        self._apply(served, spec)
        await self._save_now()
        return served.number

    async def wait_ready(self, name: str, number: int) -> tuple[str, str, str, bool]:
        """Wait until an application is as declared, or has failed: ``(state, deployment, traceback, rolled back)``.

        For one that is as declared the second is the version of its ingress's table instead.
        """
        await self._recovered()
        while True:
            served = self._applications.get(name)
            if served is None or served.is_deleting:
                return "DELETED", "", "", False
            if served.number != number:
                return "REPLACED", "", "", False
            if served.failed is not None:
                return "FAILED", *served.failed[1:]
            if all(keeper.is_steady for keeper in served.keepers.values()):
                if served.spec.route_prefix:
                    await self._board.seen(ROUTES, self._board.version(ROUTES), SEEN_TIMEOUT)
                return "RUNNING", str(self._board.version(served.keepers[served.spec.ingress].key)), "", False
            await self._changed.wait()

    async def delete(self, name: str) -> bool:
        """End an application after its requests; returns whether there was one."""
        await self._recovered()
        served = self._applications.get(name)
        if served is None:
            return False
        served.is_deleting = True
        self._post_routes()
        await asyncio.gather(*(keeper.close() for keeper in served.keepers.values()))
        if self._applications.get(name) is served:
            del self._applications[name]
        if served.watch is not None:
            served.watch.cancel()
        await self._save_now()
        return True

    async def shutdown(self) -> None:
        """End all applications, and HTTP."""
        await self._recovered()
        await asyncio.gather(*(self.delete(name) for name in list(self._applications)))
        await self._http.close()
        await asyncio.to_thread(keep, STATE, b"")

    async def status(self) -> ServeStatus:
        """Return what is served."""
        await self._recovered()
        keepers = [keeper for served in self._applications.values() for keeper in served.keepers.values()]
        await asyncio.gather(*(keeper.refresh_loads() for keeper in keepers))
        rows = tuple(self._application_status(served) for served in self._applications.values())
        return ServeStatus(rows, self._http.url)

    async def pid(self) -> int:
        """Return the id of this process on its node."""
        return os.getpid()

    async def wait_for_http(self) -> None:
        """Wait until every ingress listens."""
        await self._recovered()
        while not self._http.is_up:
            await self._changed.wait()

    async def wait_for_replicas(self, name: str, deployment: str, count: int) -> None:
        """Wait until a deployment has exactly so many replicas, all of them as wanted."""
        await self._recovered()
        while True:
            keeper = self._applications[name].keepers[deployment]
            if keeper.is_steady and len(keeper.rows) == count:
                return
            await self._changed.wait()

    async def wait_for_message(self, name: str, text: str) -> None:
        """Wait until something is said of an application's deployments that has *text* in it."""
        await self._recovered()
        while not any(text in keeper.message for keeper in self._applications[name].keepers.values()):
            await self._changed.wait()

    async def spec(self, name: str) -> ApplicationSpec | None:
        """Return the declaration of an application."""
        await self._recovered()
        served = self._applications.get(name)
        return served.spec if served is not None else None

    # -- what callers ask ----------------------------------------------------------------------------------------

    async def watch(
        self, watcher: str, known: Mapping[str, int], queued: Mapping[str, int]
    ) -> dict[str, tuple[int, Any]]:
        """Return what has changed of what a process watches, as soon as something has; see :class:`Board`."""
        await self._recovered()
        for served in self._applications.values():
            for keeper in served.keepers.values():
                if keeper.key in known:
                    keeper.queue_reported(watcher, queued.get(keeper.key, 0))
        return await self._board.news(watcher, known, SOON if queued else NEWS_TIMEOUT)

    # -- keeping what was declared -------------------------------------------------------------------------------

    def _apply(self, served: Served, spec: ApplicationSpec) -> None:
        served.spec, served.is_applying = spec, True
        wanted = {deployment.name: deployment for deployment in spec.deployments}
        for name in [name for name in served.keepers if name not in wanted]:
            self._close(served.keepers.pop(name))
        for name, deployment in wanted.items():
            keeper = served.keepers.get(name)
            if keeper is None:
                keeper = served.keepers[name] = self._keeper(spec.name, deployment)
            keeper.want(deployment, self._web_options(spec, name))
        served.is_applying = False
        self._post_routes()

    def _web_options(self, spec: ApplicationSpec, deployment: str) -> HTTPOptions | None:
        return self._http.options if spec.route_prefix and deployment == spec.ingress else None

    def _keeper(self, application: str, deployment: Any) -> Keeper:
        return Keeper(
            application,
            deployment,
            self._board,
            self._has_changed,
            lambda keeper, trouble: self._failed(application, keeper.name, trouble),
        )

    def _failed(self, application: str, deployment: str, trouble: str) -> None:
        """An update cannot be completed: go back, if there is something to go back to."""
        served = self._applications[application]
        if served.failed is not None and served.failed[0] == served.number:
            return
        previous, served.previous = served.previous, None
        served.failed = served.number, deployment, trouble, previous is not None
        if previous is not None:
            logger.warning("application %s goes back to its version before", application)
            asyncio.get_running_loop().call_soon(self._apply, served, previous)
        self._has_changed()

    def _follow(self, served: Served, life: Any) -> None:
        if served.watch is not None:
            served.watch.cancel()
        served.life, served.watch = life, None
        if life is not None:
            served.watch = asyncio.get_running_loop().create_task(self._end_with(served, life))

    async def _end_with(self, served: Served, life: Any) -> None:
        """Delete an application when the driver that it belongs to has gone."""
        with contextlib.suppress(OwnerDiedError):
            await life
        logger.info("application %s ends with its driver", served.spec.name)
        served.watch = None
        await self.delete(served.spec.name)

    def _close(self, keeper: Keeper) -> None:
        task = asyncio.get_running_loop().create_task(keeper.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _has_changed(self) -> None:
        for served in self._applications.values():
            if (
                served.previous is not None
                and not served.is_applying
                and all(keeper.is_steady for keeper in served.keepers.values())
            ):
                served.previous = None
        self._changed.set()
        self._changed = asyncio.Event()
        self._save()

    def _post_routes(self) -> None:
        routes = tuple(
            Route(served.spec.route_prefix, served.spec.name, served.spec.ingress)
            for served in self._applications.values()
            if served.spec.route_prefix and not served.is_deleting
        )
        self._board.post(ROUTES, routes)

    def _application_status(self, served: Served) -> ApplicationStatus:
        spec = served.spec
        deployments = tuple(keeper.status() for keeper in served.keepers.values())
        if served.is_deleting:
            state = "DELETING"
        elif served.failed is not None and not served.failed[3]:
            state = "DEPLOY_FAILED"
        elif all(row.state in ("HEALTHY", "UPSCALING", "DOWNSCALING") for row in deployments):
            state = "RUNNING"
        else:
            state = "UNHEALTHY" if any(row.state == "UNHEALTHY" for row in deployments) else "DEPLOYING"
        url = self._http.url + spec.route_prefix.rstrip("/") if spec.route_prefix and self._http.url else ""
        message = ""
        if served.failed is not None:
            what = "The update failed, the version before goes on" if served.failed[3] else "It did not come up"
            message = f"{what}: deployment `{served.failed[1]}`:\n{served.failed[2]}"
        return ApplicationStatus(
            spec.name, state, spec.route_prefix, url, spec.ingress, deployments, message, served.life is None
        )

    # -- surviving -----------------------------------------------------------------------------------------------

    async def _recovered(self) -> None:
        if self._ready is None:
            self._ready = asyncio.get_running_loop().create_task(self._recover())
        await asyncio.shield(self._ready)

    async def _recover(self) -> None:
        self._board.start_after(time.time_ns())
        kept = await asyncio.to_thread(find_kept, STATE)
        if not kept:
            self._post_routes()
            return
        applications, http = pickle.loads(kept)
        self._http.adopt(http, self._has_changed)
        for spec, number, life, keepers in applications:
            served = self._applications[spec.name] = Served(spec, {}, number=number)
            for deployment in spec.deployments:
                keeper = served.keepers[deployment.name] = self._keeper(spec.name, deployment)
                rows: tuple[list[ReplicaRow], int, int] = keepers.get(deployment.name, ([], 0, 0))
                keeper.http = self._web_options(spec, deployment.name)
                keeper.adopt(*rows)
            self._follow(served, life)
        logger.warning("the serve controller was restarted and goes on with %d applications", len(applications))
        for served in self._applications.values():
            await self._found(served)
            self._apply(served, served.spec)

    @staticmethod
    async def _found(served: Served) -> None:
        """Wait for the replicas that are there already, so that callers go on with them."""
        for keeper in served.keepers.values():
            await keeper.settled()

    def _save(self) -> None:
        """Write down what is known, soon."""
        if self._saving is not None and not self._saving.done():
            self._save_again = True
            return
        self._saving = asyncio.get_running_loop().create_task(self._save_now())

    async def _save_now(self) -> None:
        while True:
            self._save_again = False
            rows = [
                (
                    served.spec,
                    served.number,
                    served.life,
                    {name: keeper.checkpoint() for name, keeper in served.keepers.items()},
                )
                for served in self._applications.values()
                if not served.is_deleting
            ]
            with ref_travel.collecting():
                state = pickle.dumps((rows, self._http.checkpoint()))
            try:
                await asyncio.to_thread(keep, STATE, state)
            except ShoalError:
                logger.exception("what is served could not be written down: it would not survive the controller")
            if not self._save_again:
                return
