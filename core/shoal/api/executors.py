"""Which executors somebody means who names an executor, an actor, a task, a node, or a ref of work."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from shoal.api.actors import ActorHandle, owner_of
from shoal.api.looking import look, look_at_each
from shoal.api.nodes import Node
from shoal.api.session import owner_or_init
from shoal.model.errors import OptionError
from shoal.model.suggest import did_you_mean
from shoal.runtime.refs import ObjectRef
from shoal.runtime.yields import ObjectRefGenerator

if TYPE_CHECKING:
    from shoal.runtime.agent_answers import ExecutorRow
    from shoal.runtime.owner import Owner

#: Seconds in which the controller answers.
ANSWER = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What was named. ``kind`` is ``executor``, ``actor``, ``task``, ``node`` or ``all``."""

    owner: Owner
    kind: str
    #: "" for all.
    id: str
    #: What to call it.
    label: str

    def nodes(self, timeout: float = ANSWER) -> list[str]:
        """Return the ids of the nodes on which it may be."""
        if self.kind == "node":
            return [self.id]
        return [row[0] for row in look(self.owner, "nodes", timeout=timeout)]

    def rows(self, timeout: float = ANSWER) -> list[tuple[str, ExecutorRow]]:
        """Return the executors that run and are meant, each with its node's id."""
        from shoal.runtime.agent_answers import ExecutorRow

        answers, _ = look_at_each(self.owner, dict.fromkeys(self.nodes(timeout), ()), "executors", timeout)
        rows = [(node_id, ExecutorRow(*row)) for node_id, found in answers.items() for row in found]
        alive = [(node_id, row) for node_id, row in rows if row.state not in ("ended", "starting")]
        match self.kind:
            case "executor":
                return [(node_id, row) for node_id, row in alive if row.id == self.id]
            case "actor":
                return [(node_id, row) for node_id, row in alive if row.actor == self.id]
            case "task":
                at = self.executor_of_task()
                return [
                    (node_id, row) for node_id, row in alive if row.id == at or (row.task == self.id and not row.actor)
                ]
        return alive

    def executor_of_task(self) -> str:
        """Return the executor to which this process has sent the task; "" if it has ended or is not one of its own."""
        owner = self.owner

        async def find() -> str:
            work = owner.results.maker(f"obj{self.id[4:]}")
            return owner.answers.executor_of(work) if work is not None and work.sent else ""

        found = asyncio.run_coroutine_threadsafe(find(), owner.loop)
        with contextlib.suppress(TimeoutError):
            return found.result(ANSWER)
        return ""

    def is_pending(self) -> bool:
        """Whether the task is one of this process's own and has not ended."""
        return self.owner.results.maker(f"obj{self.id[4:]}") is not None

    def is_own(self) -> bool:
        """Whether the task is known to be one of this process's own: it is as long as there are refs to its results."""
        table = self.owner.table
        entries = [table.get(f"obj{self.id[4:]}{number}") for number in ("", ".0")]
        return self.is_pending() or any(entry is not None and not entry.owner for entry in entries)


def find_target(function: str, what: Any) -> Target:
    """Return what *what* names.

    Raises
    ------
    TypeError, OptionError
        It names nothing, or nothing that runs in an executor.
    NotInitializedError, ClusterLostError
        There is no cluster (any more).
    """
    if isinstance(what, ActorHandle):
        return Target(_cluster_of(owner_of(function, what)), "actor", what._actor_id, f"actor `{what._name}`")
    if isinstance(what, ObjectRefGenerator):
        what = what._yields.next_ref
    if isinstance(what, ObjectRef):
        what._owner.check_usable()
        task_id = f"task{what.id.partition('.')[0][3:]}"
        return Target(_cluster_of(what._owner), "task", task_id, f"the task of `{what.id}`")
    owner = _cluster_of(owner_or_init())
    if what is None:
        return Target(owner, "all", "", "the cluster")
    if isinstance(what, Node):
        return Target(owner, "node", what.id, f"node `{what.id}`")
    if not isinstance(what, str):
        raise TypeError(
            f"`{function}` takes a ref, an actor's handle or name, a node, or the id of a task, an actor, an executor "
            f"or a node, not {type(what).__name__}."
        )
    for prefix, kind in (("exec-", "executor"), ("actor-", "actor"), ("task-", "task"), ("node-", "node")):
        if what.startswith(prefix):
            return Target(owner, kind, what, f"{kind} `{what}`")
    if what.startswith("obj-"):
        return Target(owner, "task", f"task{what.partition('.')[0][3:]}", f"the task of `{what}`")
    rows = look(owner, "snapshot", timeout=ANSWER)["actors"]
    named = [row for row in rows if row["name"] == what]
    if not named:
        known = did_you_mean(what, [row["name"] for row in rows if row["name"]])
        raise OptionError(
            f"`{what}` is not the name of an actor here, nor the id of a task, an actor, an executor or a node.{known}",
            option="target",
        )
    named.sort(key=lambda row: row["state"] != "dead")
    return Target(owner, "actor", named[-1]["id"], f"actor `{what}`")


def _cluster_of(owner: Any) -> Owner:
    from shoal.runtime.owner import Owner

    if not isinstance(owner, Owner):
        raise OptionError(
            "With `inline=True` everything runs in this process: there are no executors to look at.", option="inline"
        )
    return owner


__all__ = ["Target", "find_target"]
