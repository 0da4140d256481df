"""``serve.run`` and its kin: what a driver says to the serve controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import shoal
from shoal.errors import OptionError
from shoal_ml.serve.deployments import Application
from shoal_ml.serve.errors import DeploymentFailedError, UnknownApplicationError
from shoal_ml.serve.handles import DeploymentHandle
from shoal_ml.serve.hub import get_hub, local_applications
from shoal_ml.serve.local import run_local, stop_local
from shoal_ml.serve.options import HTTPOptions, changed
from shoal_ml.serve.specs import ApplicationSpec, build, check_name
from shoal_ml.serve.status import ServeStatus
from shoal_ml.serve.tables import CONTROLLER, NAMESPACE, key_of

#: Seconds for news that are on their way already.
SEEN_TIMEOUT = 5.0


def run(
    application: Application,
    *,
    name: str = "default",
    route_prefix: str | None = "/",
    detached: bool = False,
    local: bool = False,
    wait: bool = True,
    timeout: float | None = 600.0,
    http_options: HTTPOptions | Mapping[str, Any] | None = None,
) -> DeploymentHandle:
    """Serve an application, and wait until it answers; run again, it is updated in place without losing a request.

    Deployments whose code, arguments and resources are the same keep their replicas; others are replaced one by one,
    each after its successor is ready. If the new ones do not start, the old ones stay and the error says why.

    Parameters
    ----------
    application
        What ``.bind(…)`` returns.
    name
        Applications of different names live side by side.
    route_prefix
        Path under which HTTP reaches it, such as ``"/model"``; None for one that only handles reach.
    detached
        It goes on when this driver ends, on a cluster that does. Large arguments of ``bind`` end with this driver in
        any case: have the deployment load what it needs.
    local
        Run the whole graph in this process, on a thread, without a cluster and without HTTP: for tests and debuggers.
    wait
        False returns at once; ``serve.status()`` says how it goes.
    timeout
        Seconds to wait for it; it goes on starting afterwards.
    http_options
        Where and how to listen, for the first application that HTTP reaches; see :class:`HTTPOptions`.

    Returns
    -------
    DeploymentHandle
        Calls the application's first deployment.

    Raises
    ------
    DeploymentFailedError
        It did not start; has the replica's traceback.
    OptionError, SerializationError, ValueError
        Something about it cannot be: a name, an argument that cannot travel, a route prefix that another has.
    GetTimeoutError
        It has not become ready in time.
    """
    if local:
        return run_local(application, check_name(name))
    spec = build(application, name, route_prefix)
    return deploy(spec, detached=detached, wait=wait, timeout=timeout, http_options=http_options)


def deploy(
    spec: ApplicationSpec,
    *,
    detached: bool = False,
    wait: bool = True,
    timeout: float | None = 600.0,
    http_options: HTTPOptions | Mapping[str, Any] | None = None,
) -> DeploymentHandle:
    """Serve what :func:`build` has made; as :func:`run`."""
    stop_local(spec.name)
    hub = get_hub()
    controller = find_controller(start=True)
    if spec.route_prefix:
        start(http_options)
    life = None if detached else hub.owner.life()
    hub.held[spec.name] = [life, *(ref for deployment in spec.deployments for ref in deployment.large)]
    number = shoal.get(controller.deploy.remote(spec, [life] if life is not None else []))
    if wait:
        _wait(controller, spec, number, timeout)
    return DeploymentHandle(spec.name, spec.ingress)


def _wait(controller: Any, spec: ApplicationSpec, number: int, timeout: float | None) -> None:
    ready = controller.wait_ready.options(max_task_retries=-1).remote(spec.name, number)
    state, deployment, traceback, rolled_back = shoal.get(ready, timeout)
    if state == "FAILED":
        what = "The version before goes on. " if rolled_back else ""
        raise DeploymentFailedError(
            f"Deployment `{deployment}` of application `{spec.name}` did not start. {what}Its replica said:\n"
            f"{traceback}",
            application=spec.name,
            deployment=deployment,
            traceback=traceback,
            rolled_back=rolled_back,
        )
    if state == "RUNNING":  # what is called from here on gets the new version
        get_hub().wait_for(key_of(spec.name, spec.ingress), int(deployment), SEEN_TIMEOUT)
    if state in ("DELETED", "REPLACED"):
        raise UnknownApplicationError(
            f"Application `{spec.name}` was {state.lower()} before it was ready.", application=spec.name
        )


def start(http_options: HTTPOptions | Mapping[str, Any] | None = None) -> str:
    """Have HTTP served, which the first ``serve.run`` with a route prefix does by itself; returns the URL.

    Raises
    ------
    OptionError
        It is served already, with other options.
    OSError
        The port belongs to another.
    """
    if http_options is not None and not isinstance(http_options, HTTPOptions):
        if not isinstance(http_options, Mapping):
            raise OptionError(f"`http_options` must be a mapping, not {http_options!r}.", option="http_options")
        http_options = changed(HTTPOptions(), http_options)
    url: str = shoal.get(find_controller(start=True).start_http.remote(http_options))
    return url


def status(timeout: float = 10.0) -> ServeStatus:
    """Return what is served: applications, deployments, replicas, and what was decided about them.

    Nothing is served in a cluster without a serve controller; this starts none.
    """
    controller = find_controller()
    if controller is None:
        return ServeStatus()
    found: ServeStatus = shoal.get(controller.status.options(max_task_retries=-1).remote(), timeout)
    return found


def get_app_handle(name: str = "default") -> DeploymentHandle:
    """Return a handle of an application's first deployment, from any process of the cluster.

    Raises
    ------
    UnknownApplicationError
        There is none of this name.
    """
    local = local_applications().get(name)
    if local is not None:
        return DeploymentHandle(name, next(iter(local)))
    controller = find_controller()
    spec = shoal.get(controller.spec.remote(name)) if controller is not None else None
    if spec is None:
        raise UnknownApplicationError(
            f"No application is called `{name}`: `serve.status()` lists those that are served.", application=name
        )
    return DeploymentHandle(name, spec.ingress)


def get_deployment_handle(deployment: str, application: str = "default") -> DeploymentHandle:
    """Return a handle of one deployment of an application; a wrong name shows in the first response."""
    return DeploymentHandle(application, deployment)


def delete(name: str = "default", timeout: float | None = None) -> bool:
    """End an application: requests that were accepted are answered first. Returns whether there was one."""
    if stop_local(name):
        return True
    controller = find_controller()
    found = controller is not None and bool(shoal.get(controller.delete.remote(name), timeout))
    if found:
        get_hub().held.pop(name, None)
    return found


def shutdown(timeout: float | None = None) -> None:
    """End all applications, HTTP, and the serve controller. Harmless if nothing is served."""
    for name in list(local_applications()):
        stop_local(name)
    if not shoal.is_initialized():
        return
    controller = find_controller()
    if controller is not None:
        shoal.get(controller.shutdown.remote(), timeout)
        shoal.kill(controller)
        get_hub().held.clear()


def find_controller(*, start: bool = False) -> Any:
    """Return the serve controller's handle; None if there is none and none is to be started."""
    get_hub()
    if not start:
        try:
            return shoal.get_actor(CONTROLLER, NAMESPACE)
        except ValueError:
            return None
    from shoal_ml.serve.controller import Controller

    return (
        shoal.remote(Controller)
        .options(
            name=CONTROLLER,
            namespace=NAMESPACE,
            lifetime="detached",
            max_restarts=-1,
            max_concurrency=10_000,
            get_if_exists=True,
        )
        .remote()
    )
