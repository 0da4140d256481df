"""Sources that are made of other plans: one after the other, side by side, mixed, or cut anew."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import shoal
from shoal_ml.batch.batch_formats import from_batch
from shoal_ml.batch.blocks import Block, concat, slice_rows, take_rows
from shoal_ml.batch.errors import RowCountError
from shoal_ml.batch.handles import UNKNOWN, Handle
from shoal_ml.batch.sources.memory import handle_of
from shoal_ml.batch.sources.source import Piece, Source, Wishes, fingerprint

if TYPE_CHECKING:
    from shoal_ml.batch.plan import Plan

#: Runs a plan and gives the handles of its blocks, in order.
Runner = Callable[["Plan"], Iterator[Handle]]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class PartsPiece(Piece):
    """Parts of blocks that are in the cluster: joined, and then mixed if *order* says how.

    Attributes
    ----------
    refs
        The blocks.
    rows
        For each block the rows that are wanted: their positions, or start and stop.
    order
        Positions in what was joined; None leaves it as it is.
    """

    name: str
    refs: tuple[shoal.ObjectRef, ...]
    rows: tuple[Any, ...]
    order: np.ndarray[Any, Any] | None = None
    held: int = 0

    @property
    def key(self) -> str:
        return self.name

    @property
    def nbytes(self) -> int:
        return self.held

    def read(self) -> Iterator[Block]:
        parts = [self._part(ref, rows) for ref, rows in zip(self.refs, self.rows, strict=True)]
        block = concat(parts)
        yield block if self.order is None or not block else take_rows(block, self.order)

    @staticmethod
    def _part(ref: shoal.ObjectRef, rows: Any) -> Block:
        block: Block = shoal.get(ref)
        return take_rows(block, rows) if isinstance(rows, np.ndarray) else slice_rows(block, *rows)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ZippedPiece(Piece):
    """Equally many rows of two blocks, side by side."""

    left: PartsPiece
    right: PartsPiece

    @property
    def key(self) -> str:
        return f"{self.left.key}|{self.right.key}"

    def read(self) -> Iterator[Block]:
        (left,), (right,) = self.left.read(), self.right.read()
        yield {**left, **{name if name not in left else f"{name}_1": column for name, column in right.items()}}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class FramePiece(Piece):
    """A DataFrame that is in the cluster, such as a partition of Dask's."""

    name: str
    ref: shoal.ObjectRef

    @property
    def key(self) -> str:
        return self.name

    def read(self) -> Iterator[Block]:
        yield from_batch(_as_batch(shoal.get(self.ref)), self.name)


def _as_batch(value: Any) -> Any:
    """Return a partition of a dataframe, a bag or an array as a batch."""
    from shoal_ml.batch.rows import block_of_rows

    if isinstance(value, list | tuple):
        return block_of_rows(value, "from_dask")
    if isinstance(value, np.ndarray):
        return {"data": value}
    return value.to_frame() if hasattr(value, "to_frame") else value


class UnionSource(Source):
    """All rows of one plan, then those of the next."""

    name, reads = "union", True

    def __init__(self, plans: Sequence[Plan], run: Runner) -> None:
        self._plans, self._run = tuple(plans), run

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        for plan in self._plans:
            yield from self._run(plan) if plan.steps else plan.source.handles(plan.wishes(wishes.parallelism))

    def describe(self) -> str:
        return " and ".join(plan.source.name for plan in self._plans)


class ZipSource(Source):
    """The columns of two plans side by side."""

    name, reads = "zip", True

    def __init__(self, left: Plan, right: Plan, run: Runner) -> None:
        self._left, self._right, self._run = left, right, run

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        left, right = self._run(self._left), self._run(self._right)
        mine = theirs = None
        done = 0
        while True:
            mine, theirs = _next_full(mine, left), _next_full(theirs, right)
            if mine is None or theirs is None:
                if mine is not None or theirs is not None:
                    longer = "the second has more" if mine is None else "the first has more"
                    raise RowCountError(
                        f"`zip` needs as many rows on both sides: after {done:,} rows {longer}.",
                        given=done,
                        returned=done,
                    )
                return
            rows = min(mine.num_rows, theirs.num_rows)
            pair = [part_of(handle.rows(0, rows)) for handle in (mine, theirs)]
            yield handle_of(ZippedPiece(*pair))
            mine, theirs = (handle.rows(rows, handle.num_rows) for handle in (mine, theirs))
            done += rows


def _next_full(handle: Handle | None, more: Iterator[Handle]) -> Handle | None:
    """Return a handle with rows, this or a later one."""
    while handle is None or not handle.num_rows:
        handle = next(more, None)
        if handle is None:
            return None
    return handle


class ArrangedSource(Source):
    """The rows of a plan, all of them made first, in other blocks or another order."""

    reads = True

    def __init__(
        self, name: str, plan: Plan, run: Runner, arrange: Callable[[Sequence[Handle]], Iterator[Handle]]
    ) -> None:
        self.name = name
        self._plan, self._run, self._arrange = plan, run, arrange

    def handles(self, wishes: Wishes) -> Iterator[Handle]:
        return self._arrange(list(self._run(self._plan)))

    def num_rows(self) -> int | None:
        return self._plan.source.num_rows() if not self._plan.steps else None

    def describe(self) -> str:
        return " → ".join([self._plan.source.name, *(step.name for step in self._plan.steps)])


def part_of(handle: Handle) -> PartsPiece:
    """Return the rows of a handle as a piece."""
    rows = (handle.start, handle.start + handle.num_rows)
    name = f"{'+'.join(handle.keys)}[{rows[0]}:{rows[1]}]"
    return PartsPiece(name, (handle.value,), (rows,), None, handle.nbytes)


def cut_anew(handles: Sequence[Handle], num_blocks: int) -> Iterator[Handle]:
    """Give the rows in this many blocks of about the same size, in the same order."""
    total = sum(handle.num_rows for handle in handles)
    queue = deque(handle for handle in handles if handle.num_rows)
    for index in range(num_blocks):
        wanted = total * (index + 1) // num_blocks - total * index // num_blocks
        yield handle_of(join(take_first(queue, wanted), f"block{index}/{num_blocks}"))


def take_first(queue: deque[Handle], wanted: int) -> list[Handle]:
    """Take handles of the first rows off a queue."""
    taken = []
    while wanted:
        handle = queue.popleft()
        if handle.num_rows > wanted:
            queue.appendleft(handle.rows(wanted, handle.num_rows))
            handle = handle.rows(0, wanted)
        taken.append(handle)
        wanted -= handle.num_rows
    return taken


def join(handles: Sequence[Handle], name: str) -> PartsPiece:
    """Return the rows of several handles as one piece."""
    rows = tuple((handle.start, handle.start + handle.num_rows) for handle in handles)
    held = sum(handle.nbytes for handle in handles)
    return PartsPiece(name, tuple(handle.value for handle in handles), rows, None, held)


def mixed(handles: Sequence[Handle], seed: int | None) -> Iterator[Handle]:
    """Give the rows in random order, in as many blocks.

    One permutation of all rows is drawn here; whoever makes a block takes its rows out of the blocks where they are,
    which on one node costs a copy of them and no more.
    """
    handles = [handle for handle in handles if handle.num_rows]
    order = np.random.default_rng(seed).permutation(sum(handle.num_rows for handle in handles))
    ends = np.cumsum([handle.num_rows for handle in handles])
    begins = ends - [handle.num_rows for handle in handles] if handles else ends
    mean = sum(handle.nbytes for handle in handles) // max(1, len(handles))
    for index, wanted in enumerate(np.array_split(order, len(handles)) if handles else []):
        owner = np.searchsorted(ends, wanted, side="right")
        by_owner = np.argsort(owner, kind="stable")
        used = np.unique(owner)
        rows = [wanted[owner == one] - begins[one] + handles[one].start for one in used]
        back = np.empty(len(wanted), dtype=np.int64)
        back[by_owner] = np.arange(len(wanted))
        name = f"shuffled{fingerprint(seed)}[{index}]"
        yield handle_of(PartsPiece(name, tuple(handles[one].value for one in used), tuple(rows), back, mean))


__all__ = [
    "UNKNOWN", "ArrangedSource", "FramePiece", "PartsPiece", "UnionSource", "ZipSource", "cut_anew", "join", "mixed",
    "part_of", "take_first",
]  # fmt: skip
