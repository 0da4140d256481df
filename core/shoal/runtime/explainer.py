"""Answers :func:`shoal.why`: follows what work waits for, through this process, its peers and the controller."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from shoal.machines.shortage import Holder, Shortage
from shoal.model import messages as m
from shoal.model.errors import ShoalError
from shoal.model.explanation import Explanation
from shoal.model.resources import describe
from shoal.runtime import payload as payloads
from shoal.runtime.work import CREATE, Work
from shoal.transport.stream import Stream

if TYPE_CHECKING:
    from shoal.runtime.calling import Item
    from shoal.runtime.owner import Owner

#: Causes that are listed; the others are counted.
MAX_CAUSES = 5
#: Each further process has this part of the time that the one before has, so that its answer is in time.
SHARE = 0.8
#: What it means for work that a node takes nothing new.


class Explainer:
    """See the module's description. Lives on the owner's event loop."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._requests = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Explanation]] = {}
        #: Work that has been sent here and has not ended: begun, and not begun. Set by executors.
        self.running: Callable[[], Sequence[Item]] = lambda: ()
        self.pending: Callable[[], Sequence[Item]] = lambda: ()

    async def explain(self, topic: str, subject: str, path: tuple[str, ...], seconds: float) -> Explanation:
        """Explain an object of ours or of others, a task that was sent here, or an actor that lives anywhere."""
        if subject in path:
            return Explanation(
                f"`{subject}`",
                "deadlock",
                "it waits for this itself",
                "break the circle: pass the ref on instead of getting it there, make the method `async def`, "
                "or give the actor `max_concurrency`",
            )
        path = (*path, subject)
        match topic:
            case "object":
                return await self._object(subject, path, seconds)
            case "task":
                return await self._task(subject, path, seconds)
            case "actor":
                return await self._actor(subject, path, seconds)
            case _:
                return await self._actor_here(subject, path, seconds)

    def asked(self, stream: Stream, message: m.Explain) -> None:
        """A peer wants to know."""

        async def answer() -> None:
            found = await self.explain(message.topic, message.subject, message.path, message.seconds)
            stream.send_nowait(m.Explained(message.request, found.to_wire()))

        self._owner.start_soon(answer())

    def answered(self, message: m.Explained) -> None:
        answer = self._answers.pop(message.request, None)
        if answer is not None and not answer.done():
            answer.set_result(Explanation.from_wire(message.explanation))

    # -- objects -------------------------------------------------------------------------------------------------

    async def _object(self, object_id: str, path: tuple[str, ...], seconds: float) -> Explanation:
        entry = self._owner.table.get(object_id)
        if entry is None:
            return Explanation(f"`{object_id}`", "unknown", "its owner does not know it any more")
        work = self._owner.results.maker(object_id)
        name = f"`{work.target.name}` ({object_id})" if work is not None else f"`{object_id}`"
        if entry.payload is not None:
            if payloads.is_error(entry.payload):
                return Explanation(name, "failed", _error_in(entry.payload), "`shoal.get` raises the error")
            return Explanation(name, "ready")
        if entry.owner:
            return await self._ask_peer(entry.owner, name, "object", object_id, path[:-1], seconds)
        if work is None:
            if object_id in self._owner.stoppers:
                return Explanation(name, "waits", "Dask is to make it: its dashboard shows how far it is")
            group_id = self._owner.group_of(object_id)
            return await self._group(group_id) if group_id else Explanation(name, "starts", "it was just submitted")
        missing = [ref.id for ref in work.dependencies if not self._owner.is_ready(ref)]
        if missing:
            return await self._waits_for(name, "needs data", "", missing, path, seconds)
        if work.target.method == CREATE:
            return await self._actor(self._owner.actors.id_of(work), path, seconds)
        if work.target.method:
            return await self._call(work, name, path, seconds)
        address = self._owner.tasks.address_of(work.task_id)
        if address:
            return await self._ask_peer(address, name, "task", work.task_id, path, seconds)
        assert work.target.kind is not None
        shortage = await self._ask_controller("shortage", (work.target.kind,))
        return self._short(name, shortage)

    async def _call(self, work: Work, name: str, path: tuple[str, ...], seconds: float) -> Explanation:
        """Explain a call of an actor."""
        actors = self._owner.actors
        actor_id = actors.actor_of(work.task_id)
        address = actors.address_of(work.task_id)
        if address and not actors.is_queued(work.task_id):
            return await self._ask_peer(address, name, "task", work.task_id, path, seconds)
        ahead = actors.first_ahead(work.task_id)
        if address and ahead is not None:
            return await self._waits_for(
                name, "waits its turn", "calls of one caller keep their order", [ahead.object_id], path, seconds
            )
        cause = await self.explain("actor", actor_id, path, seconds)
        return Explanation(name, "needs its actor", causes=(cause,))

    async def _waits_for(
        self, name: str, state: str, detail: str, object_ids: Sequence[str], path: tuple[str, ...], seconds: float
    ) -> Explanation:
        causes = [await self.explain("object", object_id, path, seconds) for object_id in object_ids[:MAX_CAUSES]]
        return Explanation(name, state, _and_more(detail, object_ids), causes=tuple(causes))

    # -- work that was sent here ---------------------------------------------------------------------------------

    async def _task(self, task_id: str, path: tuple[str, ...], seconds: float) -> Explanation:
        here = f"on {self._owner.config.owner_id}"
        for item in self.running():
            if item.run.task_id == task_id:
                return await self._running(item, path, seconds)
        pending = self.pending()
        ahead = 0
        for item in pending:
            if item.run.task_id == task_id:
                break
            ahead += 1
        else:
            return Explanation(f"`{task_id}`", "starts", f"it is on its way to or from here, {here}")
        running = self.running()[:MAX_CAUSES]
        causes = [await self.explain("task", other.run.task_id, path, seconds) for other in running]
        advice = ""
        if not item.run.lease_id:
            advice = "an actor does one thing at a time, unless `max_concurrency` allows more; or use several actors"
        more = f", {ahead} more before it" if ahead else ""
        return Explanation(_name(item), "waits its turn", here + more, advice, causes=tuple(causes))

    async def _running(self, item: Item, path: tuple[str, ...], seconds: float) -> Explanation:
        now = time.monotonic()
        where = f"on {self._owner.config.owner_id} for {now - item.begun:.1f} s"
        if item.waits_for_consumer:
            return Explanation(
                _name(item),
                "waits",
                f"{where}; {item.recipe.max_pending} of its values were not taken",
                "take values from its generator, or raise `max_pending`",
            )
        found = self._owner.waits_of(item.run.task_id)
        if found is None:
            return Explanation(_name(item), "runs", where)
        object_ids, since = found
        detail = f"{where}, and has waited for {now - since:.1f} s"
        return await self._waits_for(_name(item), "waits", detail, object_ids, path, seconds)

    # -- actors and groups ---------------------------------------------------------------------------------------

    async def _actor(self, actor_id: str, path: tuple[str, ...], seconds: float) -> Explanation:
        name = f"actor `{actor_id}`"
        created = self._owner.actors.creation(actor_id)
        if created is not None:
            missing = [ref.id for ref in created.dependencies if not self._owner.is_ready(ref)]
            if missing:
                return await self._waits_for(name, "needs data", "", missing, path, seconds)
        answer = await self._ask_controller("actor", (actor_id,))
        if isinstance(answer, str):
            return Explanation(name, "unknown", answer)
        state, label, node_id, address, num_restarts, cause, shortage = answer
        name = f"actor `{label}` ({actor_id})" if label else name
        match state:
            case "dead":
                return Explanation(name, "dead", cause, "start another; `max_restarts` would have it restarted")
            case "alive":
                return await self._ask_peer(address, name, "actor here", actor_id, path[:-1], seconds)
            case "starting":
                return Explanation(name, "starts", f"its process is prepared or its `__init__` runs on {node_id}")
            case _:
                again = f"its process died {num_restarts} times" if num_restarts else ""
                return self._short(name, shortage, again)

    async def _actor_here(self, actor_id: str, path: tuple[str, ...], seconds: float) -> Explanation:
        """Explain the actor that lives in this process."""
        name, where = f"actor `{actor_id}`", f"on {self._owner.config.owner_id}"
        running, pending = self.running(), self.pending()
        if not running:
            return Explanation(name, "idle", where)
        causes = [await self._running(item, (*path, item.run.task_id), seconds) for item in running[:MAX_CAUSES]]
        calls = (
            "1 call under way, {} behind it" if len(running) == 1 else f"{len(running)} calls under way, {{}} behind"
        )
        counts = f"{calls.format(len(pending))}, {where}"
        return Explanation(name, "runs", counts, causes=tuple(causes))

    async def _group(self, group_id: str) -> Explanation:
        shortage = await self._ask_controller("group", (group_id,))
        return self._short(f"placement group `{group_id}`", shortage)

    # -- resources -----------------------------------------------------------------------------------------------

    def _short(self, name: str, shortage: Any, detail: str = "") -> Explanation:
        """Explain by what :func:`shoal.machines.shortage.find_shortage` has found."""
        if isinstance(shortage, str):
            return Explanation(name, "unknown", shortage)
        found = Shortage.from_wire(shortage)
        if found.fits:
            return Explanation(name, "starts", found.describe())
        words = "; ".join(filter(None, (detail, found.describe())))
        advice = ["wait for those to end", "ask for less", "add a node"]
        if any(holder.kind == "actor" for holder in found.holders):
            advice.insert(1, "end actors that are done (`shoal.kill`), or give those that mostly wait `num_cpus=0`")
        causes = map(self._holder, found.holders)
        return Explanation(name, "needs resources", words, "; ".join(advice), tuple(causes))

    def _holder(self, holder: Holder) -> Explanation:
        amounts = describe(holder.amounts)
        match holder.kind:
            case "actor":
                return Explanation(f"actor {holder.who}", "runs", f"it holds {amounts}")
            case "group":
                return Explanation(f"placement group `{holder.who}`", "runs", f"it has reserved {amounts}")
            case "dask":
                return Explanation("Dask's own tasks", "runs", f"they use {amounts}")
        leases = f"they hold {amounts} on {holder.num_leases} executor{'s' * (holder.num_leases > 1)}"
        if holder.who != self._owner.config.owner_id:
            return Explanation(f"tasks of `{holder.who}`", "runs", leases)
        names = dict.fromkeys(work.target.name for work in self._owner.tasks.works() if work.sent)
        listed = ", ".join(f"`{name}`" for name in itertools.islice(names, MAX_CAUSES))
        return Explanation("tasks of this process", "runs", leases + (f": {listed}" if listed else ""))

    # -- asking others -------------------------------------------------------------------------------------------

    async def _ask_controller(self, topic: str, details: tuple[Any, ...]) -> Any:
        try:
            return await self._owner.controller.ask(lambda request: m.Ask(request, topic, details))
        except ShoalError as error:
            return str(error)

    async def _ask_peer(
        self, address: str, name: str, topic: str, subject: str, path: tuple[str, ...], seconds: float
    ) -> Explanation:
        """Ask another process; ``path`` is what it checks *subject* against."""
        if address == self._owner.address:
            return await self.explain(topic, subject, path, seconds)
        request = next(self._requests)
        answer = self._answers[request] = asyncio.get_running_loop().create_future()
        self._owner.send_to(address, m.Explain(request, topic, subject, path, seconds * SHARE))
        try:
            found: Explanation = await asyncio.wait_for(answer, seconds)
        except TimeoutError:
            detail = f"the process that has it did not answer within {seconds:.1f} s"
            return Explanation(name, "unknown", detail, "is that process stopped, or its machine overloaded?")
        finally:
            self._answers.pop(request, None)
        return dataclasses.replace(found, subject=name) if topic == "actor here" else found


def _name(item: Item) -> str:
    return f"`{item.recipe.name}` ({item.run.task_id})"


def _and_more(detail: str, items: Sequence[object]) -> str:
    more = f"{len(items) - MAX_CAUSES} more" if len(items) > MAX_CAUSES else ""
    return ", ".join(filter(None, (detail, f"for {len(items)} values, {more} like these" if more else "")))


def _error_in(payload: m.Payload) -> str:
    try:
        payloads.load(payload)
    except BaseException as error:  # whatever user code raised
        return f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return ""
