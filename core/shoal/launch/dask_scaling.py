"""More nodes and fewer, of a Dask cluster: its cluster object starts and ends workers.

Which nodes leave is chosen here: those with least to lose, and they leave as those of an embedded cluster do. They get
no new work, finish their tasks, and stay if anything would be lost. Then Dask retires their workers, which hands on
what it has there itself, and the cluster object is told not to replace them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

from shoal.launch.scaling import (
    GRACE,
    HANDING_ON,
    POLL,
    ScalableSession,
    Scaled,
    Scaler,
    say_causes,
    say_tasks,
    say_values,
)
from shoal.model.errors import ConnectError, OptionError
from shoal.model.messages import Ask
from shoal.runtime.store import COPY_SUFFIX
from shoal.transport.comms import connect

logger = logging.getLogger("shoal")

#: Seconds in which the nodes' stores answer.
_ANSWER = 5.0


class DaskScaler:
    """See the module's description."""

    def __init__(self, dask_cluster: Any) -> None:
        self._dask_cluster = dask_cluster

    def scale(self, num_nodes: int, timeout: float, force: bool, session: ScalableSession) -> Scaled:
        deadline = time.monotonic() + timeout
        nodes = _Nodes(session)
        too_many = len(nodes.addresses()) - num_nodes
        kept: dict[str, str] = {}
        together: list[str] = []
        if too_many > 0:
            kept, together = self._remove(too_many, nodes, deadline, force)
        else:
            self._tell(num_nodes)
            nodes.wait_for(num_nodes, deadline)
        return Scaled(len(nodes.addresses()), tuple(kept.items()), tuple(together))

    def _remove(self, count: int, nodes: _Nodes, deadline: float, force: bool) -> tuple[dict[str, str], list[str]]:
        """Let *count* nodes go at most.

        Returns why others were kept instead, by node, and nodes that end only together and were too many.
        """
        if getattr(self._dask_cluster, "asynchronous", False):
            raise OptionError(_ASYNCHRONOUS, option="num_nodes")
        units, together = self._choose(count, nodes)
        node_ids = [node_id for unit in units for node_id in unit]
        going: list[str] = []
        kept: dict[str, str] = {}
        nodes.drain(node_ids, True)
        try:
            while any(tasks for tasks, _ in nodes.work(node_ids)) and time.monotonic() < deadline:
                time.sleep(POLL)
            stays = {} if force else nodes.stays(node_ids, with_tasks=True)
            kept = {node_id: ", ".join(what) for node_id, what in stays.items() if what}
            going = [node_id for unit in units if not any(map(kept.get, unit)) for node_id in unit]
            for unit in units:
                needed = [node_id for node_id in unit if node_id in kept]
                if needed:
                    why = f"to stay with {', '.join(needed)}, as they end only together"
                    kept |= {node_id: why for node_id in unit if node_id not in kept}
            if going:
                self._end(going, nodes, deadline)
        except BaseException:
            going = []
            raise
        finally:
            nodes.drain([node_id for node_id in node_ids if node_id not in going], False)
        return kept, together

    def _choose(self, count: int, nodes: _Nodes) -> tuple[list[list[str]], list[str]]:
        """Return *count* nodes, those with least to lose; together those that can only end together.

        If that gives fewer, the second is the next of those that were too many to go.
        """
        addresses = nodes.addresses()
        names = self._names(nodes)
        units: dict[object, list[str]] = {}
        for node_id, address in addresses.items():
            units.setdefault(names.get(address, address), []).append(node_id)
        stays = nodes.stays(list(addresses), with_tasks=False)
        chosen: list[list[str]] = []
        too_big: list[str] = []
        # The newest first, among equals.
        for unit in sorted(reversed(units.values()), key=lambda unit: sum(len(stays[node_id]) for node_id in unit)):
            if len(unit) <= count:
                chosen.append(unit)
                count -= len(unit)
            elif not too_big:
                too_big = unit
        return chosen, too_big if count else []

    def _names(self, nodes: _Nodes) -> dict[str, object]:
        """Return what the cluster object calls that which it ends as one, by the address of each worker in it.

        Empty for objects that choose for themselves which workers end.
        """
        specs = getattr(self._dask_cluster, "worker_spec", None)
        if not isinstance(specs, dict) or not hasattr(self._dask_cluster, "scale_down"):
            return {}
        keys: dict[str, object] = {}
        for key, spec in specs.items():
            # A job of a batch system may have several workers.
            own = [f"{key}{suffix}" for suffix in spec["group"]] if "group" in spec else [str(key)]
            keys |= dict.fromkeys(own, key)
        workers = nodes.session.portal.call(_ask_dask(nodes.session, "identity"), GRACE)["workers"]
        names = {address: str(worker["name"]) for address, worker in workers.items()}
        return {address: keys[name] for address, name in names.items() if name in keys}

    def _end(self, node_ids: Sequence[str], nodes: _Nodes, deadline: float) -> None:
        """Have Dask retire the workers of nodes that have nothing to lose, and the cluster object do without them."""
        addresses, names = nodes.addresses(), self._names(nodes)
        leaving = [addresses[node_id] for node_id in node_ids if node_id in addresses]
        num_left = len(addresses) - len(leaving)
        seconds = max(HANDING_ON, deadline - time.monotonic())
        try:
            retire = _ask_dask(nodes.session, "retire_workers", workers=leaving, close_workers=True, remove=True)
            nodes.session.portal.call(asyncio.wait_for(retire, seconds), seconds + GRACE)
        except (OSError, TimeoutError) as error:  # workers that have to go go
            logger.warning("workers end without handing on what Dask has there: %s", say_causes([error]))
        ended = list(dict.fromkeys(names[address] for address in leaving if address in names))
        if ended:
            self._dask_cluster.sync(self._dask_cluster.scale_down, ended, callback_timeout=GRACE)
        nodes.wait_for(num_left, time.monotonic() + GRACE)
        if not names:
            self._tell(num_left)

    def _tell(self, num_nodes: int) -> None:
        """Have the cluster object have so many workers."""
        result = self._dask_cluster.scale(num_nodes)
        if inspect.iscoroutine(result):
            result.close()
            raise OptionError(_ASYNCHRONOUS, option="num_nodes")


async def _ask_dask(session: ScalableSession, operation: str, **arguments: Any) -> Any:
    """Have Dask's scheduler do something; returns its answer."""
    comm = await connect(session.address, session.security, GRACE)
    try:
        await comm.write({"op": operation, **arguments, "reply": True, "close": True})
        answer: Any = await comm.read()
    finally:
        comm.abort()
    if isinstance(answer, dict) and answer.get("status") == "error":
        raise ConnectError(f"Dask's `{operation}` failed: {answer.get('text')}", address=session.address)
    return answer


_ASYNCHRONOUS = "This Dask cluster object is asynchronous: `await` its own `scale`; shoal's nodes follow."


class _Nodes:
    """The nodes as the controller knows them."""

    def __init__(self, session: ScalableSession) -> None:
        self.session = session

    def addresses(self) -> dict[str, str]:
        """Return the addresses of the nodes' Dask workers, by node, the oldest first."""
        return {str(row[0]): str(row[1]) for row in self._ask("nodes")}

    def wait_for(self, count: int, deadline: float) -> None:
        """Return when there are *count* nodes, or at *deadline* (monotonic)."""
        while len(self.addresses()) != count and time.monotonic() < deadline:
            time.sleep(POLL)

    def drain(self, node_ids: Iterable[str], draining: bool) -> None:
        """Have nodes get no new work, or again; the former holds as long as this driver lives."""
        self._ask("drain", tuple(node_ids), draining)

    def work(self, node_ids: Sequence[str]) -> list[tuple[int, Sequence[str]]]:
        """Return for each node how many executors run tasks there, and its actors and bundles in words."""
        return [(int(count), stays) for count, stays in self._ask("work", *node_ids)]

    def stays(self, node_ids: Sequence[str], *, with_tasks: bool) -> dict[str, list[str]]:
        """Say what would be lost with each node: actors, bundles, values that are nowhere else, and tasks if asked."""
        stores = self.session.owner.ask_stores(_ANSWER)[0]
        found = {}
        for node_id, (count, stays) in zip(node_ids, self.work(node_ids), strict=True):
            store = stores.get(node_id)
            values = [
                nbytes
                for name, nbytes, where, _ in (store.segments if store is not None else ())
                if where != "leaving" and not name.endswith(COPY_SUFFIX)
            ]
            found[node_id] = [*say_tasks(count if with_tasks else 0), *stays, *([say_values(values)] if values else [])]
        return found

    def _ask(self, topic: str, *details: Any) -> Any:
        return self.session.owner.ask(lambda request: Ask(request, topic, details))


def find_scaler(dask_object: Any) -> Scaler | None:
    """Return what can scale the cluster of a Dask cluster object or client; None if it has nothing that can."""
    candidate = getattr(dask_object, "cluster", None) or dask_object
    return DaskScaler(candidate) if callable(getattr(candidate, "scale", None)) else None
