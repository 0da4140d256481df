"""What can be asked about a cluster's work, and done to it: answered by its owners, nodes and controller."""

from __future__ import annotations

import asyncio
import importlib
from types import ModuleType
from typing import Any

from jupyter_server.auth.decorator import authorized
from tornado import web

from shoal_labextension.access import ClusterHandler, Problem, flag_of, may, not_there_yet, number_of, text_of

#: Rows of one answer at most, and characters of a filter.
MAX_ROWS = 10_000
#: Seconds that an owner may take to look through its memory, and a node through its processes.
MEMORY_TIMEOUT, NODE_TIMEOUT = 15.0, 10.0
#: Seconds that a profile takes at most, and beyond that for it to arrive.
MAX_PROFILE, PROFILE_GRACE = 60.0, 10.0

PENDING = ("task_id", "object_id", "kind", "function", "cell", "state", "submitted", "attempt", "executor")
FAILURE = ("cell", "function", "count", "summary", "traceback")
EXECUTOR = ("id", "pid", "state", "job", "actor", "task", "since", "memory")
LOG_LINE = ("time", "stream", "text", "task_id", "function", "cell", "actor", "executor")
EXPLANATION = ("subject", "state", "detail", "advice", "causes")
PROFILE = ("seconds", "rate", "looks", "idle", "frames", "stacks", "how")


def named(row: Any, names: tuple[str, ...]) -> dict[str, Any]:
    """Return a row of an answer as a mapping; fields that are not known here are left out."""
    return dict(row) if isinstance(row, dict) else dict(zip(names, row, strict=False))


def explanation(fields: Any) -> dict[str, Any]:
    """Return a :class:`shoal.model.explanation.Explanation` that has travelled."""
    found = named(fields, EXPLANATION)
    return {**found, "causes": [explanation(cause) for cause in found["causes"]]}


async def module_of(name: str, what: str) -> ModuleType:
    """Import a module in a thread.

    Raises
    ------
    Problem
        This version has none, or what it needs is not installed.
    """
    try:
        return await asyncio.to_thread(importlib.import_module, name)
    except ModuleNotFoundError as error:
        if error.name == name:
            raise not_there_yet(what) from error
        raise Problem(501, f"`{error.name}` is not installed beside the Jupyter server.", "not installed") from error


class _Asking(ClusterHandler):
    """Reads what the address says."""

    def query(self, name: str, default: str | None = None) -> str:
        return text_of({name: self.get_query_argument(name, default)}, name)

    def query_number(self, name: str, default: float, most: float) -> int:
        return int(number_of({name: self.get_query_argument(name, str(default))}, name, 0, most))


class CancelHandler(_Asking):
    """``clusters/<id>/cancel``: a cell's work, or one task."""

    @web.authenticated
    @authorized
    async def post(self, cluster_id: str) -> None:
        """Answer with how much work that was."""
        fields = self.body("owner", "cell", "task", "force")
        if ("cell" in fields) == ("task" in fields):
            raise Problem(400, "Either a `cell` or a `task` is to be cancelled.", "bad request")
        kind = "cell" if "cell" in fields else "task"
        subject, owner = text_of(fields, kind), text_of(fields, "owner")
        count = await self.ask(cluster_id, f"cancel_{kind}", subject, flag_of(fields, "force"), target=owner)
        await self.reply({"cancelled": count})


class ActorHandler(_Asking):
    """``clusters/<id>/actors/<actor_id>``: end one, for good or for a new start."""

    @web.authenticated
    @authorized
    async def post(self, cluster_id: str, actor_id: str) -> None:
        """Answer when the controller knows."""
        action = text_of(self.body("action"), "action")
        if action not in ("kill", "restart"):
            raise Problem(400, "`action` is `kill` or `restart`.", "bad request")
        snapshot = await self.ask(cluster_id, "snapshot")
        actor = next((row for row in snapshot["actors"] if row["id"] == actor_id), None)
        if actor is None or actor["state"] == "dead":
            raise Problem(404, "There is no such actor (any more).", "unknown actor")
        await self.ask(cluster_id, "kill_actor", actor_id, "it was ended in the panel", action == "restart")
        await self.reply({})


class PendingHandler(_Asking):
    """``clusters/<id>/pending?owner=``: work that has not ended."""

    @web.authenticated
    @authorized
    async def get(self, cluster_id: str) -> None:
        """Answer with ``{"pending": [...]}``."""
        limit = self.query_number("limit", 1_000, MAX_ROWS)
        rows = await self.ask(cluster_id, "pending", limit, target=self.query("owner"))
        await self.reply({"pending": [named(row, PENDING) for row in rows]})


class WhyHandler(_Asking):
    """``clusters/<id>/why?owner=&object=``: why something is not ready."""

    @web.authenticated
    @authorized
    async def get(self, cluster_id: str) -> None:
        """Answer with ``{"explanation": {...}}``."""
        subject = self.query("object")
        found = await self.ask(cluster_id, "explain", "object", subject, target=self.query("owner"), timeout=8.0)
        await self.reply({"explanation": explanation(found)})


class FailuresHandler(_Asking):
    """``clusters/<id>/failures?owner=&cell=``: errors in groups."""

    @web.authenticated
    @authorized
    async def get(self, cluster_id: str) -> None:
        """Answer with ``{"failures": [...]}``."""
        rows = await self.ask(cluster_id, "failures", self.query("cell", ""), target=self.query("owner"))
        await self.reply({"failures": [named(row, FAILURE) for row in rows]})


class MemoryHandler(_Asking):
    """``clusters/<id>/memory?owner=``: what the object stores hold of an owner, and who holds it."""

    @web.authenticated
    @authorized
    async def get(self, cluster_id: str) -> None:
        """Answer with the report."""
        limit = self.query_number("limit", 1_000, MAX_ROWS)
        report = await self.ask(cluster_id, "memory", limit, target=self.query("owner"), timeout=MEMORY_TIMEOUT)
        await self.reply(report if isinstance(report, dict) else {"objects": report})


class ReleaseHandler(_Asking):
    """``clusters/<id>/release``: have an owner let go of one value, or of what it keeps of its own accord."""

    @web.authenticated
    @authorized
    async def post(self, cluster_id: str) -> None:
        """Answer with what it said."""
        fields = self.body("owner", "object")
        owner = text_of(fields, "owner")
        if "object" in fields:
            details = (text_of(fields, "object"),)
            nbytes = await self.ask(cluster_id, "release_object", *details, target=owner, timeout=MEMORY_TIMEOUT)
            await self.reply({"released": nbytes})
            return
        await self.reply(await self.ask(cluster_id, "release", target=owner, timeout=MEMORY_TIMEOUT))


class LogsHandler(_Asking):
    """``clusters/<id>/logs?node=&source=&offset=&limit=&filter=``: what a task, actor or executor has printed."""

    @web.authenticated
    @authorized
    async def get(self, cluster_id: str) -> None:
        """Answer with ``{"lines": [...], "offset", "ended", "executor"}``."""
        offset = int(number_of({"offset": self.get_query_argument("offset", "0")}, "offset", -1e15, 1e15))
        limit = self.query_number("limit", 1_000, MAX_ROWS)
        details = (self.query("source"), offset, limit, self.query("filter", ""))
        found = await self.ask(cluster_id, "log", *details, target=self.query("node"), timeout=NODE_TIMEOUT)
        if isinstance(found, dict) and "rows" in found:
            found = {**found, "lines": [named(row, LOG_LINE) for row in found["rows"]]}
            del found["rows"]
        await self.reply(found)


class ExecutorsHandler(_Asking):
    """``clusters/<id>/executors``: of all nodes."""

    @web.authenticated
    @authorized
    async def get(self, cluster_id: str) -> None:
        """Answer with ``{"executors": [...], "silent": [nodes that gave no answer]}``."""
        snapshot = await self.ask(cluster_id, "snapshot")
        nodes = [row["id"] for row in snapshot["nodes"]]
        asked = (self.ask(cluster_id, "executors", target=node, timeout=NODE_TIMEOUT) for node in nodes)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        silent = [node for node, rows in zip(nodes, answers, strict=True) if isinstance(rows, BaseException)]
        if nodes and len(silent) == len(nodes):
            raise next(answer for answer in answers if isinstance(answer, BaseException))
        executors = [
            {"node": node, **named(row, EXECUTOR)}
            for node, rows in zip(nodes, answers, strict=True)
            if not isinstance(rows, BaseException)
            for row in rows
        ]
        await self.reply({"executors": executors, "silent": silent})


class StackHandler(_Asking):
    """``clusters/<id>/stack?node=&executor=``: what an executor does right now."""

    @web.authenticated
    @authorized
    async def get(self, cluster_id: str) -> None:
        """Answer with ``{"stack": text}``."""
        details = (self.query("executor"),)
        found = await self.ask(cluster_id, "stack", *details, target=self.query("node"), timeout=NODE_TIMEOUT)
        await self.reply({"stack": found})


class ProfileHandler(_Asking):
    """``clusters/<id>/profile``: where an executor spends its time."""

    @web.authenticated
    @may("execute")
    async def post(self, cluster_id: str) -> None:
        """Answer with the samples, after the seconds asked for."""
        fields = self.body("node", "executor", "seconds")
        seconds = number_of(fields, "seconds", 0.1, MAX_PROFILE, 5.0)
        details = (text_of(fields, "executor"), float(seconds))
        node = text_of(fields, "node")
        found = await self.ask(cluster_id, "profile", *details, target=node, timeout=seconds + PROFILE_GRACE)
        profiles = await module_of("shoal.observe.profiles", "profile")
        flame_graph = await module_of("shoal.observe.flame_graph", "profile")
        samples = profiles.Samples.from_wire(found)
        title = f"{details[0]}: {samples.looks} looks in {samples.seconds:.1f} s by {samples.how}"
        html = await asyncio.to_thread(flame_graph.to_html, samples, title)
        await self.reply({**named(found, PROFILE), "html": html})
