"""The owner runtime: submits work, owns its results, and gets their values.

One per process that runs user code: each driver has one, and each executor (for nested work). It lives on the process's
event loop; the methods in the first part may be called on any thread and reach the loop through an inbox. The decisions
are those of the state machines; the owner's parts carry them out: :class:`TaskRunner`, :class:`ActorCaller`,
:class:`Ownership`, :class:`Results` and the :class:`ControllerLink`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import os
from collections.abc import Callable, Coroutine
from typing import Any

from shoal.machines import objects
from shoal.model import messages as m
from shoal.model.errors import (
    ClusterLostError,
    InfeasibleError,
    NotInitializedError,
    ObjectLostError,
    PlacementGroupError,
    ShoalError,
    TaskTimeoutError,
)
from shoal.model.explanation import Explanation
from shoal.model.ids import new_object_id
from shoal.model.options import ActorOptions
from shoal.model.placement import SchedulingClass, class_from_wire
from shoal.model.resources import Resources, describe, from_wire
from shoal.runtime import payload as payloads
from shoal.runtime.actor_caller import ActorCaller
from shoal.runtime.base_owner import BaseOwner
from shoal.runtime.cell_memory_reporter import CellMemoryReporter
from shoal.runtime.controller_link import ANSWER_TIMEOUT, ControllerLink
from shoal.runtime.explainer import Explainer
from shoal.runtime.fetching import Fetcher
from shoal.runtime.inbox import Inbox
from shoal.runtime.last_answers import LastAnswers
from shoal.runtime.lineage import lineage_of
from shoal.runtime.memory_reporter import StoreAsker, Stores, name_processes
from shoal.runtime.metrics_reporter import MetricsReporter
from shoal.runtime.owner_answers import OwnerAnswers
from shoal.runtime.ownership import Ownership
from shoal.runtime.peers import Peers
from shoal.runtime.recovery import Recovery
from shoal.runtime.refs import ObjectRef
from shoal.runtime.results import Results
from shoal.runtime.scope import Scope
from shoal.runtime.store import Store
from shoal.runtime.task_runner import TIMEOUT_GRACE, TaskRunner
from shoal.runtime.versions import versions_here
from shoal.runtime.work import Target, Work
from shoal.runtime.yields import Yields
from shoal.transport.comms import Security
from shoal.transport.stream import Stream

#: Seconds between two reports to the controller, while there is news.
REPORT_INTERVAL = 0.25
#: How often a value is fetched that is pushed out again before it can be used.
FETCHES = 5


@dataclasses.dataclass(frozen=True)
class OwnerConfig:
    """Who an owner is and where its cluster is."""

    owner_id: str
    #: The driver's; an executor learns it with its first lease.
    job_id: str
    #: Address of the Dask scheduler that hosts the controller.
    controller: str
    security: Security
    #: Interface that peers reach this process at.
    host: str
    is_driver: bool
    #: Where a driver's named actors are; executors use their job's.
    namespace: str = ""
    #: The node of an executor.
    node_id: str = ""
    #: The store of this node; None until known, or where there is none on this machine.
    store: Store | None = None


class Owner(BaseOwner):
    """See the module's description."""

    def __init__(
        self,
        config: OwnerConfig,
        *,
        on_output: Callable[[m.Output], None] | None = None,
        on_message: Callable[[Stream, m.Message], None] | None = None,
        on_peer_lost: Callable[[str], None] | None = None,
    ) -> None:
        """Make the owner on its event loop; :meth:`start` brings it up.

        Parameters
        ----------
        on_output
            Gets what tasks print, on the loop: a driver shows it, an executor passes it on.
        on_message, on_peer_lost
            Get what is not the owner's business: work sent to this process, and the end of who sent it; for executors.
        """
        super().__init__(config.owner_id, config.store)
        self.config = config
        self.job_id = config.job_id
        self.loop = asyncio.get_running_loop()
        self.inbox = Inbox(self.loop, self._after_batch)
        self.cluster_id = ""
        #: The nodes' versions when we joined.
        self.versions: dict[str, dict[str, str]] = {}
        #: Directories of the nodes' stores, by the address of their Dask workers.
        self.stores: dict[str, str] = {}
        self._scope = Scope(f"owner {config.owner_id}")
        self.peers = Peers(config.security, self._scope, self._peer_message, self._peer_lost, self._after_batch)
        self.controller = ControllerLink(
            config.controller, config.security, self._scope, self._hello, self._controller_message, self._cluster_lost
        )
        self.fetcher = Fetcher(self)
        self.ownership = Ownership(self, self.peers, lambda object_id: self.actors.freed(object_id))
        self.results = Results(self.table, self.ownership.free, self._schedule_report)
        self.metrics = MetricsReporter(self.controller.tell, self.results.stats)
        self.cell_memory = CellMemoryReporter(self)
        self.recovery = Recovery(self)
        self.tasks = TaskRunner(self)
        self.actors = ActorCaller(self)
        self.explainer = Explainer(self)
        self.answers = OwnerAnswers(self)
        self.store_asker = StoreAsker(self)
        # What happens most often: bound once, not for each time.
        self._submit_task, self._call_actor, self._drop = self.tasks.submit, self.actors.call, self.ownership.drop
        self._last_answers = LastAnswers(
            lambda address: self.peers.stream(address) is not None,
            lambda seconds, call: self.loop.call_later(seconds, call),
        )
        #: Placement groups asked for here, by id: the object that becomes ready with them.
        self._groups: dict[str, str] = {}
        #: Placement groups asked for here that can never be, and why.
        self._failed_groups: dict[str, str] = {}
        #: Placement groups removed here: leases in them may be with us for a moment more.
        self.removed_groups: set[str] = set()
        #: What stops the making of objects that no work of ours makes, by object.
        self.stoppers: dict[str, Callable[[], object]] = {}
        self._on_output = on_output
        self._on_message = on_message
        self._on_peer_lost = on_peer_lost
        self._report_due = False

    # -- for user code, on any thread: see the base class -------------------------------------------------------------

    @property
    def address(self) -> str:
        return self.peers.address

    def _start_task(self, work: Work) -> None:
        self.inbox.put_and_give_way(self._submit_task, work)

    def create_prepared_actor(self, actor_id: str, work: Work, options: ActorOptions) -> None:
        self.inbox.put(self.actors.create, (actor_id, work, options))

    def _start_call(self, actor_id: str, work: Work) -> None:
        self.inbox.put_and_give_way(self._call_actor, (actor_id, work))

    def _count_call(self, actor_id: str, target: Target) -> None:
        self.actors.count_call(actor_id, target.name, target.max_pending_calls)

    def _request(self, missing: list[objects.Entry]) -> None:
        for entry in missing:
            if entry.owner:
                self.inbox.put(self.ownership.locate, entry)

    def kill_actor(self, actor_id: str, *, restart: bool = False) -> None:
        self.inbox.put(lambda _: self.actors.kill(actor_id, restart=restart), None)

    def ask(self, make: Callable[[int], m.Message]) -> Any:
        self.check_usable()
        future = asyncio.run_coroutine_threadsafe(self.controller.ask(make), self.loop)
        return future.result(2 * ANSWER_TIMEOUT)

    def create_group(
        self, group_id: str, bundles: tuple[Resources, ...], strategy: str, *, detached: bool
    ) -> ObjectRef:
        self.check_usable()
        object_id = new_object_id()
        self.table.add(object_id)
        request = m.CreateGroup(group_id, bundles, strategy, detached)
        self.inbox.put(self._create_group, (object_id, request))
        return ObjectRef(object_id, self.address, self)

    def remove_group(self, group_id: str) -> None:
        self.inbox.put(self._remove_group, group_id)

    def explain(self, topic: str, subject: str, seconds: float) -> Explanation:
        self.check_usable()

        async def explain() -> Explanation:
            await asyncio.sleep(0)  # behind what this thread has submitted
            return await self.explainer.explain(topic, subject, (), seconds)

        return asyncio.run_coroutine_threadsafe(explain(), self.loop).result(2 * seconds + ANSWER_TIMEOUT)

    def cancel(self, object_id: str, *, force: bool = False, recursive: bool = True) -> None:
        self.inbox.put(lambda _: self._cancel(object_id, force, recursive), None)

    def catch_up(self, seconds: float = ANSWER_TIMEOUT) -> None:
        if not self.closing and not self._lost:
            caught_up: concurrent.futures.Future[None] = concurrent.futures.Future()
            self.inbox.put(caught_up.set_result, None)
            caught_up.result(seconds)

    def cancel_cell(self, tag: str, *, force: bool = False) -> None:
        self.inbox.put(self._cancel_cell, (tag, force))

    def is_actor_call(self, object_id: str) -> bool:
        answer: concurrent.futures.Future[bool] = concurrent.futures.Future()

        def look(_: None) -> None:
            work = self.results.maker(object_id)
            answer.set_result(work is not None and bool(work.target.method))

        self.inbox.put(look, None)  # behind its submission
        return answer.result(ANSWER_TIMEOUT)

    def hold(self, object_id: str, owner_address: str, location: m.Payload | None = None) -> ObjectRef:
        return self.ownership.hold_from_any_thread(object_id, owner_address, location)

    def drop_nowait(self, object_id: str) -> None:
        self.inbox.put(self._drop, object_id)

    def drop_generator_nowait(self, yields: Yields) -> None:
        self.inbox.put(self._drop_generator, yields)

    def tell_consumed(self, yields: Yields) -> None:
        self.inbox.put(self._tell_consumed, yields)

    def _has_put(self) -> None:
        if not self.cell_memory.is_due:
            self.loop.call_soon_threadsafe(self.cell_memory.touch)

    def works(self) -> list[Work]:
        return [*self.results.pending(), *self.actors.kept_creations()]

    def ask_stores(self, seconds: float) -> tuple[Stores, dict[str, str]]:
        self.check_usable()

        async def ask() -> tuple[Stores, dict[str, str]]:
            return await self.store_asker.ask(seconds), await name_processes(self)

        return asyncio.run_coroutine_threadsafe(ask(), self.loop).result(seconds + 2 * ANSWER_TIMEOUT)

    def tell_metrics(self) -> None:
        self.check_usable()
        self.loop.call_soon_threadsafe(self.metrics.report)

    def has_left(self, node: str) -> bool:
        return self.config.is_driver and node not in self.stores

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen for peers; a driver also greets the controller (an executor does so when it first has to)."""
        await self.peers.start(self.config.host, self.config.controller, self.config.owner_id, self.config.job_id)
        if self.config.is_driver:
            welcome = await self.controller.connect()
            self.cluster_id = welcome.cluster_id
            self.versions = {f"node {host}": versions for _, _, host, _, versions in welcome.nodes}
            self._nodes_changed(m.NodesChanged(tuple(row[:4] for row in welcome.nodes), ()))
        self.metrics.start()

    async def close(self, timeout: float = 2.0) -> None:
        """Let everything go: results still awaited fail, and the cluster forgets this owner."""
        if self.closing:
            return
        self.report()  # what has ended since the last one
        self.closing = True
        self._fail_everything(NotInitializedError("shoal was shut down."))
        self.ownership.free_all()
        self.metrics.close()
        await self.controller.close(timeout)
        await self.peers.close(timeout)
        await self._scope.close()

    def recover(self, entry: objects.Entry, payload: m.Payload) -> bool:
        self.inbox.put(lambda _: self.recovery.unreadable(entry, payload), None)
        return True

    def load(self, payload: m.Payload) -> Any:
        if not self.needs_fetch(payload):
            return payloads.load(payload)
        attempts = 0
        while True:
            fetched = asyncio.run_coroutine_threadsafe(self.fetcher.fetch(payload), self.loop).result()
            if isinstance(fetched, memoryview):
                return payloads.load(payload, fetched)
            try:
                return payloads.load(fetched)
            except ObjectLostError:
                # Others needed room in the moment before we had mapped the copy.
                attempts += 1
                if attempts == FETCHES:
                    raise

    # -- for the owner's parts, on the loop ----------------------------------------------------------------------

    def start_soon(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run *coroutine* in the background, to the owner's end at most."""
        self._scope.start(coroutine)

    def send_to(self, address: str, message: m.Message) -> None:
        """Send *message* to a peer."""
        self.peers.send(address, message)

    def when_ready(self, work: Work, go_on: Callable[[], None]) -> None:
        """Call *go_on* once every dependency is ready, or fail the work with the first error among them."""
        left = len(work.dependencies)

        def arrived(entry: objects.Entry) -> None:
            nonlocal left
            payload = entry.payload
            assert payload is not None
            if not self.results.awaited(work):
                return
            if payloads.is_error(payload):
                self.actors.give_up(work)
                self.results.complete(work, payload, failed=True)
                return
            left -= 1
            if not left:
                go_on()

        for ref in work.dependencies:
            entry = self._entry(ref)
            if entry.payload is None and entry.owner:
                self.ownership.locate(entry)
            self.ownership.when_there(entry, arrived)

    def group_of(self, object_id: str) -> str:
        """Return the placement group that an object becomes ready with; "" if it is none's."""
        return next((group_id for group_id, ready in self._groups.items() if ready == object_id), "")

    @staticmethod
    def _never(group_id: str, reason: str) -> InfeasibleError:
        """Return the error of a placement group that the cluster could never hold, and of work in it."""
        text = f"`{group_id}` can never be reserved: {reason}. Ask for less, or add nodes."
        return InfeasibleError(text, asked={}, largest={})

    @staticmethod
    def group_is_gone(kind: SchedulingClass) -> InfeasibleError:
        """Return the error of work for a placement group that was removed."""
        return InfeasibleError(
            f"No node can ever satisfy {kind.describe()}: there is no placement group `{kind.placement.group_id}` "
            "(any more). Make another, or leave it out.",
            asked=dict(kind.resources),
            largest={},
        )

    def dependency_payloads(self, work: Work) -> tuple[m.Payload, ...]:
        """Return what *work* depends on; what was ready and is lost by now travels as lost, and work comes back."""
        found = (self._entry(ref).payload for ref in work.dependencies)
        return tuple(payload or (payloads.LOST, index, "") for index, payload in enumerate(found))

    def after_stream(self, address: str, go_on: Callable[[], None]) -> None:
        """Call *go_on* when all that a dead peer has sent has been read: its last answers, overtaken by the news."""
        self._last_answers.after(address, go_on)

    def timed_out(self, work: Work) -> None:
        """The time that work was given is over."""
        if not self.results.awaited(work):
            return
        timeout = work.target.timeout or 0.0
        where = "while it ran" if work.sent else "before it could begin"
        error = TaskTimeoutError(
            f"`{work.target.name}` was not done within {timeout:g} s and was cancelled {where}.",
            task_id=work.task_id,
            timeout=timeout,
        )
        is_call = self.actors.is_call(work.task_id)
        self.results.complete(work, payloads.from_error(error), failed=True)
        if is_call:
            self.actors.cancel(work, recursive=True)
        else:
            self.tasks.cancel(work.task_id)
            # Code that does not heed an interrupt goes with its process.
            self.loop.call_later(TIMEOUT_GRACE, lambda: self.tasks.cancel(work.task_id, force=True))

    def dead_on_arrival(self, work: Work) -> bool:
        """Fail work that was submitted in the moment when the cluster went."""
        if not self._lost and not self.closing:
            return False
        error = ClusterLostError(self._lost) if self._lost else NotInitializedError("shoal was shut down.")
        self.results.complete(work, payloads.from_error(error), failed=True)
        return True

    def cancel_children(self, parent: str) -> None:
        """Stop everything that a task has submitted, wherever it is. Its children do likewise."""
        for work in (*self.tasks.works(), *self.actors.works()):
            if work.parent == parent:
                self._cancel(work.object_id, force=False, recursive=True)

    def report(self) -> None:
        """Tell the controller the news now."""
        if self.controller.connected and not self.closing and self.results.stats.changed:
            batch = self.results.records.take(self.owner_id)
            records = (batch.num_records, batch.packed) if batch is not None else (0, b"")
            self.controller.tell(m.OwnerStats(self.results.stats.take_changes(), *records))
            self.cell_memory.touch()
            self.metrics.report_durations()

    # -- messages ------------------------------------------------------------------------------------------------

    def _hello(self) -> m.OwnerHello:
        c = self.config
        return m.OwnerHello(
            m.PROTOCOL_VERSION, c.owner_id, self.job_id, self.address, c.namespace, c.is_driver, versions_here()
        )

    def _controller_message(self, message: m.Message) -> None:
        match message:
            case m.LeaseGranted():
                self.tasks.granted(message)
            case m.Reclaim():
                self.tasks.reclaim(message)
            case m.LeaseLost():
                self.tasks.lease_lost(message)
            case m.Infeasible():
                self._infeasible(message)
            case m.ActorAlive():
                self.actors.alive(message)
            case m.ActorRestarting():
                self.actors.restarting(message)
            case m.ActorDead():
                self.actors.dead(message)
            case m.GroupReady(group_id):
                self._group_settled(group_id, payloads.NONE)
            case m.GroupFailed(group_id, reason):
                self._failed_groups[group_id] = reason
                self._group_settled(group_id, payloads.from_error(self._never(group_id, reason)))
            case m.NodesChanged():
                self._nodes_changed(message)
            case m.SegmentsSeen():
                self.segments_seen(message)
            case m.Ask():
                self.answers.serve(message)

    def segments_seen(self, message: m.SegmentsSeen) -> None:
        """An agent shows us segments of ours; those that we know nothing of are to go."""
        unowned = tuple(name for name in message.names if not self._knows(name))
        if unowned:
            self.peers.send(message.holder, m.SegmentsUnowned(unowned), agent=True)

    def _knows(self, name: str) -> bool:
        """Whether the segment *name* is that of a value, or belongs to work that has not ended."""
        _, subject, *part = name.split(".")
        object_id = "obj" + subject[4:] if subject.startswith("task-") else subject
        if self.results.maker(object_id) is not None or self.actors.keeps_arguments(object_id):
            return True
        for value_id in (object_id, f"{object_id}.{part[-1]}" if part else ""):
            entry = self.table.get(value_id)
            if entry is not None:
                payload = entry.payload
                if payload is None or (payload[0] == payloads.SEGMENT and os.path.basename(payload[2]) == name):
                    return True
        return False

    def _nodes_changed(self, message: m.NodesChanged) -> None:
        self.stores.update((worker, store) for _, worker, _, store in message.joined)
        for worker in message.left:
            self.stores.pop(worker, None)
        self.fetcher.nodes_changed(message)
        if self.config.is_driver and (self.store is None or self.store.holder not in self.stores):
            # A driver uses the store of whatever node is on its machine.
            stores = (Store(directory, worker) for worker, directory in self.stores.items())
            self.store = next((store for store in stores if store.reachable()), None)

    def _infeasible(self, message: m.Infeasible) -> None:
        kind, largest = class_from_wire(message.kind), from_wire(message.largest)
        reason = message.reason or f"the most any node has is {describe(largest)}"
        group_id = kind.placement.group_id
        if group_id in self._failed_groups:  # why there is none is worth more than that there is none
            error = self._never(group_id, self._failed_groups[group_id])
        else:
            error = InfeasibleError(
                f"No node can ever satisfy {kind.describe()}: {reason}. Ask for less, or add a node that has it.",
                asked=dict(kind.resources),
                largest=dict(largest),
            )
        if message.actor_id:
            self.actors.infeasible(message.actor_id, error)
        else:
            self.tasks.infeasible(kind, error)

    def _peer_message(self, stream: Stream, message: m.Message) -> None:
        match message:
            case m.Done():
                self._done(stream, message)
            case m.Yielded():
                self._yielded(message)
            case m.Output():
                if self._on_output is not None:
                    self._on_output(message)
            case m.Returned():
                self.tasks.returned(message)
            case m.Resumed(lease_id):
                self.tasks.resumed(lease_id)
            case m.Locate(object_id):
                self.ownership.answer_locate(stream, object_id)
            case m.Located():
                self.ownership.located(message)
            case m.Lost(object_id, payload):
                self.recovery.lost(object_id, payload)
                self.ownership.answer_locate(stream, object_id)
            case m.Borrow():
                self.ownership.borrowed(message)
            case m.SegmentPulled():
                self.fetcher.pulled(message)
            case m.Source() | m.SegmentData():
                self.fetcher.puller.answered(message)
            case m.SegmentList():
                self.store_asker.answered(message)
            case m.Explain():
                self.explainer.asked(stream, message)
            case m.Explained():
                self.explainer.answered(message)
            case _:
                if self._on_message is not None:
                    self._on_message(stream, message)

    def _done(self, stream: Stream, message: m.Done) -> None:
        part: TaskRunner | ActorCaller = self.actors if self.actors.is_call(message.task_id) else self.tasks
        payload = message.payload
        if message.retained:
            self.ownership.count_retained_by(stream.peer_id, stream.address, message.retained)
        current = part.is_current(message.task_id, message.attempt)
        if current and payload[0] == payloads.LOST:
            part.dependency_lost(message)
            return
        work = part.finished(message) if current else None
        contained: list[Any] = []
        if message.contained:
            hold = self.ownership.hold_counted
            if payload[0] == payloads.MANY:
                contained = [[hold(*ref) for ref in refs] for refs in message.contained]
            else:
                contained = [hold(*ref) for ref in message.contained]
        if work is None:  # cancelled or lost meanwhile, or to be run again
            self.ownership.free(payload)
        else:
            failed, where = payloads.is_error(payload), stream.peer_id or stream.address
            self.results.complete(work, payload, contained, failed=failed, seconds=message.seconds, executor=where)

    def _yielded(self, message: m.Yielded) -> None:
        part: TaskRunner | ActorCaller = self.actors if self.actors.is_call(message.task_id) else self.tasks
        work = part.spec_of(message.task_id) if part.is_current(message.task_id, message.attempt) else None
        contained = [self.ownership.hold_counted(*ref) for ref in message.contained]
        yields = work.yields if work is not None else None
        lineage = None
        if work is not None and message.payload[0] == payloads.SEGMENT:
            lineage = lineage_of(work, self.table)
        if yields is None or not yields.arrived(message.number, message.payload, contained, lineage):
            self.ownership.free(message.payload)

    def _drop_generator(self, yields: Yields) -> None:
        yields.drop()
        if not yields.complete:
            self._cancel(yields.object_id, force=False, recursive=True)

    def _tell_consumed(self, yields: Yields) -> None:
        lease = self.tasks.lease_of(yields.task_id)
        address = lease.address if lease is not None else self.actors.address_of(yields.task_id)
        if address:
            self.peers.send(address, m.Consumed(yields.task_id, yields.taken))

    def _create_group(self, request: tuple[str, m.CreateGroup]) -> None:
        object_id, message = request
        self._groups[message.group_id] = object_id
        self.controller.tell(message)

    def _remove_group(self, group_id: str) -> None:
        self.removed_groups.add(group_id)
        self.controller.tell(m.RemoveGroup(group_id))
        error = PlacementGroupError(f"`{group_id}` was removed before it was ready.", group_id=group_id)
        self._group_settled(group_id, payloads.from_error(error))

    def _group_settled(self, group_id: str, payload: m.Payload) -> None:
        """A placement group is ready, or never will be; what comes later changes nothing."""
        object_id = self._groups.pop(group_id, None)
        if object_id is not None:
            self.table.ready(object_id, payload)

    def _cancel(self, object_id: str, force: bool, recursive: bool) -> None:
        stop = self.stoppers.pop(object_id, None)
        if stop is not None:
            stop()
        work = self.results.maker(object_id)
        if work is None:
            return
        work.cancelled = True
        if not self.actors.cancel(work, recursive=recursive):
            self.tasks.cancel(work.task_id, force=force, recursive=recursive)

    def _cancel_cell(self, request: tuple[str, bool]) -> None:
        tag, force = request
        for work in self.results.pending():
            if work.recipe.cell == tag:
                self._cancel(work.object_id, force=force and not work.target.method, recursive=True)

    def _peer_lost(self, address: str, owner_id: str) -> None:
        if self.closing:
            return
        self._last_answers.ended(address)
        self.tasks.peer_lost(address)
        self.actors.peer_lost(address)
        self.ownership.peer_lost(address, owner_id)
        if self._on_peer_lost is not None:
            self._on_peer_lost(address)
        self.fetcher.peer_lost(address)

    def _cluster_lost(self, reason: str) -> None:
        if not self.closing:
            self._lost = reason
            self._fail_everything(ClusterLostError(reason))

    def _fail_everything(self, error: ShoalError) -> None:
        """Nothing pending can be finished: give every waiting ref this error."""
        payload = payloads.from_error(error)
        self.results.forget(payload)
        self.ownership.fail_all(payload)

    def _after_batch(self) -> None:
        self.tasks.flush_if_due()

    def _schedule_report(self) -> None:
        if not self._report_due and self.controller.connected:
            self._report_due = True
            self.loop.call_later(REPORT_INTERVAL, self._report)

    def _report(self) -> None:
        self._report_due = False
        self.report()


__all__ = ["Owner", "OwnerConfig"]
