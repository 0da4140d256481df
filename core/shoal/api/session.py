"""Sessions: joining a cluster with ``init`` and leaving it with ``shutdown``."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import numbers
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from shoal.api import output
from shoal.api.card import render_html, render_text
from shoal.api.ipython import live_view
from shoal.api.looking import MOMENT, look
from shoal.model.errors import ClusterLostError, ConnectError, NotInitializedError, OptionError, ShoalError
from shoal.model.ids import random_id
from shoal.model.options import TaskOptions, check_labels, is_number, with_changes
from shoal.runtime import session as current
from shoal.runtime.environment import event_log_root, node_settings

# What joining a cluster takes is imported by the functions that do it, so that `import shoal` stays quick.
if TYPE_CHECKING:
    from shoal.api.inline_session import InlineSession
    from shoal.api.portal import Portal
    from shoal.launch import registry
    from shoal.launch.embedded import Head
    from shoal.launch.scaling import Scaled, Scaler
    from shoal.runtime.base_owner import BaseOwner
    from shoal.runtime.owner import Owner
    from shoal.transport.comms import Security

#: Seconds for an answer to get through a cluster before it ends.
STOP_DELAY = 0.2
_lock = threading.RLock()
_session: Session | InlineSession | None = None


class Cluster:
    """The cluster this process uses: the card that ``shoal.init()`` shows.

    Attributes
    ----------
    id, name
        What connection files and the panel call it.
    address
        Address of its Dask scheduler, for ``dask.distributed.Client`` or for ``shoal.init`` elsewhere.
    kind
        ``embedded``, ``attached`` for a Dask cluster that runs by itself, ``detached`` for one that was started without
        a driver, or ``inline`` for none at all.
    """

    def __init__(self, session: Session | InlineSession) -> None:
        self._session = session
        self.id = session.cluster_id
        self.name = session.name
        self.address = session.address
        self.kind = session.kind

    @property
    def is_current(self) -> bool:
        """Whether this process still uses this cluster."""
        return _session is self._session

    def snapshot(self, timeout: float = 5.0) -> dict[str, Any]:
        """Return the cluster's state as plain data; see :mod:`shoal.observe.cluster_view`.

        Raises
        ------
        TimeoutError
            It did not answer within *timeout* seconds.
        ClusterLostError, NotInitializedError
            It has ended, or this process does not use it any more.
        """
        return self._session.snapshot(timeout)

    def scale(self, num_nodes: int, *, timeout: float = 60.0, force: bool = False) -> int:
        """Have this many nodes, and wait until they are there or gone.

        A further node of an embedded cluster has as many CPUs as the first, whatever the machine has: that is for
        trying out what several nodes do, and for work that mostly waits. Accelerators and further resources stay with
        the first node, which cannot leave. A Dask cluster is scaled by the object that ``shoal.init`` was given.

        Nodes that leave, those with least to lose, get no new work and finish their tasks. One with actors, bundles of
        placement groups or values that are nowhere else is kept, as is one whose tasks take longer than *timeout*, and
        a warning names them. Workers of a Dask cluster are then retired by Dask, which hands on its own data; those of
        one job of a batch system leave together.

        Parameters
        ----------
        num_nodes
            Nodes in all, 1 or more.
        timeout
            Seconds, more than 0.
        force
            Let nodes go with all that is on them: actors die or are restarted elsewhere, tasks run again, values are
            made again or lost.

        Returns
        -------
        int
            How many nodes there are now.

        Raises
        ------
        OptionError
            A value is out of range, or nothing here can scale this cluster.
        ConnectError
            Nodes did not start in time, or could not be ended: the error says why. What could be done was done.
        """
        scaled = self.try_scale(num_nodes, timeout=timeout, force=force)
        if scaled.num_nodes != num_nodes:
            warnings.warn(scaled.note(num_nodes), UserWarning, stacklevel=2)
        return scaled.num_nodes

    def try_scale(self, num_nodes: int, *, timeout: float = 60.0, force: bool = False) -> Scaled:
        """As :meth:`scale`; what was kept, and why, is in what it returns instead of a warning."""
        if not (is_number(num_nodes, numbers.Integral) and num_nodes >= 1):
            raise OptionError(f"`num_nodes` must be a whole number from 1 up, not {num_nodes!r}.", option="num_nodes")
        if not (is_number(timeout) and timeout > 0):
            raise OptionError(f"`timeout` must be a number of seconds above 0, not {timeout!r}.", option="timeout")
        if not isinstance(force, bool):
            raise OptionError(f"`force` must be True or False, not {force!r}.", option="force")
        session = self._session
        if not self.is_current:
            raise NotInitializedError("This process does not use that cluster any more.")
        if session.scaler is None or not isinstance(session, Session):
            raise OptionError(
                f"Nothing here can scale `{self.name}`: pass the Dask cluster object to `shoal.init` instead of an "
                "address, or scale it where it was started; its new workers become nodes by themselves.",
                option="num_nodes",
            )
        return session.scaler.scale(int(num_nodes), float(timeout), force, session)

    def shutdown(self) -> None:
        """Leave the cluster; an embedded one ends."""
        if _session is self._session:
            shutdown()

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return render_text(self._state(), self.kind)

    def _repr_html_(self) -> str:
        return render_html(self._state(), self.kind)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        state = self._state()
        bundle = {"text/plain": render_text(state, self.kind), "text/html": render_html(state, self.kind)}
        return {**bundle, **live_view(self)}

    def _state(self) -> dict[str, Any]:
        try:
            return self._session.snapshot(MOMENT)
        except TimeoutError:
            last = getattr(self._session, "last_snapshot", None)
            if last is not None:
                return {**last, "age": time.time() - last["time"]}
        except (ConnectError, ClusterLostError, NotInitializedError):
            pass
        return {"cluster": {"name": self.name, "id": self.id, "address": self.address}, "nodes": None}


@dataclasses.dataclass
class Session:
    """All that ``init`` made and ``shutdown`` ends."""

    cluster_id: str
    name: str
    address: str
    kind: str
    security: Security
    portal: Portal
    owner: Owner
    head: Head | None
    registration: registry.Registration | None
    #: What its own cluster was asked to have; for one that was joined, the defaults.
    asked: dict[str, Any] = dataclasses.field(default_factory=dict)
    #: None if nothing here can scale the cluster.
    scaler: Scaler | None = None
    #: What the card shows while the cluster is too busy to answer.
    last_snapshot: dict[str, Any] | None = None
    #: Called first when it ends.
    at_end: list[Callable[[], None]] = dataclasses.field(default_factory=list)

    def snapshot(self, timeout: float = 5.0) -> dict[str, Any]:
        if _session is not self:
            raise NotInitializedError("This session has ended.")
        from shoal.launch.probe import as_json

        self.last_snapshot = as_json(look(self.owner, "snapshot", timeout=timeout))
        return self.last_snapshot

    def end(self) -> None:
        try:
            for function in self.at_end:
                function()
            self.portal.call(self.owner.close(), 5.0)
        except TimeoutError:
            pass  # the sockets close with the loop
        finally:
            self.portal.stop()
            if self.registration is not None:
                self.registration.remove()
            if self.head is not None:
                self.head.end()


def init(
    address: Any = None,
    *,
    name: str | None = None,
    num_cpus: int | None = None,
    num_gpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    object_store_memory: float | None = None,
    namespace: str = "",
    inline: bool = False,
    security: Security | None = None,
    timeout: float = 10.0,
) -> Cluster:
    """Join a cluster, or start one, and return its card.

    A second call returns the same card; one that asks for another cluster, or for other options of an embedded one,
    is refused: call :func:`shutdown` first.

    Parameters
    ----------
    address
        The address of a Dask scheduler (``tls://…``, ``tcp://…``), a ``dask.distributed.Client``, a Dask cluster
        object, or the name, id or address of one of your running shoal clusters. By default the environment
        variable ``SHOAL_ADDRESS``; without it an *embedded* cluster starts on this machine and ends with this
        process.
    name
        What to call a cluster that is started or joined here.
    num_cpus
        CPUs of an embedded cluster, 1 or more; all that this process may use by default.
    num_gpus
        Accelerators of an embedded cluster; those of the machine by default.
    resources, labels
        Further amounts that tasks can ask for in an embedded cluster, and what their ``label_selector`` finds there.
    object_store_memory
        Bytes of memory for the values in an embedded cluster's object store, 1 MiB or more; 30 % of the machine's by
        default. What does not fit is kept on disk.
    namespace
        Where this driver's named actors are, and where it looks for them. Drivers of a cluster share one by default.
    inline
        Start no processes: every task and call runs here, in the thread that submits it, and has ended when
        ``.remote()`` returns. For breakpoints, profilers and post-mortem debugging. Options that say where, how much
        and how long have no effect then, and calls that wait for each other never meet.
    security
        ``distributed.Security`` for an address with TLS. Your own clusters' certificates are found by themselves.
    timeout
        Seconds to wait for a running cluster to answer.

    Returns
    -------
    Cluster
        Shows itself as a card in a notebook.

    Raises
    ------
    ConnectError
        Nobody usable answered at the address within *timeout* seconds.
    VersionMismatchError
        The cluster's nodes run another Python version, or have no shoal.
    OptionError
        A value is out of range, or does not go with the others.

    Examples
    --------
    >>> import shoal
    >>> with shoal.init(num_cpus=1):
    ...     shoal.get(shoal.put("hello"))
    'hello'
    """
    global _session
    with _lock:
        _check_options(num_cpus, timeout, namespace, name)
        asked = _embedded_options(name, num_cpus, num_gpus, resources, labels, object_store_memory)
        if address is not None and asked != _embedded_options(name, None, None, None, None, None):
            raise OptionError(
                "`num_cpus`, `num_gpus`, `resources`, `labels` and `object_store_memory` are for an embedded cluster; "
                "leave them out to join one.",
                option="num_cpus",
            )
        _check_inline(inline, address)
        if _session is not None:
            _check_is_same(_session, address, asked)
            return Cluster(_session)
        if current.find_owner() is not None:
            raise NotInitializedError("This is an executor: it belongs to its cluster already.")
        address = address if address is not None else os.environ.get("SHOAL_ADDRESS") or None
        if inline:
            from shoal.api.inline_session import InlineSession

            _session = InlineSession(asked["name"], namespace, _amounts(asked), asked["labels"])
        elif address is None:
            # A variable that says what cannot be is better refused here than where the node starts.
            node_settings()
            event_log_root()
            if security is not None:
                raise OptionError(
                    "`security` goes with an address: an embedded cluster makes its own.", option="security"
                )
            _session = _start_embedded(asked, namespace)
        else:
            _session = _join(address, name, security, timeout, namespace)
        _session.asked = asked
        current.set_owner(_session.owner)
        with contextlib.suppress(ShoalError, TimeoutError):
            _session.snapshot()  # the card has something to show even if the cluster is busy by then
        return Cluster(_session)


def shutdown() -> None:
    """Leave the cluster: what this process started there is stopped, its objects are freed, an embedded cluster ends.

    Returns when nothing of it is left; harmless when there is no cluster.
    """
    global _session
    with _lock:
        session, _session = _session, None
        if session is not None:
            current.set_owner(None)
            session.end()


def is_initialized() -> bool:
    """Return whether this process has a cluster."""
    return current.find_owner() is not None


def snapshot() -> dict[str, Any]:
    """Return the cluster's state as plain data (see :mod:`shoal.observe.cluster_view`).

    Raises
    ------
    NotInitializedError
        There is no cluster; call :func:`init`.
    """
    return current_session().snapshot()


_this_thread = threading.local()


def owner_or_init() -> BaseOwner:
    """Return this process's owner runtime; a driver that has none joins or starts a cluster now."""
    owner = current.find_owner()
    if owner is None:
        if getattr(_this_thread, "is_background", False) or current.is_barred():
            return current.get_owner()  # which raises
        init()
        owner = current.get_owner()
    return owner


def stay_in_background() -> None:
    """Have the calling thread never start a cluster: what it asks for after a shutdown raises NotInitializedError."""
    _this_thread.is_background = True


def call_at_end(function: Callable[[], None]) -> None:
    """Have *function* called when this driver's session ends, before anything else of it does."""
    if _session is not None:
        _session.at_end.append(function)


def current_session() -> Session | InlineSession:
    """Return this driver's session.

    Raises
    ------
    NotInitializedError
        There is none.
    """
    if _session is None:
        raise NotInitializedError("shoal has no cluster in this process. Call `shoal.init()` first.")
    return _session


def _check_options(num_cpus: int | None, timeout: float, namespace: str, name: str | None) -> None:
    if name is not None and not (isinstance(name, str) and name and name.isprintable()):
        raise OptionError(f"`name` must be a name, or None, not {name!r}.", option="name")
    if num_cpus is not None and not (is_number(num_cpus, numbers.Integral) and num_cpus >= 1):
        raise OptionError(f"`num_cpus` must be a whole number from 1 up, not {num_cpus!r}.", option="num_cpus")
    if not isinstance(namespace, str):
        raise OptionError(f"`namespace` must be a string, not {namespace!r}.", option="namespace")
    if not (is_number(timeout) and timeout > 0):
        raise OptionError(f"`timeout` must be a number of seconds above 0, not {timeout!r}.", option="timeout")


def _check_inline(inline: bool, address: Any) -> None:
    if not isinstance(inline, bool):
        raise OptionError(f"`inline` must be True or False, not {inline!r}.", option="inline")
    if inline and address is not None:
        raise OptionError("`inline` work runs here: leave out the address.", option="inline")
    if inline and _session is not None and _session.kind != "inline":
        raise OptionError(
            f"This process uses the cluster `{_session.name}`. Call `shoal.shutdown()` before `inline=True`.",
            option="inline",
        )


def _check_is_same(session: Session | InlineSession, address: Any, asked: dict[str, Any]) -> None:
    """Refuse to return a session to somebody who asks for another."""
    here = f"This process uses the cluster `{session.name}`" + (f" ({session.address})" if session.address else "")
    if isinstance(address, str):
        other = address not in (session.cluster_id, session.name, session.address)
    elif address is not None:
        from shoal.launch.dask_cluster import endpoint_of

        address, _ = endpoint_of(address)
        other = address != session.address
    else:
        other = False
    if other:
        raise OptionError(f"{here}. Call `shoal.shutdown()` before joining `{address}`.", option="address")
    unasked = _embedded_options(None, None, None, None, None, None)
    for option in ("num_cpus", "num_gpus", "resources", "labels", "object_store_memory"):
        if asked[option] not in (unasked[option], session.asked[option]):
            raise OptionError(
                f"{here}, which was not started with `{option}={asked[option]!r}`. Call `shoal.shutdown()` first.",
                option=option,
            )


def _amounts(options: Mapping[str, Any]) -> dict[str, float]:
    """Return what an embedded cluster with these options would have, by resource."""
    return {"num_cpus": float(options["num_cpus"]), "num_gpus": options["num_gpus"] or 0.0, **options["resources"]}


def _embedded_options(
    name: str | None,
    num_cpus: int | None,
    num_gpus: float | None,
    resources: Mapping[str, float] | None,
    labels: Mapping[str, str] | None,
    object_store_memory: float | None,
) -> dict[str, Any]:
    """Return what an embedded cluster is to have, checked as the options of tasks are that ask for it."""
    checked = with_changes(TaskOptions(), {"num_gpus": num_gpus or 0, "resources": resources or {}})
    if object_store_memory is not None and not (is_number(object_store_memory) and object_store_memory >= 1 << 20):
        raise OptionError(
            f"`object_store_memory` must be a number of bytes from 1 MiB (1048576) up, not {object_store_memory!r}.",
            option="object_store_memory",
        )
    carried = check_labels("labels", labels or {})
    for key, value in carried:
        if value.startswith("!"):
            raise OptionError(
                f"`labels[{key!r}]` begins with `!`, which means *not* in a `label_selector`: {value!r}.",
                option="labels",
            )
    return {
        "name": name or _default_name(),
        "num_cpus": int(num_cpus or _available_cpus()),
        "num_gpus": None if num_gpus is None else checked.num_gpus,
        "resources": dict(checked.resources),
        "labels": dict(carried),
        "object_store_memory": None if object_store_memory is None else int(object_store_memory),
        "notebook": _notebook(),
    }


def _start_embedded(options: dict[str, Any], namespace: str) -> Session:
    from shoal.launch.embedded import EmbeddedOptions, start_head

    # The head takes longest to come up: what we need ourselves is imported meanwhile.
    warm = threading.Thread(target=_import_runtime, daemon=True)
    warm.start()
    head = start_head(EmbeddedOptions(**options))
    warm.join()
    try:
        from shoal.launch.dask_cluster import security_from
        from shoal.launch.scaling import HeadScaler

        connection = head.connection
        security = security_from(connection.tls_files())
        portal, owner = _start_owner(connection.address, security, 10.0, namespace)
    except BaseException:
        head.end()
        raise
    scaler = HeadScaler(connection.address, security)
    return Session(
        connection.id,
        connection.name,
        connection.address,
        "embedded",
        security,
        portal,
        owner,
        head,
        None,
        scaler=scaler,
    )


def _join(address: Any, name: str | None, security: Security | None, timeout: float, namespace: str) -> Session:
    from shoal.api.portal import Portal
    from shoal.launch import registry
    from shoal.launch.dask_cluster import endpoint_of, install, pem_texts, security_from
    from shoal.launch.dask_scaling import find_scaler
    from shoal.launch.scaling import HeadScaler

    known = registry.find_by_name(address) if isinstance(address, str) else None
    if known is not None:
        where, secured = known.address, security or security_from(known.tls_files())
    elif isinstance(address, str):
        if "://" not in address:
            running = ", ".join(f"`{connection.name}`" for connection in registry.list_clusters()) or "none"
            raise ConnectError(
                f"No running cluster of yours is called `{address}` (running: {running}), and it is not an address "
                "such as `tls://10.0.0.4:8786`.",
                address=address,
            )
        where, secured = address, security or security_from({})
    else:
        where, secured = endpoint_of(address)
    if not where.startswith(("tls://", "inproc://")):
        warnings.warn(
            f"The cluster at {where} uses no TLS: anyone who can reach its port can run code on it, and read what you "
            "send.",
            UserWarning,
            stacklevel=3,
        )
    label = name or (known.name if known else _default_name())
    deadline = time.monotonic() + timeout
    portal = Portal()
    portal.start()
    try:
        if known is None or known.kind == "attached":
            portal.call(install(where, secured, label, timeout), timeout + 1.0)
    except TimeoutError:
        portal.stop()
        raise ConnectError(f"No answer from `{where}` within {timeout:g} s.", address=where) from None
    except BaseException:
        portal.stop()
        raise
    portal.stop()
    portal, owner = _start_owner(where, secured, max(1.0, deadline - time.monotonic()), namespace)
    registration = None
    if known is None:
        connection = registry.Connection(
            id=f"{owner.cluster_id}-{os.getpid()}",
            name=label,
            address=where,
            kind="attached",
            pid=os.getpid(),
            host=socket.gethostname(),
            created=time.time(),
            notebook=_notebook(),
            python=sys.executable,
            owner=owner.owner_id,
        )
        registration = registry.register(connection, pem_texts(secured))
    if known is not None and known.kind != "attached":
        scaler: Scaler | None = HeadScaler(known.control or where, secured)
    else:
        scaler = None if isinstance(address, str) else find_scaler(address)
    kind = "detached" if known is not None and known.kind == "detached" else "attached"
    session = Session(owner.cluster_id, label, where, kind, secured, portal, owner, None, registration, scaler=scaler)
    if registration is not None:
        _answer_for(session, address)
    return session


def _answer_for(session: Session, dask_object: Any) -> None:
    """Have others scale and stop the cluster through this driver, which alone has the object that can."""

    def scale(num_nodes: int, timeout: float, force: bool) -> tuple[int, tuple[tuple[str, str], ...]]:
        if session.scaler is None:
            raise OptionError(
                f"`{session.name}` was joined by its address: scale it where it was started.", option="num_nodes"
            )
        scaled = session.scaler.scale(num_nodes, timeout, force, session)
        return scaled.num_nodes, scaled.kept

    def stop() -> None:
        cluster = getattr(dask_object, "cluster", None) or dask_object
        if not callable(getattr(cluster, "scale", None)) or not callable(getattr(cluster, "close", None)):
            raise OptionError(f"`{session.name}` was joined by its address: stop it where it was started.")

        def close() -> None:
            cluster.close()
            if session.registration is not None:
                session.registration.remove()

        # The answer first: it goes through the cluster that ends.
        closing = threading.Timer(STOP_DELAY, close)
        closing.daemon = True
        closing.start()

    session.owner.answers.add("scale", scale)
    session.owner.answers.add("stop", stop)


def _start_owner(address: str, security: Security, timeout: float, namespace: str) -> tuple[Portal, Owner]:
    from shoal.api.portal import Portal
    from shoal.launch.compare import check_versions
    from shoal.runtime.owner import Owner, OwnerConfig
    from shoal.runtime.versions import versions_here
    from shoal.transport.comms import address_host, host_towards

    portal = Portal()
    portal.start()
    owners: list[Owner] = []

    async def start() -> Owner:
        config = OwnerConfig(
            owner_id=random_id("driver"),
            job_id=random_id("job"),
            controller=address,
            security=security,
            host=host_towards(address_host(address)),
            is_driver=True,
            namespace=namespace,
        )
        owner = Owner(config, on_output=output.deliver)
        owners.append(owner)
        await owner.start()
        return owner

    try:
        owner = portal.call(start(), timeout)
        check_versions(versions_here(), owner.versions)
    except BaseException as error:
        if owners:
            portal.call(owners[0].close(), 5.0)
        portal.stop()
        if isinstance(error, TimeoutError) and not isinstance(error, ConnectError):
            raise ConnectError(f"No answer from `{address}` within {timeout:g} s.", address=address) from None
        raise
    return portal, owner


def _import_runtime() -> None:
    import shoal.launch.dask_cluster
    import shoal.runtime.owner  # noqa: F401


def _available_cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _default_name() -> str:
    notebook = _notebook()
    stem = os.path.splitext(os.path.basename(notebook))[0]
    return stem or f"shoal-{os.getpid()}"


def _notebook() -> str:
    """Return the path of the notebook (told by the Jupyter server) or script that this process runs; "" if unknown."""
    notebook = os.environ.get("JPY_SESSION_NAME", "")
    if notebook:
        return notebook
    main = sys.modules.get("__main__")
    script = getattr(main, "__file__", None)
    package = getattr(main, "__package__", None)
    return os.path.abspath(script) if script and not package else ""


def _at_fork() -> None:
    """A forked child has no event loop and is no driver: it must neither use nor end its parent's session."""
    global _session
    _session = None
    current.set_owner(None)


atexit.register(shutdown)
os.register_at_fork(after_in_child=_at_fork)
