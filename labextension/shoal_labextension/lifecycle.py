"""Starting, scaling and stopping clusters."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import psutil
from jupyter_server.auth.decorator import authorized
from tornado import web

from shoal.errors import ConnectError, OptionError, ShoalError
from shoal.launch import registry
from shoal.launch.specs import check_spec, find_spec, list_specs, specs_directory
from shoal_labextension.access import ClusterHandler, Problem, flag_of, may, number_of

if TYPE_CHECKING:
    from shoal.launch.registry import Connection
    from shoal.launch.specs import Spec

#: Seconds that a cluster has to come to its end or to a number of nodes, and nodes at most.
STOP_TIMEOUT, SCALE_TIMEOUT, MAX_NODES = 15.0, 30.0, 10_000
#: Seconds between two looks at whether a cluster is gone.
POLL = 0.1
#: The cluster that can always be started.
LOCAL = {"name": "local", "description": "on this machine", "spec": {"kind": "local"}, "problem": ""}


class ClustersHandler(ClusterHandler):
    """``clusters``: which there are, and one more."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with ``{"clusters": [...]}``; those that do not answer are listed with a message."""
        await self.reply({"clusters": await self.services.clusters.read()})

    @web.authenticated
    @may("execute")
    async def post(self) -> None:
        """Start a cluster by a named spec, or one in the body; the answer comes before it is there."""
        fields = self.body("spec", "name")
        spec, is_named = await asyncio.to_thread(_spec_of, fields)
        taken = {connection.name for connection in await asyncio.to_thread(registry.list_clusters)}
        taken |= {start.name for start in self.services.starts.listed() if start.state == "starting"}
        if spec.name in taken and is_named:
            raise Problem(409, f"There is a cluster `{spec.name}` already: choose another `name`.", "name taken")
        names = itertools.chain([spec.name], (f"{spec.name}-{number}" for number in itertools.count(2)))
        spec = dataclasses.replace(spec, name=next(name for name in names if name not in taken))
        try:
            start = await self.services.starts.start(spec)
        except OSError as error:
            raise Problem(
                500, f"The process that starts the cluster could not be started: {error}", "failed"
            ) from error
        await self.reply({"start": start.id}, 202)


def _spec_of(fields: dict[str, Any]) -> tuple[Spec, bool]:
    """Return the spec that is to be started, and whether its name was asked for."""
    given = fields.get("spec", LOCAL["name"])
    try:
        if isinstance(given, str):
            spec, is_named = check_spec({}) if given == LOCAL["name"] else find_spec(given), False
        else:
            spec, is_named = check_spec(given), "name" in given
        if "name" in fields:
            spec, is_named = dataclasses.replace(spec, name=check_spec({"name": fields["name"]}).name), True
    except OptionError as error:
        raise Problem(400, str(error), "bad spec") from error
    return spec, is_named


class SpecsHandler(ClusterHandler):
    """``specs``: what can be started by name."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with names, what they are, and what is wrong with those that have faults; never with options."""
        rows: list[dict[str, Any]] = [LOCAL]
        for found in await asyncio.to_thread(list_specs):
            spec = found.spec.describe() if found.spec is not None else None
            rows.append({"name": found.name, "description": _describe(spec), "spec": spec, "problem": found.problem})
        await self.reply({"specs": rows, "directory": str(specs_directory())})


def _describe(spec: dict[str, Any] | None) -> str:
    if spec is None:
        return ""
    return str(spec["cluster_class"] or spec["address"] or LOCAL["description"])


class StartHandler(ClusterHandler):
    """``starts/<id>``: how a start goes, with its log."""

    @web.authenticated
    @authorized
    async def get(self, start_id: str) -> None:
        """Answer with ``{"state", "log", "message", "cluster"}``."""
        start = self.services.starts.find(start_id)
        state, message = ("", "") if start is None else (start.state, start.message)
        if start is None:
            connection = await asyncio.to_thread(registry.find, start_id)
            if connection is None or connection.kind != "detached":
                raise Problem(404, "Nothing was started under this id.", "unknown start")
            state = "running"
        log = await asyncio.to_thread(self.services.starts.log, start_id)
        await self.reply({"state": state, "log": log, "message": message, "cluster": start_id})

    @web.authenticated
    @authorized
    async def delete(self, start_id: str) -> None:
        """End a start that is in progress, or forget one that has failed."""
        start = self.services.starts.find(start_id)
        if start is None:
            raise Problem(404, "Nothing was started under this id.", "unknown start")
        if start.state == "running":
            raise Problem(409, "The cluster has started: stop it as a cluster.", "has started")
        await self.services.starts.cancel(start)
        await self.reply({})


class ClusterIdHandler(ClusterHandler):
    """``clusters/<id>``: scaling and stopping."""

    @web.authenticated
    @authorized
    async def patch(self, cluster_id: str) -> None:
        """Have a number of nodes, adapt it to the work, or stop when there is none."""
        fields = self.body("nodes", "force", "adaptive", "idle_stop")
        if len(fields.keys() - {"force"}) != 1:
            raise Problem(400, "One of `nodes`, `adaptive` and `idle_stop` is to be changed.", "bad request")
        connection = await self.connection(cluster_id)
        if "nodes" in fields:
            nodes = int(number_of(fields, "nodes", 0, MAX_NODES))
            if nodes != fields["nodes"]:
                raise Problem(400, "`nodes` is to be a whole number.", "bad request")
            await self.reply(await self._scale(connection, nodes, flag_of(fields, "force")))
        elif connection.kind != "detached":
            raise Problem(409, "Only a cluster without a driver is adapted and stopped by itself.", "refused")
        elif "idle_stop" in fields:
            seconds = number_of(fields, "idle_stop", 0, 1e9)
            await self._tell_keeper(connection, "shoal_idle_stop", 5.0, seconds=seconds)
            await self.reply({"idle_stop": seconds})
        else:
            await self._adapt(connection, fields["adaptive"])
            await self.reply({"adaptive": fields["adaptive"]})

    @web.authenticated
    @authorized
    async def delete(self, cluster_id: str) -> None:
        """Stop a cluster with all its work, or remove an entry that is stale."""
        if cluster_id in await asyncio.to_thread(registry.list_damaged):
            await asyncio.to_thread(registry.remove_damaged, cluster_id)
            await self.reply({"message": "The entry was removed."})
            return
        connection = await self.connection(cluster_id)
        await self._stop(connection)
        gone = await _wait_until_gone(cluster_id, STOP_TIMEOUT)
        self.services.clusters.scan_soon()
        if not gone and connection.kind == "detached" and _end_process(connection):
            gone = await _wait_until_gone(cluster_id, STOP_TIMEOUT)
        message = f"`{connection.name}` has ended." if gone else f"`{connection.name}` is ending."
        await self.reply({"message": message}, 200 if gone else 202)

    async def _scale(self, connection: Connection, nodes: int, force: bool) -> dict[str, Any]:
        _need_keeper(connection)
        if connection.kind == "attached":
            num_nodes, kept = await self.ask(
                connection.id, "scale", nodes, SCALE_TIMEOUT, force, target=connection.owner, timeout=SCALE_TIMEOUT + 5
            )
        else:
            if nodes < 1 and not connection.control:
                raise Problem(400, "A cluster on one machine has 1 node or more.", "bad request")
            fields = {"num_nodes": nodes, "timeout": SCALE_TIMEOUT, "force": force}
            answer = await self._tell_keeper(connection, "shoal_scale", SCALE_TIMEOUT + 10, **fields)
            num_nodes, kept = answer["num_nodes"], answer["kept"]
        return {"nodes": num_nodes, "kept": [{"node": node, "why": why} for node, why in kept]}

    async def _adapt(self, connection: Connection, wanted: Any) -> None:
        if wanted is None:
            await self._tell_keeper(connection, "shoal_adapt", 30.0)
            return
        if not isinstance(wanted, dict) or set(wanted) != {"minimum", "maximum"}:
            raise Problem(400, "`adaptive` is `minimum` and `maximum`, or null for a fixed number.", "bad request")
        least = number_of(wanted, "minimum", 0 if connection.control else 1, MAX_NODES)
        most = number_of(wanted, "maximum", max(1, least), MAX_NODES)
        await self._tell_keeper(connection, "shoal_adapt", 30.0, minimum=int(least), maximum=int(most))

    async def _stop(self, connection: Connection) -> None:
        _need_keeper(connection)
        try:
            if connection.kind == "attached":
                await self.ask(connection.id, "stop", target=connection.owner)
            else:
                await self._tell_keeper(connection, "shoal_stop", 5.0)
        except Problem:
            # One that hangs is ended from outside: its lock proves that it lives, and its name that it is ours.
            if connection.kind != "detached" or not _end_process(connection):
                raise

    async def _tell_keeper(
        self, connection: Connection, operation: str, timeout: float, /, **fields: Any
    ) -> dict[str, Any]:
        """Have whoever keeps a cluster carry an operation out."""
        await self.services.watches()  # imports what the next lines need, in a thread
        from shoal.launch.control import tell_keeper
        from shoal.launch.dask_cluster import security_from

        address = connection.control or connection.address
        try:
            return await tell_keeper(address, security_from(connection.tls_files()), operation, timeout, **fields)
        except TimeoutError as error:
            raise Problem(502, f"The cluster gave no answer within {timeout:g} s.", "no answer") from error
        except (ConnectError, OSError) as error:
            raise Problem(502, str(error), "no answer") from error
        except ShoalError as error:
            raise Problem(409, str(error), "refused") from error


def _need_keeper(connection: Connection) -> None:
    """Refuse what would have to be asked of a driver that nobody knows."""
    if connection.kind == "attached" and not connection.owner:
        raise Problem(409, "Its driver runs an older version of shoal: scale and stop it there.", "refused")


async def _wait_until_gone(cluster_id: str, timeout: float) -> bool:
    try:
        async with asyncio.timeout(timeout):
            while await asyncio.to_thread(registry.find, cluster_id) is not None:  # noqa: ASYNC110 - a file
                await asyncio.sleep(POLL)
    except TimeoutError:
        return False
    return True


def _end_process(connection: Connection) -> bool:
    """End the group of the process that keeps a detached cluster; returns whether it was there and is one."""
    if connection.host != socket.gethostname():
        return False
    with contextlib.suppress(psutil.Error, OSError):
        process = psutil.Process(connection.pid)
        if process.uids().real == os.getuid() and "shoal.launch.detached" in process.cmdline():
            os.killpg(connection.pid, signal.SIGKILL)
            return True
    return False
