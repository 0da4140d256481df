"""Options of deployments, of autoscaling and of HTTP: frozen records, checked where they are written."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from shoal.errors import OptionError
from shoal.model.options import ActorOptions, is_number, option_names, with_changes
from shoal.model.suggest import did_you_mean

#: ``max_queued_requests`` without a limit.
UNLIMITED = -1
#: ``num_replicas="auto"``.
AUTO = {"min_replicas": 1, "max_replicas": 100, "target_ongoing_requests": 2.0}
#: Options that a replica's actor has and that are not the user's to choose.
_OURS = frozenset({"name", "namespace", "lifetime", "max_restarts", "max_concurrency", "get_if_exists", "on_redefine"})
#: What others call our options.
_ELSEWHERE = {"ray_actor_options": "actor_options", "max_concurrent_queries": "max_ongoing_requests"}


@dataclasses.dataclass(frozen=True, slots=True)
class AutoscalingOptions:
    """How many replicas there are to be, by what they have to do; see ``docs/serving.md``.

    Attributes
    ----------
    min_replicas, max_replicas
        Bounds, both included. With 0 a deployment without requests has no replica; the next request starts one.
    initial_replicas
        To begin with; *min_replicas* by default.
    target_ongoing_requests
        Requests under way or waiting that each replica should have, above 0.
    upscale_delay_s, downscale_delay_s
        Seconds for which more, or fewer, have to be wanted before it is done. A deployment without any replica does
        not wait.
    look_back_period_s
        Seconds whose mean is what counts as load.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    initial_replicas: int | None = None
    target_ongoing_requests: float = 2.0
    upscale_delay_s: float = 30.0
    downscale_delay_s: float = 600.0
    look_back_period_s: float = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class DeploymentOptions:
    """How a deployment is served.

    Attributes
    ----------
    num_replicas
        Actors that run it, 0 or more; ``"auto"`` for an autoscaling from 1 to 100.
    max_ongoing_requests
        Requests that one replica works on at once.
    max_queued_requests
        Requests that may wait for a replica at each caller (handle or HTTP process); one more is refused with
        ``BackPressureError``, over HTTP 503. -1 for no limit.
    retry_after_s
        What a refused caller is told.
    request_retries
        How often a call by handle is made again whose replica died under it. HTTP requests of idempotent methods
        (GET, HEAD, PUT, DELETE, OPTIONS) are retried once in any case where they are forwarded.
    request_timeout_s
        Seconds after which an HTTP request is cancelled and answered with 504; None for no limit.
    actor_options
        Options of each replica's actor: ``num_cpus``, ``num_gpus``, ``memory``, ``resources``, … A replica takes no CPU
        unless told otherwise, as all actors.
    user_config
        Passed to the instance's ``reconfigure(user_config)`` before its first request; a new value reaches running
        replicas without a restart. Anything that pickles.
    autoscaling_config
        :class:`AutoscalingOptions` or a mapping; then *num_replicas* is not used.
    health_check_period_s, health_check_timeout_s
        Between two calls of ``check_health``, and for one; a replica that fails three times in a row is replaced.
    graceful_shutdown_wait_loop_s, graceful_shutdown_timeout_s
        A replica that is to leave waits at least so long for callers to hear of it, and at most so long for its
        requests to end.
    version
        Names the code: replicas are replaced if it differs. By default a hash of the code, its arguments and
        *actor_options*.
    """

    num_replicas: int = 1
    max_ongoing_requests: int = 5
    max_queued_requests: int = UNLIMITED
    retry_after_s: float = 1.0
    request_retries: int = 0
    request_timeout_s: float | None = None
    actor_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    user_config: Any = None
    autoscaling_config: AutoscalingOptions | None = None
    health_check_period_s: float = 10.0
    health_check_timeout_s: float = 30.0
    graceful_shutdown_wait_loop_s: float = 2.0
    graceful_shutdown_timeout_s: float = 20.0
    version: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class HTTPOptions:
    """Where and how the ingress listens.

    Attributes
    ----------
    host, port
        Loopback by default: nobody else reaches it. Port 0 takes a free one.
    num_processes
        Processes that accept connections on the port.
    token
        What clients have to send as ``Authorization: Bearer …``; "" asks for none. ``/-/healthz`` is open.
    ssl_certfile, ssl_keyfile
        Files on the node that serves; both or none.
    max_body_bytes, max_header_bytes, max_headers
        Larger requests are refused: 413 and 431.
    header_timeout_s
        Seconds from a request's first byte to the end of its headers; 408 after that.
    body_timeout_s
        Seconds that a client may send nothing of a body it has begun.
    keep_alive_s
        Seconds that a connection may be idle.
    root_path
        Path under which a proxy in front publishes all this.
    access_log
        One line for each request into the log of the process that answered.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    num_processes: int = 1
    token: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    max_body_bytes: int = 100 << 20
    max_header_bytes: int = 64 << 10
    max_headers: int = 100
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    keep_alive_s: float = 75.0
    root_path: str = ""
    access_log: bool = False


Record = TypeVar("Record", AutoscalingOptions, DeploymentOptions, HTTPOptions)


def changed(record: Record, changes: Mapping[str, Any]) -> Record:
    """Return *record* with *changes*, each checked.

    Raises
    ------
    OptionError
        An option that there is not (with the closest that is), or a value of the wrong kind or range.
    """
    known = option_names(type(record))
    for name in changes:
        if name not in known:
            other = _ELSEWHERE.get(name)
            hint = f" Here it is called `{other}`." if other else did_you_mean(name, known)
            raise OptionError(f"Unknown option `{name}`.{hint} Options are: {', '.join(sorted(known))}.", option=name)
    checked = {name: _CHECKS[name](name, value) for name, value in changes.items()}
    result = dataclasses.replace(record, **checked)
    if isinstance(result, AutoscalingOptions):
        _check_bounds(result)
    if isinstance(result, HTTPOptions) and bool(result.ssl_certfile) != bool(result.ssl_keyfile):
        raise OptionError("`ssl_certfile` and `ssl_keyfile` go together.", option="ssl_keyfile")
    return result


def deployment_options(record: DeploymentOptions, changes: Mapping[str, Any]) -> DeploymentOptions:
    """Return *record* with *changes*; ``num_replicas="auto"`` is an autoscaling of its own."""
    changes = dict(changes)
    if changes.get("num_replicas") == "auto":
        del changes["num_replicas"]
        given = changes.get("autoscaling_config") or {}
        given = dataclasses.asdict(given) if isinstance(given, AutoscalingOptions) else dict(given)
        changes["autoscaling_config"] = AUTO | given
    elif "num_replicas" in changes and "autoscaling_config" not in changes:
        changes["autoscaling_config"] = None
    return changed(record, changes)


def _check_bounds(options: AutoscalingOptions) -> None:
    initial = options.initial_replicas
    if options.max_replicas < max(1, options.min_replicas):
        raise OptionError("`max_replicas` must be at least 1, and at least `min_replicas`.", option="max_replicas")
    if initial is not None and not options.min_replicas <= initial <= options.max_replicas:
        raise OptionError(
            "`initial_replicas` must be between `min_replicas` and `max_replicas`.", option="initial_replicas"
        )


_Check = Callable[[str, Any], Any]


def _whole(least: int, most: int = 2**40) -> _Check:
    def check(name: str, value: Any) -> int:
        if not (is_number(value, numbers.Integral) and least <= value <= most):
            raise OptionError(f"`{name}` must be a whole number from {least} to {most:,}, not {value!r}.", option=name)
        return int(value)

    return check


def _number(least: float, *, above: bool = False) -> _Check:
    def check(name: str, value: Any) -> float:
        if not is_number(value) or not (value > least if above else value >= least):
            raise OptionError(
                f"`{name}` must be a number {'above' if above else 'from'} {least:g}, not {value!r}.", option=name
            )
        return float(value)

    return check


def _optional(check: _Check) -> _Check:
    return lambda name, value: None if value is None else check(name, value)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise OptionError(f"`{name}` must be a string, not {value!r}.", option=name)
    return value


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise OptionError(f"`{name}` must be True or False, not {value!r}.", option=name)
    return value


def _actor_options(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise OptionError(f"`{name}` must be a mapping of an actor's options, not {value!r}.", option=name)
    for key in value:
        if key in _OURS:
            raise OptionError(f"`{name}` cannot have `{key}`: a replica's actor has its own.", option=name)
    with_changes(ActorOptions(), value)
    return dict(value)


def _autoscaling(name: str, value: Any) -> AutoscalingOptions | None:
    if value is None or isinstance(value, AutoscalingOptions):
        return value
    if not isinstance(value, Mapping):
        raise OptionError(f"`{name}` must be a mapping of options of autoscaling, not {value!r}.", option=name)
    return changed(AutoscalingOptions(), value)


_seconds = _number(0.0)
_CHECKS: dict[str, _Check] = {
    "num_replicas": _whole(0, 10_000),
    "max_ongoing_requests": _whole(1),
    "max_queued_requests": _whole(UNLIMITED),
    "retry_after_s": _seconds,
    "request_retries": _whole(0, 100),
    "request_timeout_s": _optional(_number(0.0, above=True)),
    "actor_options": _actor_options,
    "user_config": lambda name, value: value,
    "autoscaling_config": _autoscaling,
    "health_check_period_s": _number(0.0, above=True),
    "health_check_timeout_s": _number(0.0, above=True),
    "graceful_shutdown_wait_loop_s": _seconds,
    "graceful_shutdown_timeout_s": _seconds,
    "version": _text,
    "min_replicas": _whole(0, 10_000),
    "max_replicas": _whole(1, 10_000),
    "initial_replicas": _optional(_whole(0, 10_000)),
    "target_ongoing_requests": _number(0.0, above=True),
    "upscale_delay_s": _seconds,
    "downscale_delay_s": _seconds,
    "look_back_period_s": _number(0.0, above=True),
    "host": _text,
    "port": _whole(0, 65535),
    "num_processes": _whole(1, 64),
    "token": _text,
    "ssl_certfile": _text,
    "ssl_keyfile": _text,
    "max_body_bytes": _whole(0),
    "max_header_bytes": _whole(1024),
    "max_headers": _whole(1),
    "header_timeout_s": _number(0.0, above=True),
    "body_timeout_s": _number(0.0, above=True),
    "keep_alive_s": _number(0.0, above=True),
    "root_path": _text,
    "access_log": _flag,
}
