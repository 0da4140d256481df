"""The hub: a process's door to what is served. It keeps a router for each deployment that is called from here, and one
thread that waits for news from the controller."""

from __future__ import annotations

import functools
import logging
import threading
from typing import Any

import shoal
from shoal.errors import ActorDiedError, ActorUnavailableError, NotInitializedError, ShoalError
from shoal.model.ids import random_id
from shoal.runtime import session as current
from shoal_ml.serve.handles import Call, CallOptions, Response
from shoal_ml.serve.router import Router
from shoal_ml.serve.tables import CONTROLLER, NAMESPACE, ROUTES, DeploymentTable, Route, key_of

logger = logging.getLogger("shoal.serve")
#: Seconds between two attempts to reach a controller that is being restarted, at first and at most.
FIRST_RETRY, LAST_RETRY = 0.05, 2.0

_lock = threading.Lock()
_hub: Hub | None = None
#: Applications that run in this process, by name.
_local: dict[str, dict[str, Any]] = {}


class Hub:
    """See the module's description; one per session of a process."""

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.watcher_id = random_id("watcher")
        self._node_id = shoal.get_runtime_context().node_id
        self._lock = threading.Lock()
        self._routers: dict[str, Router] = {}
        self._versions: dict[str, int] = {}
        #: Told of a change of what paths there are, on the hub's thread.
        self.on_routes: Any = None
        #: Refs of large arguments, by application: their owner is this process.
        self.held: dict[str, Any] = {}
        self._news = threading.Event()
        self._taken = threading.Condition()
        self._thread: threading.Thread | None = None

    def router(self, key: str) -> Router:
        """Return the router of a deployment; its table comes soon."""
        router = self._routers.get(key)
        if router is None:
            with self._lock:
                router = self._routers.get(key)
                if router is None:
                    router = self._routers[key] = Router(key, self._node_id, self._news.set)
                    self._versions[key] = -1
            self.watch()
        return router

    def watch(self) -> None:
        """Ask the controller for news; again, if what is asked for has changed."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="shoal-serve", daemon=True)
                self._thread.start()
        self._news.set()

    def watch_routes(self, on_routes: Any) -> None:
        """Have ``on_routes(routes)`` called with what paths there are, now and after each change."""
        self.on_routes = on_routes
        self._versions.setdefault(ROUTES, -1)
        self.watch()

    def _watch(self) -> None:
        wait = FIRST_RETRY
        while True:
            try:
                controller = shoal.get_actor(CONTROLLER, NAMESPACE)
                while True:
                    self._take(self._ask(controller))
                    wait = FIRST_RETRY
            except (ActorDiedError, ActorUnavailableError, ValueError):
                if not self._is_current():
                    return
                self._gone(wait)
                wait = min(LAST_RETRY, 2 * wait)
            except ShoalError:
                return  # the session has ended
            except Exception:
                logger.exception("the watch over deployments has failed")
                return

    def _gone(self, wait: float) -> None:
        """There is no controller at the moment: whoever is called here may be known already."""
        if wait >= LAST_RETRY:  # for long, by now: there is nothing to wait for
            for router in list(self._routers.values()):
                if router.table is None:
                    router.update(None)
        self._news.wait(wait)
        self._news.clear()

    def _is_current(self) -> bool:
        return current.find_owner() is self.owner

    def _ask(self, controller: Any) -> dict[str, tuple[int, Any]]:
        self._news.clear()
        with self._lock:
            known = dict(self._versions)
        queued = {key: router.queued for key, router in list(self._routers.items()) if router.queued}
        ref = controller.watch.remote(self.watcher_id, known, queued)
        ref.add_done_callback(lambda _: self._news.set())
        self._news.wait()
        ready, _ = shoal.wait([ref], timeout=0)
        news: dict[str, tuple[int, Any]] = shoal.get(ready[0]) if ready else {}
        return news

    def _take(self, news: dict[str, tuple[int, Any]]) -> None:
        for key, (version, value) in news.items():
            self._versions[key] = version
            if key == ROUTES:
                self.on_routes(value)
            else:
                self._routers[key].update(value)
        with self._taken:
            self._taken.notify_all()

    def wait_for(self, key: str, version: int, timeout: float) -> bool:
        """Wait until the router of a deployment knows this version of its table; returns whether it does in time."""
        self.router(key)
        with self._taken:
            return self._taken.wait_for(lambda: self._versions[key] >= version, timeout)


def get_hub() -> Hub:
    """Return this process's hub; joins a cluster as ``shoal.init()`` would if there is none."""
    global _hub
    owner = current.find_owner()
    if owner is None:
        if not shoal.is_initialized():
            shoal.init()
        owner = current.find_owner()
    with _lock:
        if _hub is None or _hub.owner is not owner:
            _hub = Hub(owner)
        return _hub


def find_router(application: str, deployment: str) -> Any:
    """Return what sends requests to a deployment: in the cluster, or in this process."""
    local = _local.get(application)
    if local is not None:
        return local[deployment]
    return get_hub().router(key_of(application, deployment))


def set_local(application: str, routers: dict[str, Any] | None) -> None:
    """Have an application's requests answered in this process, or not any more."""
    if routers is None:
        _local.pop(application, None)
    else:
        _local[application] = routers


def local_applications() -> dict[str, dict[str, Any]]:
    """Return the applications that run in this process."""
    return _local


def arrived_response(ref: shoal.ObjectRef, request_id: str) -> Response:
    """Make a response of one that has travelled: it can be waited for, and is not sent again."""
    response = Response(Call(request_id, CallOptions(), (), {}), _never_again, functools.partial(_drop, ref))
    response._sent.set_result(ref)
    return response


def _never_again(response: Response, error: BaseException) -> bool:
    return False


def _drop(ref: shoal.ObjectRef, response: Response) -> None:
    shoal.cancel(ref)


__all__ = ["DeploymentTable", "Hub", "NotInitializedError", "Route", "find_router", "get_hub"]
