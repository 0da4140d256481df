"""Every message that travels between our processes, and how it becomes bytes.

A message is a named tuple of plain values (strings, numbers, bytes, tuples, None). On the wire it is an array whose
first item is the message's number in :data:`KINDS`; a batch of messages is an array of those, packed with msgpack.
Nothing in a message is executed by decoding it: user values travel as opaque byte frames and are unpickled only in
the process that asked for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgpack

#: Peers with another number refuse each other at the greeting.
PROTOCOL_VERSION = 10

#: Where a value is: see :mod:`shoal.runtime.payload`.
Payload = tuple[Any, ...]
#: ``(name, amount)`` pairs.
WireResources = tuple[tuple[str, float], ...]
#: A :class:`shoal.model.placement.SchedulingClass` as plain tuples.
WireClass = tuple[Any, ...]


# -- greetings ---------------------------------------------------------------------------------------------------


class OwnerHello(NamedTuple):
    """Owner -> controller, first on the stream."""

    protocol: int
    owner_id: str
    job_id: str
    address: str
    #: Where a driver's names are; executors use their job's.
    namespace: str
    is_driver: bool
    versions: dict[str, str]


class AgentHello(NamedTuple):
    """Node agent -> controller, first on the stream. ``worker`` is its Dask worker's address."""

    protocol: int
    node_id: str
    worker: str
    host: str
    store: str
    total: WireResources
    labels: tuple[tuple[str, str], ...]
    versions: dict[str, str]


class Welcome(NamedTuple):
    """Controller -> owner or agent: you are known. ``nodes`` rows: ``(node_id, worker, host, store, versions)``."""

    cluster_id: str
    name: str
    versions: dict[str, str]
    nodes: tuple[tuple[str, str, str, str, dict[str, str]], ...]


class Refused(NamedTuple):
    """Controller -> anybody: not with this protocol."""

    reason: str


class PeerHello(NamedTuple):
    """Owner or executor -> the peer it has just connected to, and back.

    ``losses`` says how many streams between the two the sender has seen end.
    """

    protocol: int
    owner_id: str
    job_id: str
    address: str
    losses: int


class ExecutorHello(NamedTuple):
    """Executor -> its agent: ready for work at ``address``."""

    executor_id: str
    address: str
    pid: int


class Preload(NamedTuple):
    """Executor -> agent: tasks use this module; import it in the template so that new executors have it."""

    module: str


class NodesChanged(NamedTuple):
    """Controller -> owners and agents: nodes have come, as rows ``(node_id, worker, host, store)``, and gone.

    ``left`` are the addresses of Dask workers; agents are told of those ``joined`` that had left before.
    """

    joined: tuple[tuple[str, str, str, str], ...]
    left: tuple[str, ...]


# -- leases and actors ---------------------------------------------------------------------------------------------


class Demand(NamedTuple):
    """Owner -> controller: how many leases of this class I want *in all* (an absolute number, so repeats are safe)."""

    kind: WireClass
    wanted: int


class LeaseGranted(NamedTuple):
    """Controller -> owner."""

    lease_id: str
    kind: WireClass
    node_id: str
    executor_id: str
    address: str


class Infeasible(NamedTuple):
    """Controller -> owner: no node could ever hold this. ``actor_id`` is empty for tasks."""

    kind: WireClass
    largest: WireResources
    actor_id: str
    reason: str


class Reclaim(NamedTuple):
    """Controller -> owner: give this lease back, when it next idles or (not ``idle_only``) as soon as it drains."""

    lease_id: str
    idle_only: bool


class ReturnLease(NamedTuple):
    """Owner -> controller: nothing of mine runs there any more; or (``broken``) the executor does not answer me."""

    lease_id: str
    broken: bool


class LeaseLost(NamedTuple):
    """Controller -> owner: the executor behind the lease is gone; the rest is as in :class:`ExecutorDied`."""

    lease_id: str
    cause: str
    stderr: str
    begun: str
    memory: tuple[int, ...]


class CreateActor(NamedTuple):
    """Owner -> controller. Whoever is to run ``__init__``, now or after a restart, gets ``creation``.

    ``creation`` is a packed batch of messages that ends with the :class:`Run`; ``detached`` actors outlive their owner.
    """

    actor_id: str
    kind: WireClass
    class_name: str
    name: str
    detached: bool
    max_restarts: int
    creation: bytes


class ClaimName(NamedTuple):
    """Owner -> controller: the actor about to be created shall have this name; answered with a :class:`NameClaimed`.

    ``policy`` says what happens if another has it (``error``, ``keep``, ``replace``); ``handle`` is what
    :class:`FindActor` returns: its value is pickled and none of the controller's business.
    """

    request: int
    namespace: str
    name: str
    actor_id: str
    policy: str
    handle: bytes
    life: tuple[str, str]


class NameClaimed(NamedTuple):
    """Controller -> owner. ``holder`` is the id of the actor that has the name now; the rest describes it."""

    request: int
    holder: str
    handle: bytes
    life: tuple[str, str]


class FindActor(NamedTuple):
    """Anybody -> controller: which actor has this name? Answered with a :class:`NameClaimed`, maybe an empty one."""

    request: int
    namespace: str
    name: str


class Ask(NamedTuple):
    """Anybody -> controller: a question, or a wish, by ``topic``; answered with an :class:`Answer`.

    With a ``target`` the controller passes it on to the owner or node of that id, and brings back its answer. Nodes
    pass questions about one of their executors on to it.
    """

    request: int
    topic: str
    details: tuple[Any, ...]
    target: str = ""


class Answer(NamedTuple):
    """To who asked: the value, or in ``failed`` why there is none."""

    request: int
    value: Any
    failed: str = ""


class CreateGroup(NamedTuple):
    """Owner -> controller: reserve these bundles, all or none. Detached groups outlive their owner."""

    group_id: str
    bundles: tuple[WireResources, ...]
    strategy: str
    detached: bool


class GroupReady(NamedTuple):
    """Controller -> owner: the bundles are reserved, each on the node in its place."""

    group_id: str
    nodes: tuple[str, ...]


class GroupFailed(NamedTuple):
    """Controller -> owner: the group can never be reserved."""

    group_id: str
    reason: str


class RemoveGroup(NamedTuple):
    """Anybody -> controller: end what runs in the group and free its bundles."""

    group_id: str


class KillActor(NamedTuple):
    """Anybody -> controller: end the process of this actor now; with ``restart`` it counts as a crash."""

    actor_id: str
    cause: str
    restart: bool


class WatchActor(NamedTuple):
    """Holder of a handle -> controller: tell me where the actor is and when it dies."""

    actor_id: str


class ActorAlive(NamedTuple):
    """Controller -> watchers: its ``__init__`` has run there."""

    actor_id: str
    node_id: str
    executor_id: str
    address: str


class ActorRestarting(NamedTuple):
    """Controller -> watchers: its process is gone and another will take its place."""

    actor_id: str
    cause: str


class ActorDead(NamedTuple):
    """Controller -> watchers. The last word about this actor; ``error`` is the payload of what ``__init__`` raised."""

    actor_id: str
    cause: str
    stderr: str
    error: Payload


class StartLease(NamedTuple):
    """Controller -> agent: bind an executor to this lease; an actor gets a fresh one of its own, and ``creation``.

    ``restartable`` says that the actor may be started afresh if it is lost.
    """

    lease_id: str
    job_id: str
    resources: WireResources
    actor_id: str
    creation: bytes
    restartable: bool


class LeaseStarted(NamedTuple):
    """Agent -> controller."""

    lease_id: str
    executor_id: str
    address: str


class Bind(NamedTuple):
    """Agent -> executor: work of this lease comes next. ``gpus`` are the devices it may use, None on nodes without.

    ``creation`` is that of the actor to host; empty for tasks.
    """

    lease_id: str
    resources: WireResources
    gpus: tuple[str, ...] | None
    actor_id: str
    creation: bytes
    job_id: str


class ActorShape(NamedTuple):
    """Part of an actor's creation: how many calls run at once (0: as usual for its kind), and in which groups.

    ``arguments`` names the values that the run depends on, each as ``(object_id, owner's address)``: when the actor
    starts afresh, the payloads of then may be out of date.
    """

    max_concurrency: int
    groups: tuple[tuple[str, int], ...]
    arguments: tuple[tuple[str, str], ...]


class ActorCreated(NamedTuple):
    """Executor -> agent -> controller: ``__init__`` has run; ``error`` is the payload of what it raised, or empty."""

    lease_id: str
    error: Payload


class ActorExited(NamedTuple):
    """Executor -> agent -> controller: the actor has stopped by itself and is not to be restarted."""

    lease_id: str
    cause: str


class EndLease(NamedTuple):
    """Controller -> agent. With ``kill`` the executor is ended, else it may serve the same job again."""

    lease_id: str
    kill: bool


class EndExecutor(NamedTuple):
    """Owner -> controller -> agent: end the process that serves this lease, if this task is what it began last."""

    lease_id: str
    task_id: str


class ExecutorDied(NamedTuple):
    """Agent -> controller: the executor bound to this lease is gone (or could not be started).

    ``begun`` is the id of the task it began last, "" if it began none, "?" if nobody can tell. ``memory`` is empty, or,
    if it was ended because memory was nearly full: the bytes it used, those in use in all, and the limit of these.
    """

    lease_id: str
    cause: str
    stderr: str
    begun: str
    memory: tuple[int, ...]


class OwnerGone(NamedTuple):
    """Controller -> agents: release what this owner stored; with ``job_ended``, end the job's idle executors too."""

    owner_id: str
    job_id: str
    job_ended: bool


class Waiting(NamedTuple):
    """Executor -> agent -> controller: work on this lease waits for other work (or goes on): lend its CPUs."""

    lease_id: str
    waiting: bool


class NodeUsage(NamedTuple):
    """Agent -> controller, about once a second. Memory in bytes, ratios in 0-1.

    ``store`` is the most that the node's object store may hold, ``spilled`` what it has put on disk. ``gpus`` rows:
    ``(name, ratio, memory, memory_used)``; ``pending_calls`` rows: ``(actor_id, calls that wait or run there)``;
    ``received_from`` rows: ``(address of the agent, bytes of copies that came from there in all)``.
    """

    cpu_ratio: float
    memory: int
    memory_used: int
    executors: int
    store: int = 0
    store_used: int = 0
    spilled: int = 0
    received_per_second: int = 0
    gpus: tuple[tuple[str, float, int, int], ...] = ()
    pending_calls: tuple[tuple[str, int], ...] = ()
    received_from: tuple[tuple[str, int], ...] = ()


class PendingCalls(NamedTuple):
    """Executor -> agent, a few times a second at most: how many calls wait or run in its actor now."""

    num_calls: int


class NodeFull(NamedTuple):
    """Agent -> controller: the node's memory was nearly full, so it takes no new leases; or (not ``full``) it does."""

    full: bool


class NodeBusy(NamedTuple):
    """Agent -> controller: what Dask's own running tasks use of this node now."""

    amounts: WireResources


class OwnerStats(NamedTuple):
    """Owner -> controller, a few times a second while something happens: how its counts have changed.

    ``counts`` rows are :data:`shoal.observe.functions.CountsRow`; ``records`` is a packed batch of ``num_records``
    tasks and calls that have ended (:mod:`shoal.observe.records`).
    """

    counts: tuple[tuple[str, str, int, int, int, int, int, float], ...]
    num_records: int
    records: bytes


class CellMemory(NamedTuple):
    """Owner -> controller, a few times a minute while it changes: bytes of its values in object stores, by cell.

    ``rows`` are a cell's tag ("" for none) and its bytes; cells that are not named have none (any more).
    """

    rows: tuple[tuple[str, int], ...]


class MetricsReport(NamedTuple):
    """Owner -> controller, a few times a second while something happens: how its metrics have changed.

    ``defined`` rows are :data:`shoal.observe.metrics.DefinitionRow`, of metrics that it has not told of before;
    ``changed`` rows are :data:`shoal.observe.metrics.Change`.
    """

    defined: tuple[tuple[str, str, str, tuple[str, ...], tuple[float, ...]], ...]
    changed: tuple[tuple[str, tuple[str, ...], tuple[float, ...]], ...]


class WatchHello(NamedTuple):
    """Watcher -> controller, first on the stream: show me the cluster.

    The snapshot comes as JSON, and every ``interval`` seconds what has changed in it; with ``records`` also the
    batches of records as they come.
    """

    protocol: int
    watcher_id: str
    interval: float
    records: bool


class View(NamedTuple):
    """Controller -> watcher: the whole snapshot (:mod:`shoal.observe.cluster_view`), as JSON."""

    snapshot: bytes


class ViewChanged(NamedTuple):
    """Controller -> watcher: what has changed (:mod:`shoal.observe.deltas`), as JSON."""

    delta: bytes


class Records(NamedTuple):
    """Controller -> watcher: a batch of records, as :class:`OwnerStats` brought it."""

    owner_id: str
    num_records: int
    packed: bytes


# -- work ----------------------------------------------------------------------------------------------------------


class Define(NamedTuple):
    """Owner -> executor, once per stream: the pickled function or class that ``function_id`` names.

    With ``has_refs`` it refers to object refs, which whoever loads it borrows: for the time of a run, not for ever.
    """

    function_id: str
    pickled: bytes
    has_refs: bool


class Recipe(NamedTuple):
    """Owner -> executor, once per stream: what many runs have in common.

    ``method`` is empty for a task, ``__init__`` to create the actor, ``__stop__`` to end it, else the method's name.
    ``num_returns`` is -1 for a stream of values, of which ``max_pending`` (0: any number) may be ahead of the consumer.
    ``depth`` counts the tasks around it. ``error_retries`` is how often any error is followed by another attempt.
    """

    recipe_id: int
    function_id: str
    method: str
    name: str
    cell: str | None
    driver: str
    depth: int
    num_returns: int
    max_pending: int
    group: str
    error_retries: int = 0

    def is_last(self, attempt: int) -> bool:
        """Whether an error of this attempt is the last word."""
        return 0 <= self.error_retries <= attempt


class Run(NamedTuple):
    """Owner -> executor: run one task, or one call of the actor that lives there.

    ``args`` is the payload of ``(positional, keyword)`` in which each awaited ref is a placeholder; ``dependencies``
    holds their payloads.
    """

    task_id: str
    lease_id: str
    recipe_id: int
    args: Payload
    dependencies: tuple[Payload, ...]
    attempt: int


class Done(NamedTuple):
    """Executor -> owner: the result's payload and the seconds it took.

    ``contained`` lists the refs inside the result, each as ``(object_id, owner's address)``, for which the receiver
    already counts as a borrower (of several results, one list for each); ``retained`` lists borrowed refs that the
    executor goes on holding, for which the receiver has it counted.
    """

    task_id: str
    #: The run's: an answer of an earlier one, which counts as lost, comes too late.
    attempt: int
    payload: Payload
    seconds: float
    contained: tuple[Any, ...]
    retained: tuple[tuple[str, str], ...]


class Yielded(NamedTuple):
    """Executor -> owner: the generator's value of this ``number``; ``contained`` as in :class:`Done`."""

    task_id: str
    attempt: int
    number: int
    payload: Payload
    contained: tuple[tuple[str, str], ...]


class Consumed(NamedTuple):
    """Owner -> executor: this many of the generator's values have been taken (an absolute number)."""

    task_id: str
    taken: int


class Recall(NamedTuple):
    """Owner -> executor: send back the tasks of this lease that have not begun."""

    lease_id: str


class Returned(NamedTuple):
    """Executor -> owner: these did not begin and will not; ``waiting`` says that the running task waits for others."""

    lease_id: str
    task_ids: tuple[str, ...]
    waiting: bool


class Resumed(NamedTuple):
    """Executor -> owner: the task that waited goes on."""

    lease_id: str


class CancelTask(NamedTuple):
    """Owner -> executor: interrupt it, or drop it if it has not begun.

    ``force`` ends the executor if the task runs; ``recursive`` includes the work that it has submitted.
    """

    task_id: str
    force: bool
    recursive: bool


class Output(NamedTuple):
    """Executor -> owner -> … -> driver: what a task printed (``stdout``, ``stderr``) or displayed (``display``, JSON).

    It goes up the way that the task's result goes, ahead of it, so that it is there when the result is.
    """

    driver: str
    task_id: str
    task_name: str
    cell: str | None
    executor_id: str
    kind: str
    data: str


# -- objects -------------------------------------------------------------------------------------------------------


class Locate(NamedTuple):
    """Borrower -> owner: answer with the payload as soon as the object is ready."""

    object_id: str


class Lost(NamedTuple):
    """Borrower -> owner: the value cannot be read where ``payload`` says. Answer as to :class:`Locate`."""

    object_id: str
    payload: Payload


class Located(NamedTuple):
    """Owner -> borrower; ``contained`` as in :class:`Done`."""

    object_id: str
    payload: Payload
    contained: tuple[tuple[str, str], ...]


class Borrow(NamedTuple):
    """Anybody -> owner: ``borrower``, at ``address``, holds the object (+1) or has let it go (-1 for each time)."""

    object_id: str
    borrower: str
    change: int
    address: str


class PullSegment(NamedTuple):
    """Process -> the agent of its node: get me a copy of this segment of another node's, for all who are here."""

    request: int
    segment: Payload


class SegmentPulled(NamedTuple):
    """Agent -> process: the copy is at ``path``; or there is none, because of this ``trouble``.

    ``kind`` says which: ``lost``, nobody has the segment any more; ``full``, this node has no room for it; ``broken``,
    this node cannot keep it for another reason.
    """

    request: int
    path: str
    trouble: str
    kind: str


class FindSource(NamedTuple):
    """Reader -> agent that the segment was written under: whom may I read it from? ``reader`` is my address."""

    request: int
    path: str
    reader: str


class Source(NamedTuple):
    """Agent -> reader: from the agent at ``address``, where it is at ``path``. Both are empty if it is gone."""

    request: int
    address: str
    path: str


class SourceDone(NamedTuple):
    """Reader -> agent that lent it: I read no more from ``source``; others may read my ``copy``, if that is a path.

    ``broken`` says that the source could not be read.
    """

    path: str
    reader: str
    source: str
    copy: str
    broken: bool


class ReadSegment(NamedTuple):
    """Reader -> source: send this range of bytes of a segment."""

    request: int
    path: str
    offset: int
    length: int


class SegmentData(NamedTuple):
    """Source -> reader; ``data`` is None when there is no such segment. It may be a view; see :data:`BULKY`."""

    request: int
    data: bytes | memoryview | None


class FreeSegment(NamedTuple):
    """Owner, or the segment's own agent -> agent: remove this segment."""

    path: str


class SegmentsSeen(NamedTuple):
    """Agent -> controller -> owner: these segments of yours are in the store of the agent at ``holder``.

    Those that the owner knows nothing of are freed: whoever wrote them died before it could say so.
    """

    owner_id: str
    holder: str
    names: tuple[str, ...]


class SegmentsUnowned(NamedTuple):
    """Owner, or controller for one that it does not know -> agent: nobody will ever ask for these segments."""

    names: tuple[str, ...]


class ListSegments(NamedTuple):
    """Owner -> agent: what is in your store? Answered with :class:`SegmentList`."""

    request: int
    #: Segments listed at most: the biggest.
    most: int


class SegmentList(NamedTuple):
    """Agent -> owner: the bytes in the store's memory with their limit, those on disk with theirs, and the segments.

    Each as ``(name, bytes, where, mapped)``: where is one of ``memory``, ``disk`` and ``leaving``, of one whose object
    was freed and that is mapped by somebody. ``more`` counts those that are not listed, and their bytes.
    """

    request: int
    memory: tuple[int, int]
    disk: tuple[int, int]
    segments: tuple[tuple[str, int, str, bool], ...]
    more: tuple[int, int]


class Explain(NamedTuple):
    """Anybody -> owner or executor: why is this as it is? Answered with :class:`Explained`."""

    request: int
    #: ``object``, ``task`` (that was sent there) or ``actor`` (that lives there).
    topic: str
    subject: str
    #: Ids that the question has passed already: one of them again is a cycle.
    path: tuple[str, ...]
    #: Seconds within which the answer is wanted.
    seconds: float


class Explained(NamedTuple):
    """The answer: a :class:`shoal.model.explanation.Explanation` as tuples."""

    request: int
    explanation: tuple[Any, ...]


#: Position is the number on the wire: raise PROTOCOL_VERSION when it or a kind's fields change.
KINDS: tuple[type[Any], ...] = (
    OwnerHello,
    AgentHello,
    Welcome,
    Refused,
    PeerHello,
    ExecutorHello,
    Preload,
    NodesChanged,
    Demand,
    LeaseGranted,
    Infeasible,
    Reclaim,
    ReturnLease,
    LeaseLost,
    CreateActor,
    ClaimName,
    NameClaimed,
    FindActor,
    Ask,
    Answer,
    CreateGroup,
    GroupReady,
    GroupFailed,
    RemoveGroup,
    KillActor,
    WatchActor,
    ActorAlive,
    ActorRestarting,
    ActorDead,
    StartLease,
    LeaseStarted,
    Bind,
    ActorShape,
    ActorCreated,
    ActorExited,
    EndLease,
    EndExecutor,
    ExecutorDied,
    OwnerGone,
    Waiting,
    NodeUsage,
    PendingCalls,
    NodeFull,
    NodeBusy,
    OwnerStats,
    CellMemory,
    MetricsReport,
    WatchHello,
    View,
    ViewChanged,
    Records,
    Define,
    Recipe,
    Run,
    Done,
    Yielded,
    Consumed,
    Recall,
    Returned,
    Resumed,
    CancelTask,
    Output,
    Locate,
    Lost,
    Located,
    Borrow,
    PullSegment,
    SegmentPulled,
    FindSource,
    Source,
    SourceDone,
    ReadSegment,
    SegmentData,
    FreeSegment,
    SegmentsSeen,
    SegmentsUnowned,
    ListSegments,
    SegmentList,
    Explain,
    Explained,
)
#: Messages whose last field may be large: streams that can carry it beside the batch, so that it is not copied into it.
BULKY = SegmentData

_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}

Message = Any


def pack(batch: Iterable[Message]) -> bytes:
    """Turn a batch of messages into bytes."""
    rows = [(_NUMBERS[type(message)], *message) for message in batch]
    try:
        packed: bytes = msgpack.packb(rows)
    except UnicodeEncodeError:  # a name made of a file's, say: any string that Python holds can travel
        packed = msgpack.packb(rows, unicode_errors="surrogatepass")
    return packed


def unpack(data: bytes | memoryview) -> list[Message]:
    """Turn bytes into the batch of messages they hold.

    Raises
    ------
    ValueError
        The bytes are not a batch of messages of this protocol.
    """
    try:
        try:
            rows = msgpack.unpackb(data, use_list=False)
        except UnicodeDecodeError:
            rows = msgpack.unpackb(data, use_list=False, unicode_errors="surrogatepass")
        return [KINDS[row[0]]._make(row[1:]) for row in rows]
    except (LookupError, TypeError, msgpack.UnpackException, ValueError) as error:
        raise ValueError(f"not a batch of shoal messages: {error}") from error
