"""What the analysis page shows, as plain numbers: the records of work reduced to what can be drawn and read."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, NamedTuple

from shoal.model.cells import cell_name
from shoal.observe.durations import Durations
from shoal.observe.records import Batch, Record, records_of

#: Records looked at: the newest.
MAX_RECORDS = 200_000
#: Bars drawn, about; beyond them short pieces of work are drawn together.
MAX_BARS = 6_000
#: Executors drawn: the busiest; and functions and cells told apart.
MAX_LANES, MAX_FUNCTIONS, MAX_CELLS = 48, 10, 9
#: What the others are called.
OTHERS = "(others)"
NO_CELL = "no cell"
#: Slices of time that work is added up in.
NUM_SLICES = 240
#: Nodes of the transfer matrix: those that most has come from or gone to.
MAX_NODES = 30


class Bar(NamedTuple):
    """A piece of work in one lane, or ``number`` of them. Times are seconds since :attr:`Analysis.begin`.

    ``busy`` are the seconds of user code in it; ``unsuccessful`` of them have failed or were cancelled.
    """

    lane: int
    start: float
    end: float
    function: str
    number: int
    busy: float
    unsuccessful: int


@dataclasses.dataclass(slots=True)
class FunctionSummary:
    """The work of one function. Times are in seconds."""

    name: str
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    #: From the submission to the beginning, in all.
    waited: float = 0.0
    durations: Durations = dataclasses.field(default_factory=Durations)

    @property
    def count(self) -> int:
        return self.finished + self.failed + self.cancelled


@dataclasses.dataclass(frozen=True, slots=True)
class Analysis:
    """See the module's description.

    Attributes
    ----------
    begin, span
        When the first piece of work began, in Unix seconds, and the seconds from then to the last end.
    num_records, num_left_out
        Records looked at, and older ones that were not.
    functions
        The busiest first.
    names
        The functions that are told apart in the bars, the busiest first; :data:`OTHERS` last if there are more.
    lanes, num_lanes
        Ids of the executors that are drawn, and how many there are.
    bars
        In no particular order.
    bin
        Seconds below which pieces of work were drawn together; 0 if each is a bar of its own.
    width, cells
        The seconds that a slice of time is wide, and by cell how many pieces of its work ran at a time in each.
    nodes, transfers
        Labels of nodes, and by index of the source and of the receiver the bytes that went from one to the other.
    history
        The snapshot's.
    memory
        By cell, the bytes of its values in object stores: when that changed, in Unix seconds, and to how much.
    """

    begin: float
    span: float
    num_records: int
    num_left_out: int
    functions: list[FunctionSummary]
    names: list[str]
    lanes: list[str]
    num_lanes: int
    bars: list[Bar]
    bin: float
    width: float
    cells: dict[str, list[float]]
    nodes: list[str]
    transfers: dict[tuple[int, int], int]
    history: list[dict[str, Any]]
    memory: dict[str, list[tuple[float, int]]]


def analyse(snapshot: Mapping[str, Any], records: Iterable[Record] | Iterable[Batch]) -> Analysis:
    """Reduce the snapshot (:mod:`shoal.observe.cluster_view`) and records, packed or not, to what is shown."""
    found = list(_unpacked(records))
    left_out = max(0, len(found) - MAX_RECORDS)
    del found[:left_out]
    begin = min((record.started for record in found), default=0.0)
    span = max((record.ended for record in found), default=0.0) - begin
    functions = _functions(found)
    names = [function.name for function in functions[:MAX_FUNCTIONS]] + [OTHERS] * (len(functions) > MAX_FUNCTIONS)
    busy: Counter[str] = Counter()
    for record in found:
        if record.executor:
            busy[record.executor] += record.ended - record.started  # type: ignore[assignment]
    lanes = [executor for executor, _ in busy.most_common(MAX_LANES)]
    bars, width_of_bin = _bars(found, lanes, set(names), begin, span)
    nodes, transfers = _transfers(snapshot)
    return Analysis(
        begin,
        span,
        len(found),
        left_out,
        functions,
        names,
        lanes,
        len(busy),
        bars,
        width_of_bin,
        max(span, 1e-6) / NUM_SLICES,
        _cells(found, begin, max(span, 1e-6) / NUM_SLICES),
        nodes,
        transfers,
        list(snapshot["history"]),
        _memory(snapshot),
    )


def _memory(snapshot: Mapping[str, Any]) -> dict[str, list[tuple[float, int]]]:
    """Return the curves of the cells that took most at any time, up to the snapshot's time."""
    rows = sorted(snapshot.get("cell_memory", ()), key=lambda row: -max(nbytes for _, nbytes in row["points"]))
    found: dict[str, list[tuple[float, int]]] = {}
    for row in rows[:MAX_CELLS]:
        name = cell_name(row["cell"]) if row["cell"] not in ("", OTHERS) else row["cell"] or NO_CELL
        if name in found:  # another run of the cell
            name = f"{name} ({sum(known.startswith(name) for known in found) + 1})"
        points = [(float(time), int(nbytes)) for time, nbytes in row["points"]]
        found[name] = [*points, (max(float(snapshot["time"]), points[-1][0]), points[-1][1])]
    return found


def _unpacked(records: Iterable[Any]) -> Iterable[Record]:
    for item in records:
        if isinstance(item, Batch):
            yield from records_of([item])
        else:
            yield item


def _functions(records: list[Record]) -> list[FunctionSummary]:
    found: dict[str, FunctionSummary] = {}
    for record in records:
        summary = found.get(record.function)
        if summary is None:
            summary = found[record.function] = FunctionSummary(record.function)
        if record.outcome == "finished":
            summary.finished += 1
        elif record.outcome == "failed":
            summary.failed += 1
        else:
            summary.cancelled += 1
        if record.executor:
            summary.seconds += record.seconds
            summary.waited += record.started - record.submitted
            summary.longest = max(summary.longest, record.seconds)
            summary.durations.add(record.seconds)
    return sorted(found.values(), key=lambda summary: -summary.seconds)


def _bars(
    records: list[Record], lanes: list[str], names: set[str], begin: float, span: float
) -> tuple[list[Bar], float]:
    """Return the bars, and the seconds below which they stand for several pieces of work."""
    numbers = {executor: number for number, executor in enumerate(lanes)}
    drawn = [record for record in records if record.executor in numbers]
    width = 0.0
    if len(drawn) > MAX_BARS:
        width = max(span, 1e-6) * len(lanes) / MAX_BARS
        # Calls of one actor may overlap: then there may be many that are long.
        while sum(record.ended - record.started >= width for record in drawn) > MAX_BARS:
            width *= 2
    bars = []
    together: defaultdict[tuple[int, int], list[Record]] = defaultdict(list)
    for record in drawn:
        lane, start, end = numbers[record.executor], record.started - begin, record.ended - begin
        if end - start >= width:
            name = record.function if record.function in names else OTHERS
            bars.append(Bar(lane, start, end, name, 1, record.seconds, record.outcome != "finished"))
        else:
            together[lane, int(start / width)].append(record)
    for (lane, _), group in together.items():
        seconds: Counter[str] = Counter()
        for record in group:
            name = record.function if record.function in names else OTHERS
            seconds[name] += record.seconds  # type: ignore[assignment]
        start = min(record.started for record in group) - begin
        end = max(record.ended for record in group) - begin
        lost = sum(record.outcome != "finished" for record in group)
        bars.append(Bar(lane, start, end, max(seconds, key=seconds.__getitem__), len(group), seconds.total(), lost))
    return bars, width


def _cells(records: list[Record], begin: float, width: float) -> dict[str, list[float]]:
    """Return how much of each cell's work ran at a time, in each slice; the busiest cells, then the others."""
    sums: dict[str, list[float]] = {}
    steps: dict[str, list[float]] = {}
    totals: Counter[str] = Counter()
    for record in records:
        if not record.executor:
            continue
        cell = record.cell
        if cell not in sums:
            sums[cell], steps[cell] = [0.0] * (NUM_SLICES + 1), [0.0] * (NUM_SLICES + 2)
        start, end = record.started - begin, record.ended - begin
        totals[cell] += end - start  # type: ignore[assignment]
        first, last = min(NUM_SLICES, int(start / width)), min(NUM_SLICES, int(end / width))
        if first == last:
            sums[cell][first] += end - start
        else:
            # The slices between the two are full: noted where that begins and ends, and added up once.
            sums[cell][first] += (first + 1) * width - start
            sums[cell][last] += end - last * width
            steps[cell][first + 1] += width
            steps[cell][last] -= width
    found: dict[str, list[float]] = {}
    for number, (cell, _) in enumerate(totals.most_common()):
        name = (cell_name(cell) if cell else NO_CELL) if number < MAX_CELLS else OTHERS
        busy = found.setdefault(name, [0.0] * NUM_SLICES)
        level = 0.0
        for index in range(NUM_SLICES):
            level += steps[cell][index]
            busy[index] += (sums[cell][index] + level) / width
        busy[-1] += sums[cell][NUM_SLICES] / width
    return found


def _transfers(snapshot: Mapping[str, Any]) -> tuple[list[str], dict[tuple[int, int], int]]:
    moved: dict[tuple[str, str], int] = {}
    for node in snapshot["nodes"]:
        for source, nbytes in node.get("received_from", ()):
            moved[source, node["id"]] = moved.get((source, node["id"]), 0) + nbytes
    totals = Counter({node["id"]: 0 for node in snapshot["nodes"]})
    for pair, nbytes in moved.items():
        for node_id in pair:
            totals[node_id] += nbytes
    shown = [node_id for node_id, _ in islice(totals.most_common(), MAX_NODES)]
    hosts = {node["id"]: node["host"] for node in snapshot["nodes"]}
    on_host = Counter(hosts.values())

    def label(node_id: str) -> str:
        host = hosts.get(node_id)
        return node_id if host is None else host if on_host[host] == 1 else f"{host} {node_id}"

    shown.sort(key=label)
    index = {node_id: number for number, node_id in enumerate(shown)}
    pairs = {
        (index[source], index[receiver]): nbytes
        for (source, receiver), nbytes in moved.items()
        if source in index and receiver in index
    }
    return [label(node_id) for node_id in shown], pairs


__all__ = ["Analysis", "Bar", "FunctionSummary", "analyse"]
